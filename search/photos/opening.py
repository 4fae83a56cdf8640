"""Pillow made safe to open any file with: which formats, how large, and not a word on stderr.

What is on disk may be damaged, hostile, half written or no picture at all. Only the header is read here.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import importlib
import logging
import os
import re
import struct
import threading
import warnings
from typing import BinaryIO

import PIL
from PIL import Image, ImageFile, _imaging

from search.errors import PhotoError
from search.types import SkipReason

SUPPORTED_FORMATS = (
    "JPEG",
    "MPO",
    "PNG",
    "WEBP",
    "GIF",
    "BMP",
    "DIB",
    "TIFF",
    "JPEG2000",
    "PPM",
    "AVIF",
    "HEIF",
    "ICO",
    "TGA",
)
"""Formats that are decoded, by Pillow's names. Anything else is refused unread: PDF, EPS, FITS, ..."""

_PLUGINS = ("Jpeg", "Mpo", "Png", "WebP", "Gif", "Bmp", "Tiff", "Jpeg2K", "Ppm", "Avif", "Ico", "Tga")

_BOXES = frozenset((b"ftyp", b"meta", b"mdat", b"moov", b"free", b"skip", b"uuid"))
HEAD_BYTES = 512
"""Of a file, in which every format says what it is."""


@functools.cache
def openers() -> tuple[str, ...]:
    """Register the decoders of SUPPORTED_FORMATS, and return the names by which Pillow opens them.

    `Image.open` raises KeyError on every file for a name it doesn't know, and "MPO" is one: such files come
    through the JPEG opener. Registering is idempotent, so threads may race here.
    """
    for plugin in _PLUGINS:
        importlib.import_module(f"PIL.{plugin}ImagePlugin")
    with contextlib.suppress(ImportError):  # an installation without it reads all the other formats
        import pi_heif

        pi_heif.register_heif_opener(thumbnails=False, depth_images=False, aux_images=False)
    _hush_decoders()
    return tuple(name for name in SUPPORTED_FORMATS if name in Image.OPEN)


def _hush_decoders() -> None:
    """Keep what libtiff and Pillow say of damaged files off stderr; a second call does no harm.

    libtiff prints its errors to file descriptor 2, sometimes hundreds for one file; Pillow turns off its warnings
    alone. The handler only prints: that decoding failed, Pillow knows from what libtiff returns. Looked up
    through Pillow's own extension module, the function is the one of the very copy that Pillow calls, bundled or
    the system's; where libtiff is linked in without its names, as on Windows, it goes on talking.

    Python prints log records that no handler takes. One that does nothing is enough to stop that, and Pillow's
    records still reach whoever collects logs.
    """
    logging.getLogger("PIL").addHandler(logging.NullHandler())
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(_imaging.__file__).TIFFSetErrorHandler(None)


# What `warnings.filterwarnings("ignore", module=r"PIL\.")` adds to the list of filters.
_SILENCE = ("ignore", None, Warning, re.compile(r"PIL\."), 0)
_settings_lock = threading.Lock()


def settle_pillow(max_pixels: int) -> None:
    """Put Pillow's process-wide settings into the state that decoding needs; idempotent.

    Warnings: Pillow warns where it forgives (a truncated EXIF tag, a malformed MPO), and a program that makes
    warnings errors would turn what is forgiven into failures. `catch_warnings` is no way out, since it swaps
    the process's filters under the feet of other threads. So one filter, for Pillow's modules alone, is kept
    at the front of the list; it is put back if somebody (a test runner) has replaced the list since.

    Pixel limit: Pillow refuses twice MAX_IMAGE_PIXELS, a second line behind our own check of the header, for
    what it allocates while it reads the header: a GIF's or WebP's canvas, a TIFF's tiles. It is only ever
    raised, so that a call with a higher limit and one with a lower can run side by side.
    """
    with _settings_lock:
        if tuple(warnings.filters[:1]) != (_SILENCE,):
            warnings.filterwarnings("ignore", module=r"PIL\.")
        Image.MAX_IMAGE_PIXELS = max(Image.MAX_IMAGE_PIXELS or 0, max_pixels)


def opened(file: BinaryIO, path: str, *, max_pixels: int) -> ImageFile.ImageFile:
    """Read the header and refuse what it shows to be of no use.   path: tells TGA, which has no signature.

    Raises PhotoError, and whatever Pillow's parsers do.
    """
    settle_pillow(max_pixels)
    image = _identify(file, is_tga=path.lower().endswith(".tga"))
    if image.format in ("HEIF", "AVIF"):
        _refuse_cut_off(file)
    refuse_large(image.size, max_pixels)
    return image


def _identify(file: BinaryIO, *, is_tga: bool) -> ImageFile.ImageFile:
    """Read the header. The content alone says which format it is; only TGA, without a signature, needs its name."""
    head = file.read(HEAD_BYTES)
    refuse_empty(head)
    try:
        return Image.open(file, formats=[name for name in openers() if is_tga or name != "TGA"])
    except PIL.UnidentifiedImageError:
        claimed = _claimed_format(head[:16])
        if claimed is None:
            raise PhotoError(SkipReason.UNSUPPORTED_FORMAT, _what_is_missing(head)) from None
        raise PhotoError(SkipReason.DECODE_ERROR, f"damaged or unusual {claimed} header") from None


_HEIC_BRANDS = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1")


def _what_is_missing(head: bytes) -> str:
    """Say which package would read a file that none of the decoders here knows."""
    if head[4:8] == b"ftyp" and head[8:12] in _HEIC_BRANDS and "HEIF" not in openers():
        return "HEIC needs the package pi-heif"
    if head[4:12] in (b"ftypavif", b"ftypavis") and "AVIF" not in openers():
        return "AVIF needs a Pillow that was built with libavif, such as PyPI's"
    return "no picture in a supported format"


def _claimed_format(prefix: bytes) -> str | None:
    """Return the format whose signature a file bears, though its header could not be read."""
    for name in openers():
        accepts = Image.OPEN[name][1]
        if accepts is not None and accepts(prefix) is True:
            return name
    return None


def _refuse_cut_off(file: BinaryIO) -> None:
    """Refuse a HEIF whose end is missing: libheif paints the hole in one colour and reports success.

    The boxes at the top of the container say how long they are (ISO/IEC 14496-12, 4.2). What follows the known
    ones may be a phone's own appendix, and is let pass.
    """
    end, at = file.seek(0, os.SEEK_END), 0
    while at + 8 <= end:
        file.seek(at)
        size, kind = struct.unpack(">I4s", file.read(8))
        if size == 1:
            size = int.from_bytes(file.read(8), "big")
        if size < 8 or kind not in _BOXES:  # 0: it reaches to the end, wherever that is
            return
        at += size
    if at > end:
        raise PhotoError(SkipReason.DECODE_ERROR, f"cut off: {end} of {at} bytes are there")


def refuse_empty(head: bytes) -> None:
    """Raise PhotoError for a file that begins with nothing."""
    # After a power loss files are found that have their length, and nothing but NULs in it.
    if len(head) < 2 or not any(head):
        raise PhotoError(SkipReason.EMPTY, "nothing but zeros" if len(head) > 1 else "no content")


def refuse_large(size: tuple[int, int], max_pixels: int) -> None:
    """Raise PhotoError for a picture of more pixels.   size: in pixels, in either order."""
    width, height = size
    if width * height > max_pixels:
        detail = f"{width} x {height} pixels; the limit is {max_pixels / 1e6:g} megapixels"
        raise PhotoError(SkipReason.TOO_LARGE, detail)
