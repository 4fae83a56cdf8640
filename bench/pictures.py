"""JPEGs with the entropy of photographs: smooth gradients, textures of several grains, and a sensor's noise."""

from __future__ import annotations

import math
import shutil
from pathlib import Path

import numpy as np
from PIL import Image

from stopwatch import CACHE

QUALITY = 90
_PATCHES = 12
# Noise, in grey levels, that makes a file as large as cameras and the web make them: 0.2 megapixels about 100 KB,
# 12 megapixels about 3 MB.
_NOISE = {0.2: 18.0, 1.0: 8.0, 12.0: 4.8}


def photographs(count: int, *, megapixels: tuple[float, float]) -> Path:
    """Return a folder of JPEGs of these sizes, made once and always the same."""
    folder = CACHE / f"photos-{megapixels[0]:g}-{megapixels[1]:g}-{count}"
    if not folder.exists():
        draft = folder.with_suffix(".draft")
        shutil.rmtree(draft, ignore_errors=True)
        draft.mkdir(parents=True)
        for number in range(count):
            write(draft / f"{number:05}.jpg", seed=number, megapixels=megapixels)
        draft.rename(folder)
    return folder


def write(path: Path, *, seed: int, megapixels: tuple[float, float]) -> None:
    """Write one JPEG of a size between these, upright or lying."""
    random = np.random.default_rng(seed)
    size = random.uniform(*megapixels)
    long, short = round(math.sqrt(size * 1e6 * 4 / 3)), round(math.sqrt(size * 1e6 * 3 / 4))
    shape = (short, long) if random.random() < 0.75 else (long, short)
    photograph(random, shape, noise=_noise(size)).save(path, quality=QUALITY)


def photograph(random: np.random.Generator, shape: tuple[int, int], *, noise: float) -> Image.Image:
    """Draw a picture (H, W) of a gradient, patches of texture on it, and noise all over it."""
    picture = _field(random, shape, grain=max(shape) // 6, strength=1.0)  # (H, W, 3)
    for _ in range(_PATCHES):
        top, left = (int(random.integers(0, side * 3 // 4)) for side in shape)
        height, width = (int(random.integers(side // 8, side // 3)) for side in shape)
        patch = picture[top : top + height, left : left + width]
        grain = int(2 ** random.uniform(1, 6))
        patch += _field(random, patch.shape[:2], grain=grain, strength=random.uniform(0.1, 0.5)) - 64
    picture += noise * random.standard_normal(picture.shape, np.float32)
    return Image.fromarray(picture.clip(0, 255).astype(np.uint8))


def _field(
    random: np.random.Generator, shape: tuple[int, int], *, grain: int, strength: float
) -> np.ndarray[tuple[int, int, int], np.dtype[np.float32]]:
    """Return (H, W, 3) float32 of smooth colour that changes over about `grain` pixels."""
    height, width = shape
    coarse = random.integers(0, 256, (height // grain + 2, width // grain + 2, 3), np.uint8)
    smooth = Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)
    return np.asarray(smooth, np.float32) * np.float32(strength)


def _noise(megapixels: float) -> float:
    return float(np.interp(megapixels, list(_NOISE), list(_NOISE.values())))
