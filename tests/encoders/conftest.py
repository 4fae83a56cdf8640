"""What the encoder tests share: pictures, the built-in model, random models, and how to compare."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from encoders.forks import Forks
from PIL import Image

from search.encoders import Encoder, conversion, exports, load_encoder
from search.encoders.blueprints import open_clip


@pytest.fixture(scope="session")
def files() -> Iterator[Path]:
    """A folder for large random checkpoints, gone after the session (pytest keeps its own for three)."""
    with tempfile.TemporaryDirectory() as folder:
        yield Path(folder)


@pytest.fixture(scope="session")
def forks() -> Iterator[Forks]:
    forks = Forks()
    yield forks
    forks.close()


@pytest.fixture
def started_anew() -> None:
    """The process that converts weights is started as users have it, which takes two seconds longer."""


@pytest.fixture(autouse=True)
def forked(request: pytest.FixtureRequest, forks: Forks, monkeypatch: pytest.MonkeyPatch) -> None:
    """The process that converts weights is forked from one that has imported torch."""
    run, program = subprocess.run, conversion._PROGRAM

    def fork(command: list[str], **options) -> subprocess.CompletedProcess:
        if command != [sys.executable, "-I", "-c", program]:
            return run(command, **options)
        return subprocess.CompletedProcess(command, *forks.run(program, options["input"]))

    if hasattr(os, "fork") and "started_anew" not in request.fixturenames:
        monkeypatch.setattr(subprocess, "run", fork)


@pytest.fixture(autouse=True)
def conversions(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The cache of converted weights, a new one for each test."""
    folder = tmp_path_factory.mktemp("conversions") / "checkpoints"
    monkeypatch.setattr(conversion, "default_cache", lambda: folder)
    return folder


@pytest.fixture(autouse=True)
def cache_of_exports(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The cache of exported models, a new one for each test."""
    folder = tmp_path_factory.mktemp("exported") / "exports"
    monkeypatch.setattr(exports, "default_cache", lambda: folder)
    return folder


@pytest.fixture(autouse=True)
def models_in_int8(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of models in int8, a new one for each test."""
    folder = tmp_path_factory.mktemp("data") / "models"
    monkeypatch.setattr(exports, "default_models", lambda: folder)
    return folder


@pytest.fixture(scope="session")
def builtin() -> Encoder:
    """In float32, which gives the same numbers on every processor but for rounding."""
    return load_encoder("builtin", device="cpu", precision="float32")


@pytest.fixture(scope="session")
def pictures() -> list[Image.Image]:
    """Three pictures: a wide gradient, noise, a tall gradient."""
    noise = np.random.default_rng(5).integers(0, 256, (70, 70, 3), dtype=np.uint8)
    return [gradient(300, 120), Image.fromarray(noise), gradient(61, 250)]


def gradient(width: int, height: int) -> Image.Image:
    """Red grows to the right, green downwards, blue towards the corner."""
    x, y = np.meshgrid(np.linspace(0, 255, width), np.linspace(0, 255, height))
    return Image.fromarray(np.stack([x, y, (x + y) / 2], axis=-1).astype(np.uint8))


@pytest.fixture(scope="session")
def gradient_picture() -> Image.Image:
    return gradient(160, 120)


@pytest.fixture(scope="session")
def random_clip() -> Callable[..., torch.nn.Module]:
    """Makes a tiny CLIP in OpenAI's layout with random weights."""

    def make(*, resnet: bool = False, width: int = 64, context_length: int = 77) -> torch.nn.Module:
        torch.manual_seed(1)
        vision = {"layers": [1, 1, 1, 1], "width": width, "image_size": 64, "patch_size": None}
        if not resnet:
            vision = {"layers": 2, "width": width, "patch_size": 16, "image_size": 48}
        text = {"context_length": context_length, "width": 64, "heads": 1, "layers": 2}
        model = open_clip.CLIP(embed_dim=32, vision_cfg=vision, text_cfg=text, quick_gelu=True).eval()
        return model.half().float()  # representable in float16, in which OpenAI's files are

    return make


@pytest.fixture(scope="session")
def assert_equal_vectors() -> Callable[..., None]:
    """Compares an encoder with an open_clip model that reads the same pictures and texts its own way."""

    def check(
        encoder: Encoder,
        model: torch.nn.Module,
        tokenizer: object,
        pictures: list[Image.Image],
        texts: list[str],
    ) -> None:
        config = open_clip.transform.PreprocessCfg(**encoder.preprocessing.to_dict())
        transform = open_clip.transform.image_transform_v2(config, is_train=False)
        with torch.inference_mode():
            images = model.encode_image(torch.stack([transform(image) for image in pictures]), normalize=True)
            words = model.encode_text(tokenizer(texts), normalize=True)
        ours = encoder.encode_images(np.stack([encoder.preprocess(image) for image in pictures]))
        theirs = images.numpy()
        for mine, reference in ((ours, theirs), (encoder.encode_texts(texts), words.numpy())):
            assert (mine * reference).sum(axis=1).min() >= 0.9999
            # fp32 reduction order, and (x / 255 - mean) / std as one multiplication and one addition
            np.testing.assert_allclose(mine, reference, atol=2e-5)

    return check
