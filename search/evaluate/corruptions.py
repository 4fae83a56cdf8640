"""Noise, blur, JPEG and loss of contrast at five strengths each, after ImageNet-C (arXiv:1903.12261).

The strengths are those published with the paper for pictures of 224 × 224 pixels: Gaussian noise and contrast as there,
JPEG by the same qualities, and its Gaussian blur, which is one of its additional corruptions, in place of the four
kinds of the main set. What differs: the noise is drawn from the picture's own content, so that it is the same in every
run and whatever stands beside it; results are rounded to whole grey levels rather than cut off; no JPEG of quality 85
is made of the others, as was for the files that can be downloaded.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable
from typing import TYPE_CHECKING, TypeAlias

import numpy as np

from search.photos import pixels as coding

if TYPE_CHECKING:
    import numpy.typing as npt

    from search.types import Pixels

    Levels: TypeAlias = npt.NDArray[np.float32]

STRENGTHS = (1, 2, 3, 4, 5)
SIDE = 224
"""Of the pictures that the strengths were chosen for, in pixels."""
VERSION = 1
"""Another when a corruption gives other pixels: what was kept of it is not found then."""

_NOISE = (0.08, 0.12, 0.18, 0.26, 0.38)  # deviation, of values in [0, 1]
_BLUR = (1, 2, 3, 4, 6)  # deviation in pixels
_QUALITY = (25, 18, 15, 10, 7)
_CONTRAST = (0.4, 0.3, 0.2, 0.1, 0.05)
_TAIL = 4  # deviations at which the blur's kernel ends


def noise(image: Pixels, strength: int) -> Pixels:
    """Add normal noise to (H, W, 3) uint8; strength: 1 to 5."""
    random = np.random.default_rng([zlib.crc32(image.tobytes()), strength])
    drawn = random.standard_normal(image.shape, np.float32)
    return _rounded(image + drawn * np.float32(255 * _NOISE[strength - 1]))


def blur(image: Pixels, strength: int) -> Pixels:
    """Blur (H, W, 3) uint8 by a Gaussian, in proportion to the picture; beyond the edge its own pixels go on."""
    sigma = _BLUR[strength - 1] * min(image.shape[:2]) / SIDE
    reach = max(1, int(_TAIL * sigma + 0.5))
    kernel = np.exp(-0.5 * (np.arange(-reach, reach + 1) / sigma) ** 2)
    kernel /= kernel.sum()
    found: Levels = image.astype(np.float32)
    for axis in (0, 1):
        found = _convolved(found, kernel.astype(np.float32), axis)
    return _rounded(found)


def jpeg(image: Pixels, strength: int) -> Pixels:
    """Return (H, W, 3) uint8 after a JPEG of low quality."""
    return coding.jpeg(image, quality=_QUALITY[strength - 1])


def contrast(image: Pixels, strength: int) -> Pixels:
    """Bring (H, W, 3) uint8 nearer to the mean of each channel."""
    mean = image.mean(axis=(0, 1), keepdims=True, dtype=np.float32)
    return _rounded((image - mean) * np.float32(_CONTRAST[strength - 1]) + mean)


CORRUPTIONS: dict[str, Callable[[Pixels, int], Pixels]] = {
    "noise": noise,
    "blur": blur,
    "jpeg": jpeg,
    "contrast": contrast,
}


def _convolved(values: Levels, kernel: Levels, axis: int) -> Levels:
    reach = len(kernel) // 2
    edges = [(reach, reach) if axis == place else (0, 0) for place in range(values.ndim)]
    padded = np.pad(values, edges, mode="edge")
    found = np.zeros_like(values)
    for start, weight in enumerate(kernel):
        part = padded[start : start + len(values)] if axis == 0 else padded[:, start : start + values.shape[1]]
        found += weight * part
    return found


def _rounded(values: Levels) -> Pixels:
    return np.clip(np.rint(values), 0, 255).astype(np.uint8)
