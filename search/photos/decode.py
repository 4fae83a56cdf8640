"""One image file -> upright RGB pixels, what the file says of itself, and its content hash.

The only module that lets Pillow open a file. What is on disk may be damaged, hostile, half written or no
picture at all: `load` gives a LoadedPhoto or raises PhotoError with a reason, and nothing else.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import functools
import hashlib
import importlib
import io
import logging
import os
import re
import stat
import struct
import threading
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import BinaryIO, cast

import PIL
from PIL import ExifTags, Image, ImageFile, TiffImagePlugin, _imaging

from search.errors import PhotoError
from search.photos import metadata, raw, sidecars
from search.photos.colour import to_rgb
from search.types import FileStat, PhotoInfo, SkipReason

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

# O_NONBLOCK: opening a FIFO must not wait for a writer. O_NOCTTY: nor a terminal become ours.
_OPEN_FLAGS = os.O_RDONLY | sum(
    getattr(os, flag, 0) for flag in ("O_NONBLOCK", "O_CLOEXEC", "O_NOCTTY", "O_BINARY")
)

# The file can't be read now, whatever is in it; other error numbers come from damaged content (a seek to -1).
_READ_ERRNOS = frozenset(
    (
        errno.EIO,
        errno.ENXIO,
        errno.ENODEV,
        errno.EACCES,
        errno.EPERM,
        errno.ETIMEDOUT,
        errno.ENOTCONN,
        errno.ESTALE,
    )
)
_BOXES = frozenset((b"ftyp", b"meta", b"mdat", b"moov", b"free", b"skip", b"uuid"))
_HEAD_BYTES = 512
_Box = tuple[float, float, float, float]
_ANIMATED = ("GIF", "PNG", "WEBP", "AVIF", "TIFF")
_FRAMES = 10  # that are looked at for one that shows something
_MAX_DETAIL = 200

_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


@dataclass(frozen=True, slots=True)
class LoadedPhoto:
    """A decoded photo.

    image: mode RGB, sRGB, upright, without metadata; smaller than `info` says if that was asked for.
    frame: where the picture lies in the image, (left, top, right, bottom): a last row or column scaled down from less
    than a whole number of pixels reaches beyond it.   whole: (height, width) of what was decoded, before scaling: what
    `info` says, but for the preview of a RAW file.
    content_hash: 32 bytes, SHA-256 of the whole file.   stat: of the very bytes that were decoded.
    """

    image: Image.Image
    frame: tuple[float, float, float, float]
    whole: tuple[int, int]
    info: PhotoInfo
    content_hash: bytes
    stat: FileStat


def load(
    path: str,
    *,
    max_megapixels: float = 200,
    min_side: int | None = None,
    on_header: Callable[[int, int], None] | None = None,
) -> LoadedPhoto:
    """Decode one photo.

    max_megapixels: larger pictures are refused by their header, before any pixel is decoded.
    min_side: pixels; lets the picture be scaled down by a whole number while both sides of the result stay at
    least this: a JPEG while it is decoded, which takes a fraction of the time.
    on_header: told the picture's pixels and the file's bytes before anything is decoded.
    Raises PhotoError: unreadable, unstable (it changed meanwhile), empty, unsupported_format, too_large,
    decode_error, memory. Safe to call from several threads.
    """
    max_pixels = round(max_megapixels * 1_000_000)
    with _open_regular(path) as file:
        before = _stat(file.fileno())
        beside = sidecars.of(path)
        found = _file_stat(path, before, beside)
        try:
            photo = _loaded(
                file, found, max_pixels, min_side=min_side, on_header=on_header, sidecar=sidecars.read(beside)
            )
            digest = _digest(file)
        except Exception as error:
            _refuse_changed(file, before)  # half a file is no damaged file
            if isinstance(error, PhotoError):
                raise
            raise _verdict(error) from error
        _refuse_changed(file, before)
    return LoadedPhoto(*photo, digest, found)


def load_bytes(
    content: bytes,
    stat: FileStat,
    *,
    max_megapixels: float = 200,
    min_side: int | None = None,
    on_header: Callable[[int, int], None] | None = None,
) -> LoadedPhoto:
    """Decode a photo that lies in memory, such as a member of a tar file.

    stat: of what it was read from; it has no sidecar.   The rest is as in `load`, which raises the same PhotoErrors.
    """
    max_pixels = round(max_megapixels * 1_000_000)
    try:
        photo = _loaded(io.BytesIO(content), stat, max_pixels, min_side=min_side, on_header=on_header, sidecar=b"")
    except PhotoError:
        raise
    except Exception as error:
        raise _verdict(error) from error
    return LoadedPhoto(*photo, hashlib.sha256(content).digest(), stat)


def _loaded(
    file: BinaryIO,
    stat: FileStat,
    max_pixels: int,
    *,
    min_side: int | None,
    on_header: Callable[[int, int], None] | None,
    sidecar: bytes,
) -> tuple[Image.Image, _Box, tuple[int, int], PhotoInfo]:
    path = stat.path
    found = _raw(file, max_pixels) if raw.is_raw(path) else None
    image = found.image if found else _open(file, max_pixels, is_tga=path.lower().endswith(".tga"))
    if on_header:
        on_header(image.width * image.height, stat.size_bytes)
    if found:
        info = _info_of_raw(found, path, mtime_ns=stat.mtime_ns, sidecar=sidecar)
        return _decode_preview(found, info, min_side=min_side)
    return _decode(
        cast(ImageFile.ImageFile, image),
        max_pixels=max_pixels,
        min_side=min_side,
        mtime_ns=stat.mtime_ns,
        sidecar=sidecar,
    )


def read_info(path: str, *, max_megapixels: float = 200) -> tuple[PhotoInfo, FileStat]:
    """Return what a photo says of itself, and the file it was read from, without decoding it where that can be had.

    Width and height are those of its header.   Raises PhotoError as `load` does.
    """
    max_pixels = round(max_megapixels * 1_000_000)
    with _open_regular(path) as file:
        before = _stat(file.fileno())
        beside = sidecars.of(path)
        try:
            info = _info(file, path, max_pixels, mtime_ns=before.st_mtime_ns, sidecar=sidecars.read(beside))
        except Exception as error:
            _refuse_changed(file, before)
            if isinstance(error, PhotoError):
                raise
            raise _verdict(error) from error
        _refuse_changed(file, before)
    return info, _file_stat(path, before, beside)


def read_info_bytes(content: bytes, stat: FileStat, *, max_megapixels: float = 200) -> tuple[PhotoInfo, FileStat]:
    """Return what a photo that lies in memory says of itself, as `read_info` does, and what it was read from."""
    max_pixels = round(max_megapixels * 1_000_000)
    try:
        return _info(io.BytesIO(content), stat.path, max_pixels, mtime_ns=stat.mtime_ns, sidecar=b""), stat
    except PhotoError:
        raise
    except Exception as error:
        raise _verdict(error) from error


def _info(file: BinaryIO, path: str, max_pixels: int, *, mtime_ns: int, sidecar: bytes) -> PhotoInfo:
    if found := _raw(file, max_pixels) if raw.is_raw(path) else None:
        return _info_of_raw(found, path, mtime_ns=mtime_ns, sidecar=sidecar)
    image = _open(file, max_pixels, is_tga=path.lower().endswith(".tga"))
    size, turned_by_decoder = image.size, _own_orientation(image)
    if image.format == "PNG":
        with contextlib.suppress(Exception):
            image.load()  # some of what it says may come after its pixels
    said = metadata.said_by(image, sidecar=sidecar)
    return _info_of_image(image, said, size, turned_by_decoder, mtime_ns=mtime_ns)


def content_hash(path: str) -> bytes:
    """Return the SHA-256 of a regular file, 32 bytes. Raises PhotoError if it can't be read."""
    with _open_regular(path) as file:
        try:
            return _digest(file)
        except OSError as error:
            raise PhotoError(SkipReason.UNREADABLE, _reason(error)) from error


# ---- the file


def _open_regular(path: str) -> BinaryIO:
    try:
        fd = os.open(path, _OPEN_FLAGS)
    except (OSError, ValueError) as error:  # ValueError: a NUL in the path
        raise PhotoError(SkipReason.UNREADABLE, _reason(error)) from error
    try:
        if not stat.S_ISREG(_stat(fd).st_mode):
            raise PhotoError(SkipReason.UNREADABLE, "not a regular file")
    except PhotoError:
        os.close(fd)
        raise
    return os.fdopen(fd, "rb")


def _stat(fd: int) -> os.stat_result:
    try:
        return os.fstat(fd)
    except OSError as error:  # a network drive that went away
        raise PhotoError(SkipReason.UNREADABLE, _reason(error)) from error


def _file_stat(path: str, found: os.stat_result, sidecar: str | None) -> FileStat:
    """Return a file as the walk sees it."""
    changed = sidecars.stamped(found.st_ctime_ns, sidecar)
    return FileStat(path, found.st_size, found.st_mtime_ns, changed)


def _digest(file: BinaryIO) -> bytes:
    file.seek(0)
    return hashlib.file_digest(file, "sha256").digest()  # type: ignore[arg-type]


def _refuse_changed(file: BinaryIO, before: os.stat_result) -> None:
    after = _stat(file.fileno())
    if (after.st_size, after.st_mtime_ns) != (before.st_size, before.st_mtime_ns):  # ctime: a mere rename is none
        raise PhotoError(SkipReason.UNSTABLE, "the file changed while it was read")


def _refuse_empty(head: bytes) -> None:
    # After a power loss files are found that have their length, and nothing but NULs in it.
    if len(head) < 2 or not any(head):
        raise PhotoError(SkipReason.EMPTY, "nothing but zeros" if len(head) > 1 else "no content")


def _refuse_large(size: tuple[int, int], max_pixels: int) -> None:
    width, height = size
    if width * height > max_pixels:
        detail = f"{width} x {height} pixels; the limit is {max_pixels / 1e6:g} megapixels"
        raise PhotoError(SkipReason.TOO_LARGE, detail)


# ---- errors


def _verdict(error: Exception) -> PhotoError:
    """Return the PhotoError that an exception met while decoding amounts to."""
    if isinstance(error, Image.DecompressionBombError):
        return PhotoError(SkipReason.TOO_LARGE, _one_line(str(error)))
    if isinstance(error, OSError) and error.errno in _READ_ERRNOS:
        return PhotoError(SkipReason.UNREADABLE, _reason(error))
    if isinstance(error, MemoryError):
        return PhotoError(SkipReason.MEMORY, "takes more memory than there is")
    return PhotoError(SkipReason.DECODE_ERROR, _one_line(f"{type(error).__name__}: {error}"))


def _reason(error: Exception) -> str:
    """Return what an error says, without the path that an OSError repeats."""
    return _one_line((isinstance(error, OSError) and error.strerror) or str(error))


def _one_line(text: str) -> str:
    return " ".join(text.split()).removesuffix(":")[:_MAX_DETAIL]


# ---- Pillow


@functools.cache
def _openers() -> tuple[str, ...]:
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


def _settle_pillow(max_pixels: int) -> None:
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


def _open(file: BinaryIO, max_pixels: int, *, is_tga: bool) -> ImageFile.ImageFile:
    """Read the header and refuse what it shows to be of no use."""
    _settle_pillow(max_pixels)
    image = _identify(file, is_tga=is_tga)
    if image.format in ("HEIF", "AVIF"):
        _refuse_cut_off(file)
    _refuse_large(image.size, max_pixels)
    return image


def _decode(
    image: ImageFile.ImageFile, *, max_pixels: int, min_side: int | None, mtime_ns: int, sidecar: bytes
) -> tuple[Image.Image, _Box, tuple[int, int], PhotoInfo]:
    full_size = image.size
    drafted = min_side is not None and _draft(image, min_side)
    turned_by_decoder = _own_orientation(image)
    image.load()
    _refuse_large(image.size, max_pixels)  # a HEIF may decode to another size than its header says
    size = full_size if drafted else image.size

    said = metadata.said_by(image, sidecar=sidecar)
    to_do = metadata.orientation_of(said.exif) if turned_by_decoder is None else 1
    info = _info_of_image(image, said, size, turned_by_decoder, mtime_ns=mtime_ns)
    found = _first_content(image, min_side)
    upright = _turn(found, to_do)
    upright.info.clear()
    return upright, _turned(_frame(size, found.size), found.size, to_do), (info.height, info.width), info


def _info_of_image(
    image: ImageFile.ImageFile,
    said: metadata.Said,
    size: tuple[int, int],
    turned_by_decoder: int | None,
    *,
    mtime_ns: int,
) -> PhotoInfo:
    """Return a picture's PhotoInfo.   size: before it is turned upright, but for what its decoder turned."""
    to_do = metadata.orientation_of(said.exif) if turned_by_decoder is None else 1
    return metadata.photo_info(
        said,
        format=image.format or "",
        size=(size[1], size[0]) if to_do >= 5 else size,
        orientation=turned_by_decoder or to_do,
        mtime_ns=mtime_ns,
    )


def _info_of_raw(preview: raw.Preview, path: str, *, mtime_ns: int, sidecar: bytes) -> PhotoInfo:
    return metadata.photo_info(
        metadata.said_by_raw(preview.exif, preview.image, sidecar=sidecar),
        format=path.rpartition(".")[2],
        size=preview.size,
        orientation=preview.orientation,
        mtime_ns=mtime_ns,
    )


def _raw(file: BinaryIO, max_pixels: int) -> raw.Preview | None:
    """Return what stands for a RAW file, None if it is none and may be another picture."""
    _settle_pillow(max_pixels)
    _openers()
    _refuse_empty(file.read(_HEAD_BYTES))
    found = raw.preview(file, max_pixels=max_pixels)
    file.seek(0)
    return found


def _decode_preview(
    preview: raw.Preview, info: PhotoInfo, *, min_side: int | None
) -> tuple[Image.Image, _Box, tuple[int, int], PhotoInfo]:
    size = preview.image.size
    if min_side is not None and isinstance(preview.image, ImageFile.ImageFile):
        _draft(preview.image, min_side)
    preview.image.load()
    found = to_rgb(preview.image, min_side=min_side)
    upright = _turn(found, preview.to_do)
    upright.info.clear()
    whole = size if preview.to_do >= 5 else size[::-1]
    return upright, _turned(_frame(size, found.size), found.size, preview.to_do), whole, info


def _identify(file: BinaryIO, *, is_tga: bool) -> ImageFile.ImageFile:
    """Read the header. The content alone says which format it is; only TGA, without a signature, needs its name."""
    head = file.read(_HEAD_BYTES)
    _refuse_empty(head)
    try:
        return Image.open(file, formats=[name for name in _openers() if is_tga or name != "TGA"])
    except PIL.UnidentifiedImageError:
        claimed = _claimed_format(head[:16])
        if claimed is None:
            raise PhotoError(SkipReason.UNSUPPORTED_FORMAT, _what_is_missing(head)) from None
        raise PhotoError(SkipReason.DECODE_ERROR, f"damaged or unusual {claimed} header") from None


_HEIC_BRANDS = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1")


def _what_is_missing(head: bytes) -> str:
    """Say which package would read a file that none of the decoders here knows."""
    if head[4:8] == b"ftyp" and head[8:12] in _HEIC_BRANDS and "HEIF" not in _openers():
        return "HEIC needs the package pi-heif"
    if head[4:12] in (b"ftypavif", b"ftypavis") and "AVIF" not in _openers():
        return "AVIF needs a Pillow that was built with libavif, such as PyPI's"
    return "no picture in a supported format"


def _claimed_format(prefix: bytes) -> str | None:
    """Return the format whose signature a file bears, though its header could not be read."""
    for name in _openers():
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


def _draft(image: ImageFile.ImageFile, min_side: int) -> bool:
    """Let libjpeg scale while it decodes, where the format can; say whether it was asked to.

    CMYK is decoded whole: rare, and its variants (YCCK, inverted) are trouble enough without a draft.
    """
    if image.format not in ("JPEG", "MPO") or image.mode not in ("RGB", "L"):
        return False
    return image.draft("RGB", (min_side, min_side)) is not None


def _own_orientation(image: ImageFile.ImageFile) -> int | None:
    """Return the orientation that the decoder itself undoes, None where it leaves that to us.

    Pillow turns TIFFs while loading. libheif follows the container's own transformations, and ISO/IEC
    23008-12 makes those, not EXIF, the truth. Both drop the tag, so it is read here, before loading.
    """
    if image.format == "HEIF":
        return metadata.valid_orientation(image.info.get("original_orientation"))
    if isinstance(image, TiffImagePlugin.TiffImageFile):
        return metadata.valid_orientation(image.tag_v2.get(ExifTags.Base.Orientation))
    return None


def _first_content(image: ImageFile.ImageFile, min_side: int | None) -> Image.Image:
    """Return the picture, scaled down as far as `min_side` permits.

    Of an animation or several pages it is the first that shows anything, among the first few: many animations fade in
    from one colour. Only frames of the first one's size are looked at: other pages may be previews or masks. A later
    frame that is damaged costs nothing.
    """
    size, first = image.size, to_rgb(image, min_side=min_side)
    if image.format not in _ANIMATED or not getattr(image, "is_animated", False) or not _is_blank(first):
        return first
    first = first.copy()  # it may be the image itself, which is about to become another frame
    with contextlib.suppress(Exception):
        for number in range(1, _FRAMES):
            image.seek(number)
            if image.size == size and not _is_blank(frame := to_rgb(image, min_side=min_side)):
                return frame
    return first


def _is_blank(image: Image.Image) -> bool:
    return all(low == high for low, high in image.getextrema())  # type: ignore[misc]


def _turn(image: Image.Image, orientation: int) -> Image.Image:
    turn = _TURNS.get(orientation)
    return image if turn is None else image.transpose(turn)


def _frame(size: tuple[int, int], scaled: tuple[int, int]) -> _Box:
    """Return where a picture of this size lies once it was scaled down by a whole number."""
    factor = max(-(-size[0] // scaled[0]), -(-size[1] // scaled[1]))
    return 0, 0, size[0] / factor, size[1] / factor


def _turned(frame: _Box, size: tuple[int, int], orientation: int) -> _Box:
    """Return where a frame in an image of this size lies once the image is turned as `_turn` does."""
    (left, top, right, bottom), (width, height) = frame, size
    if orientation in (2, 3, 7, 8):
        left, right = width - right, width - left
    if orientation in (3, 4, 6, 7):
        top, bottom = height - bottom, height - top
    return (top, left, bottom, right) if orientation >= 5 else (left, top, right, bottom)
