"""One image file -> upright RGB pixels, what the file says of itself, and its content hash.

What is on disk may be damaged, hostile, half written or no picture at all: `load` gives a LoadedPhoto or raises
PhotoError with a reason, and nothing else.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import io
import os
import stat
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import BinaryIO

from PIL import ExifTags, Image, ImageFile, TiffImagePlugin

from search.errors import PhotoError
from search.photos import metadata, raw, sidecars
from search.photos.colour import to_rgb
from search.photos.opening import HEAD_BYTES, opened, openers, refuse_empty, refuse_large, settle_pillow
from search.types import FileStat, PhotoInfo, SkipReason

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
_Box = tuple[float, float, float, float]
_Decoded = tuple[Image.Image, _Box, tuple[int, int], PhotoInfo]  # the first fields of LoadedPhoto
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


@dataclass(frozen=True, slots=True)
class _Wanted:
    """How a photo is to be decoded, as `load` has it.   sidecar: what lies beside it."""

    max_pixels: int
    min_side: int | None
    on_header: Callable[[int, int], None] | None
    sidecar: bytes = b""

    def tell(self, image: Image.Image, stat: FileStat) -> None:
        """Tell of a header."""
        if self.on_header:
            self.on_header(image.width * image.height, stat.size_bytes)


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
    with _steady(path) as (file, stat, sidecar):
        photo = _loaded(file, stat, _Wanted(_pixels(max_megapixels), min_side, on_header, sidecar))
        digest = _digest(file)
    return LoadedPhoto(*photo, digest, stat)


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
    with _judged():
        photo = _loaded(io.BytesIO(content), stat, _Wanted(_pixels(max_megapixels), min_side, on_header))
    return LoadedPhoto(*photo, hashlib.sha256(content).digest(), stat)


def read_info(path: str, *, max_megapixels: float = 200) -> tuple[PhotoInfo, FileStat]:
    """Return what a photo says of itself, and the file it was read from, without decoding it where that can be had.

    Width and height are those of its header.   Raises PhotoError as `load` does.
    """
    with _steady(path) as (file, stat, sidecar):
        info = _info(file, stat, max_pixels=_pixels(max_megapixels), sidecar=sidecar)
    return info, stat


def read_info_bytes(content: bytes, stat: FileStat, *, max_megapixels: float = 200) -> tuple[PhotoInfo, FileStat]:
    """Return what a photo that lies in memory says of itself, as `read_info` does, and what it was read from."""
    with _judged():
        return _info(io.BytesIO(content), stat, max_pixels=_pixels(max_megapixels), sidecar=b""), stat


def _pixels(megapixels: float) -> int:
    return round(megapixels * 1_000_000)


def _loaded(file: BinaryIO, stat: FileStat, wanted: _Wanted) -> _Decoded:
    if preview := _preview(file, stat.path, max_pixels=wanted.max_pixels):
        wanted.tell(preview.image, stat)
        return _decode_preview(preview, _info_of_raw(preview, stat, sidecar=wanted.sidecar), wanted.min_side)
    image = opened(file, stat.path, max_pixels=wanted.max_pixels)
    wanted.tell(image, stat)
    return _decode(image, stat, wanted)


def _info(file: BinaryIO, stat: FileStat, *, max_pixels: int, sidecar: bytes) -> PhotoInfo:
    if preview := _preview(file, stat.path, max_pixels=max_pixels):
        return _info_of_raw(preview, stat, sidecar=sidecar)
    image = opened(file, stat.path, max_pixels=max_pixels)
    size, turned_by_decoder = image.size, _own_orientation(image)
    if image.format == "PNG":
        with contextlib.suppress(Exception):
            image.load()  # some of what it says may come after its pixels
    said = metadata.said_by(image, sidecar=sidecar)
    return _info_of_image(image, said, size, turned_by_decoder, mtime_ns=stat.mtime_ns)


def _preview(file: BinaryIO, path: str, *, max_pixels: int) -> raw.Preview | None:
    """Return what stands for a RAW file, None if it is none and may be another picture."""
    if not raw.is_raw(path):
        return None
    settle_pillow(max_pixels)
    openers()
    refuse_empty(file.read(HEAD_BYTES))
    found = raw.preview(file, max_pixels=max_pixels)
    file.seek(0)
    return found


def content_hash(path: str) -> bytes:
    """Return the SHA-256 of a regular file, 32 bytes. Raises PhotoError if it can't be read."""
    with _open_regular(path) as file:
        try:
            return _digest(file)
        except OSError as error:
            raise PhotoError(SkipReason.UNREADABLE, _reason(error)) from error


# ---- the file


@contextlib.contextmanager
def _steady(path: str) -> Iterator[tuple[BinaryIO, FileStat, bytes]]:
    """Yield a file, as the walk sees it, and its sidecar. Raises PhotoErrors alone; if it changed, for that.

    Half a file is no damaged file.
    """
    with _open_regular(path) as file:
        before = _stat(file.fileno())
        beside = sidecars.of(path)
        stat = _file_stat(path, before, beside)
        try:
            with _judged():
                yield file, stat, sidecars.read(beside)
        except PhotoError:
            _refuse_changed(file, before)
            raise
        _refuse_changed(file, before)


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


# ---- errors


@contextlib.contextmanager
def _judged() -> Iterator[None]:
    """Raise whatever goes wrong with a photo as a PhotoError."""
    try:
        yield
    except PhotoError:
        raise
    except Exception as error:
        raise _verdict(error) from error


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


# ---- pixels


def _decode(image: ImageFile.ImageFile, stat: FileStat, wanted: _Wanted) -> _Decoded:
    full_size = image.size
    drafted = wanted.min_side is not None and _draft(image, wanted.min_side)
    turned_by_decoder = _own_orientation(image)
    image.load()
    refuse_large(image.size, wanted.max_pixels)  # a HEIF may decode to another size than its header says
    size = full_size if drafted else image.size

    said = metadata.said_by(image, sidecar=wanted.sidecar)
    to_do = metadata.orientation_of(said.exif) if turned_by_decoder is None else 1
    info = _info_of_image(image, said, size, turned_by_decoder, mtime_ns=stat.mtime_ns)
    found = _first_content(image, wanted.min_side)
    return *_upright(found, size, to_do), (info.height, info.width), info


def _upright(found: Image.Image, size: tuple[int, int], to_do: int) -> tuple[Image.Image, _Box]:
    """Return a picture turned, with nothing but pixels, and where what it shows lies.   size: before it was scaled."""
    upright = _turn(found, to_do)
    upright.info.clear()
    return upright, _turned(_frame(size, found.size), found.size, to_do)


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


def _info_of_raw(preview: raw.Preview, stat: FileStat, *, sidecar: bytes) -> PhotoInfo:
    return metadata.photo_info(
        metadata.said_by_raw(preview.exif, preview.image, sidecar=sidecar),
        format=stat.path.rpartition(".")[2],
        size=preview.size,
        orientation=preview.orientation,
        mtime_ns=stat.mtime_ns,
    )


def _decode_preview(preview: raw.Preview, info: PhotoInfo, min_side: int | None) -> _Decoded:
    size = preview.image.size
    if min_side is not None and isinstance(preview.image, ImageFile.ImageFile):
        _draft(preview.image, min_side)
    preview.image.load()
    found = to_rgb(preview.image, min_side=min_side)
    return *_upright(found, size, preview.to_do), size if preview.to_do >= 5 else size[::-1], info


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
