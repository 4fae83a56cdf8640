"""A dozen pictures of one colour each that say what colour they are, and the smallest of models."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from PIL import Image

from search.train.recipe import Recipe

COLOURS = ("red", "green", "blue", "white", "black", "orange", "purple", "pink", "gray", "brown", "navy", "gold")
ARCHITECTURE = {
    "embed_dim": 32,
    "vision_cfg": {"image_size": 32, "layers": 2, "width": 64, "patch_size": 16},
    "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 32, "heads": 1, "layers": 2},
}


@pytest.fixture(autouse=True, scope="package")
def one_thread() -> Iterator[None]:
    """Models this small are slower with more, and the machine has other things to do."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="package")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """captions.tsv with two captions a picture, and arch.json."""
    folder = tmp_path_factory.mktemp("colours")
    lines = ["image\tcaption"]
    for colour in COLOURS:
        Image.new("RGB", (40, 48), colour).save(folder / f"{colour}.png")
        lines += [f"{colour}.png\ta {colour} wall", f"{colour}.png\tnothing but {colour}"]
    (folder / "captions.tsv").write_text("\n".join(lines))
    (folder / "arch.json").write_text(json.dumps(ARCHITECTURE))
    return folder


@pytest.fixture
def recipe(data: Path):
    """Makes a recipe on that data, from scratch unless it says otherwise."""

    def make(**given) -> Recipe:
        begin = {} if "model" in given else {"architecture": str(data / "arch.json")}
        values = {
            "captions": str(data / "captions.tsv"),
            "batch_size": 4,
            "steps": 2,
            "warm_up": 2,
            "held_out_share": 0.0,
            "workers": 1,
        }
        return Recipe.of({**values, **begin, **given})

    return make
