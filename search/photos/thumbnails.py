"""One photo -> a small JPEG to show in a page: upright, sRGB, without metadata."""

from __future__ import annotations

import io

from PIL import Image

from search.photos import decode

_QUALITY = 82  # of JPEG; about 12 kB for 256 pixels


def thumbnail(path: str, *, size_px: int = 256, max_megapixels: float = 200) -> bytes:
    """Return a photo scaled to fit a square of `size_px`, as JPEG; a smaller photo keeps its size.

    Nothing but pixels is in it: no place, no date, no profile. Raises PhotoError as `decode.load` does.
    """
    image = decode.load(path, max_megapixels=max_megapixels, min_side=2 * size_px).image
    image.thumbnail((size_px, size_px), Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=_QUALITY, optimize=True)
    return buffer.getvalue()
