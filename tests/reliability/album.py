"""Albums of tiny pictures, and what a library must make of them."""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image


def picture(seed: int) -> bytes:
    """Return a PNG of 16 × 16 pixels of noise, another for every seed."""
    noise = np.random.default_rng(seed).integers(0, 256, (4, 4, 3), np.uint8)
    file = io.BytesIO()
    Image.fromarray(noise).resize((16, 16), Image.Resampling.NEAREST).save(file, "PNG")
    return file.getvalue()


def put(path: Path, seed: int) -> None:
    """Write the picture of a seed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(picture(seed))


def make(folder: Path, seeds: Iterable[int]) -> None:
    """Write one picture a seed, in three sub-folders."""
    for seed in seeds:
        put(folder / f"day{seed % 3}" / f"{seed:05}.png", seed)


def contents(folder: Path) -> dict[str, str]:
    """Return path → content hash of every picture in a folder: what a library of it must hold."""
    return {str(path): content(path) for path in sorted(folder.rglob("*.png"))}


def content(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def write_model(folder: Path) -> None:
    """Write a CLIP of the smallest size with random weights, in open_clip's layout."""
    from search.encoders.torchvision_ops import ensure_torchvision

    ensure_torchvision()
    import open_clip
    import torch
    from safetensors.torch import save_file

    config = {
        "embed_dim": 32,
        "vision_cfg": {"image_size": 16, "layers": 1, "width": 64, "patch_size": 8},
        "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 64, "heads": 1, "layers": 1},
    }
    torch.manual_seed(1)
    save_file(open_clip.CLIP(**config).state_dict(), folder / "open_clip_model.safetensors")
    (folder / "open_clip_config.json").write_text(json.dumps({"model_cfg": config, "preprocess_cfg": {}}))


def holds(seen: Mapping[str, Any], expected: Mapping[str, str]) -> list[str]:
    """Return how a look at a library differs from what it must hold: nothing is the only good answer."""
    return [*faults(seen), *missing(seen, expected), *surplus(seen, expected)]


def faults(seen: Mapping[str, Any]) -> list[str]:
    """What is wrong with a library whatever it should hold."""
    paths = [path for path, *_ in seen["photos"]]
    wrong = [f"damaged: {problem}" for problem in seen["remaining"]]
    wrong += [f"twice: {path}" for path in sorted(set(paths)) if paths.count(path) > 1]
    for path, content_, embedded, first in seen["photos"]:
        if embedded and first != content_:
            wrong.append(f"does not find itself: {path}")
    return wrong


def missing(seen: Mapping[str, Any], expected: Mapping[str, str]) -> list[str]:
    """Photos that should be there and answer, and do not."""
    there = {path: content_ for path, content_, embedded, _ in seen["photos"] if embedded}
    return [f"lost: {path}" for path, content_ in expected.items() if there.get(path) != content_]


def surplus(seen: Mapping[str, Any], expected: Mapping[str, str]) -> list[str]:
    return [f"not there any more: {path}" for path, *_ in seen["photos"] if path not in expected]
