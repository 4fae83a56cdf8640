"""Pixels that are in memory as pictures again: what a model's preprocessing takes, and what coding does to them."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

if TYPE_CHECKING:
    from search.types import Pixels


def image_of(pixels: Pixels) -> Image.Image:
    """Return (H, W, 3) uint8 as a picture."""
    return Image.fromarray(pixels)


def jpeg(pixels: Pixels, *, quality: int) -> Pixels:
    """Return (H, W, 3) uint8 as they come back from a JPEG of this quality."""
    buffer = io.BytesIO()
    image_of(pixels).save(buffer, "JPEG", quality=quality)
    with Image.open(buffer) as image:
        return np.asarray(image)
