"""RAW files → the preview their camera put in, or half-size pixels where there is none. Only user of rawpy."""

from __future__ import annotations

import io
import os
from dataclasses import dataclass
from typing import BinaryIO

from PIL import Image, UnidentifiedImageError

from search.errors import PhotoError
from search.extras import how_to_add
from search.photos import metadata
from search.photos.suffixes import RAW_SUFFIXES
from search.types import SkipReason

_TURNED = (5, 6)  # LibRaw's flips by a quarter, to the left and to the right
_ORIENTATIONS = {0: 1, 3: 3, 5: 8, 6: 6}  # EXIF's numbers for LibRaw's flips


@dataclass(frozen=True, slots=True)
class Preview:
    """What stands for a RAW file.

    image: not decoded yet, or pixels.   exif: the file's own where it can be read, else the preview's.   size: of the
    full picture, upright.   orientation: of the full picture.   to_do: orientation that the image still has.
    """

    image: Image.Image
    exif: Image.Exif
    size: tuple[int, int]
    orientation: int
    to_do: int


def is_raw(path: str) -> bool:
    """Tell a RAW file by its name."""
    return os.path.splitext(path)[1].lower() in RAW_SUFFIXES


def preview(file: BinaryIO, *, max_pixels: int) -> Preview | None:
    """Return what stands for a RAW file, None if it is none.

    Raises PhotoError: unsupported_format without rawpy, too_large, decode_error.
    """
    try:
        import rawpy
    except ImportError:
        raise PhotoError(
            SkipReason.UNSUPPORTED_FORMAT, f"RAW needs the package rawpy: {how_to_add('raw')}"
        ) from None
    file.seek(0)
    try:
        raw = rawpy.imread(file)
    except rawpy.LibRawFileUnsupportedError:
        return None
    except rawpy.LibRawError as error:
        raise PhotoError(SkipReason.DECODE_ERROR, f"LibRaw: {_told(error)}") from error
    with raw:
        sizes = raw.sizes
        size = (sizes.height, sizes.width) if sizes.flip in _TURNED else (sizes.width, sizes.height)
        if size[0] * size[1] > max_pixels:
            detail = f"{size[0]} x {size[1]} pixels; the limit is {max_pixels / 1e6:g} megapixels"
            raise PhotoError(SkipReason.TOO_LARGE, detail)
        orientation = _ORIENTATIONS.get(sizes.flip, 1)
        image = _embedded(raw)
        if image is None:
            return Preview(_half(raw), _own_exif(file), size, orientation, 1)
        told = metadata.exif_of(image)
        turned = image.width < image.height and sizes.width > sizes.height  # by the camera already
        to_do = 1 if turned else metadata.orientation_of(told) if image.format == "JPEG" else orientation
        return Preview(image, _own_exif(file) or told, size, orientation, to_do)


def _embedded(raw: object) -> Image.Image | None:
    """Return the largest preview, None where there is none that can be used."""
    import rawpy

    try:
        thumb = raw.extract_thumb()  # type: ignore[attr-defined]
        if thumb.format == rawpy.ThumbFormat.BITMAP:
            return Image.fromarray(thumb.data)
        return Image.open(io.BytesIO(thumb.data), formats=("JPEG",))
    except (rawpy.LibRawError, UnidentifiedImageError):
        return None


def _half(raw: object) -> Image.Image:
    """Return a quarter of the sensor's pixels as a picture, upright."""
    return Image.fromarray(raw.postprocess(half_size=True, use_camera_wb=True))  # type: ignore[attr-defined]


def _own_exif(file: BinaryIO) -> Image.Exif:
    """Return the EXIF of a RAW file that is a TIFF; an empty one of any other."""
    exif = Image.Exif()
    file.seek(0)
    if file.read(4) in (b"II*\0", b"MM\0*"):
        file.seek(0)
        try:
            exif.load_from_fp(file)
            exif.get_ifd(0x8769), exif.get_ifd(0x8825)
        except Exception:  # a malformed tag makes Pillow's parser raise anything at all
            return Image.Exif()
    return exif


def _told(error: Exception) -> str:
    text = error.args[0] if error.args else ""
    return text.decode(errors="replace") if isinstance(text, bytes) else str(text)
