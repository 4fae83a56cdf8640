"""One photo -> a small picture to show in a page or a terminal: upright, sRGB, without metadata."""

from __future__ import annotations

import io
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from PIL import Image

from search.photos import decode

if TYPE_CHECKING:
    from search.types import Pixels

_SAVING = {"JPEG": {"quality": 82, "optimize": True}, "WEBP": {"quality": 72}, "PNG": {}}


@dataclass(frozen=True, slots=True)
class Raster:
    """A small picture's pixels, row by row: three bytes each, or one that counts into `palette` where there is one.

    palette: three bytes a colour, empty without one.
    """

    width: int
    height: int
    pixels: bytes
    palette: bytes = b""


Form = Literal["JPEG", "WEBP", "PNG"]


def thumbnail(path: str, *, size_px: int = 256, form: Form = "JPEG", max_megapixels: float = 200) -> bytes:
    """Return a photo scaled to fit a square of `size_px`, as an image file; a smaller photo keeps its size.

    Nothing but pixels is in it: no place, no date, no profile. Raises PhotoError as `decode.load` does.
    """
    return fitted(path, (size_px, size_px), form=form, max_megapixels=max_megapixels)


def fitted(path: str, box: tuple[int, int], *, form: Form, max_megapixels: float = 200) -> bytes:
    """Do what `thumbnail` does with a box of (width, height)."""
    buffer = io.BytesIO()
    _scaled(path, box, max_megapixels).save(buffer, form, **_SAVING[form])
    return buffer.getvalue()


def webp(pixels: Pixels) -> bytes:
    """Return pixels, (H, W, 3), as a WebP file."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "WEBP", **_SAVING["WEBP"])
    return buffer.getvalue()


def raster(path: str, *, box: tuple[int, int], colours: int = 0, max_megapixels: float = 200) -> Raster:
    """Return a photo's pixels, scaled to fit a box of (width, height); a smaller photo keeps its size.

    colours: how many the palette may have, 256 at most; 0: none, every pixel has its own.   Raises PhotoError.
    """
    image = _scaled(path, box, max_megapixels)
    if not colours:
        return Raster(*image.size, image.tobytes())
    image = image.quantize(colours, Image.Quantize.MEDIANCUT)
    return Raster(*image.size, image.tobytes(), bytes(image.getpalette() or []))


def _scaled(path: str, box: tuple[int, int], max_megapixels: float) -> Image.Image:
    image = decode.load(path, max_megapixels=max_megapixels, min_side=2 * max(box)).image
    image.thumbnail(box, Image.Resampling.LANCZOS)
    return image
