"""Between rows and values: paths, photos, vectors."""

from __future__ import annotations

import os
import struct
import zlib
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from search.types import Photo, PhotoInfo, TakenAtSource

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    import numpy.typing as npt

    from search.types import Halves, Vectors

T = TypeVar("T")

PACKED = ("weights", "biases")
"""Numbers in base64 among the details of a probe's run: large, and of use to who decides by it alone."""

HALF = np.dtype("<f2")
_NORM_TOLERANCE = 1e-2  # float16 keeps a unit vector's length far better than that
OWN_KEYWORD = "file"
"""The source of labels that are a file's own keywords."""
MAX_PARAMETERS = 500
"""Values in one IN (…); every database takes that many."""


@dataclass(frozen=True, slots=True)
class KnownFile:
    """A photo's file as it was when it was indexed; ctime_ns: None where that is not known."""

    id: int
    root: str
    path: str
    size_bytes: int
    mtime_ns: int
    ctime_ns: int | None
    content_hash: bytes


@dataclass(frozen=True, slots=True)
class EncoderRow:
    """What the catalog remembers of a model: enough to answer without loading it."""

    id: int
    name: str
    fingerprint: str
    dim: int


@dataclass(frozen=True, slots=True)
class HeadRow:
    """A label's own decision under one model; weights: (D,) little-endian float32.   trained_at: UTC."""

    label: str
    weights: bytes
    bias: float
    threshold: float | None
    precision: float | None
    examples: int
    details: Mapping[str, Any]
    trained_at: datetime


@dataclass(frozen=True, slots=True)
class SidecarRow:
    """A sidecar that we wrote into; name: of the file beside the photo, as the file system's bytes.

    before: the whole file as it was without anything of ours, None where there was none.   after_hash: SHA-256 of it as
    we left it.   tags: JSON, what we put in.
    """

    photo_id: int
    name: bytes
    before: bytes | None
    after_hash: bytes
    tags: str


def chunks(items: Sequence[T], size: int = MAX_PARAMETERS) -> Iterator[Sequence[T]]:
    """Yield parts of at most `size`, in order."""
    for start in range(0, len(items), size):
        yield items[start : start + size]


def to_bytes(relative: str) -> bytes:
    """Return a relative path as the catalog keeps it: the file system's bytes, / between folders."""
    return os.fsencode(relative.replace(os.sep, "/"))


def to_path(root: bytes, relative: bytes) -> str:
    """Return the absolute path of a photo. Only files at the root's own level have no folder before them."""
    if os.sep == "/":
        return os.path.join(os.fsdecode(root), os.fsdecode(relative))  # half the time of reading a photo otherwise
    return str(Path(os.fsdecode(root), os.fsdecode(relative)))


def pack_vector(vector: Vectors, photo_id: int, encoder_id: int) -> tuple[bytes, int]:
    """Return one unit vector as float16 bytes and the checksum that ties it to its photo and encoder."""
    blob = vector.astype(HALF).tobytes()
    return blob, checksum(blob, photo_id, encoder_id)


def checksum(blob: bytes, photo_id: int, encoder_id: int) -> int:
    """Return the CRC-32 of a vector with the ids it belongs to."""
    return zlib.crc32(struct.pack("<qq", photo_id, encoder_id) + blob)


def unpack_vectors(blobs: Sequence[bytes], dim: int) -> Vectors:
    """Return (N, dim) float32; rows are unit only to float16's precision."""
    return np.frombuffer(b"".join(blobs), HALF).reshape(len(blobs), dim).astype(np.float32)


def info_columns(info: PhotoInfo) -> dict[str, Any]:
    """Return what is known of a file's picture and what it says of itself as columns of `photos`."""
    return {
        "format": info.format,
        "width": info.width,
        "height": info.height,
        "orientation": info.orientation,
        **said_columns(info),
    }


def said_columns(info: PhotoInfo) -> dict[str, Any]:
    """Return what a file says of itself as columns of `photos`."""
    offset = info.taken_at.utcoffset() if info.taken_at else None
    return {
        "taken_at": info.taken_at.replace(tzinfo=None) if info.taken_at else None,
        "taken_offset_s": int(offset.total_seconds()) if offset is not None else None,
        "taken_at_source": info.taken_at_source,
        "camera": info.camera,
        "lens": info.lens,
        "latitude": info.latitude,
        "longitude": info.longitude,
        "rating": info.rating,
    }


PHOTO_COLUMNS = (
    "photos.id, roots.path, photos.path, size_bytes, mtime_ns, content_hash, gone_at, taken_at, taken_offset_s, "
    "taken_at_source, format, width, height, orientation, camera, lens, latitude, longitude, rating"
)
"""What `to_photo` makes a photo of, for photos joined with their roots."""


def to_photo(row: Sequence[Any], labels: tuple[str, ...] = (), keywords: tuple[str, ...] = ()) -> Photo:
    """Return the Photo of a row of PHOTO_COLUMNS.   keywords: those of its labels that came from its file."""
    id_, root, path, size_bytes, mtime_ns, content_hash, gone_at, taken_at, offset_s, source, *info = row
    format_, width, height, orientation, camera, lens, latitude, longitude, rating = info
    return Photo(
        id=id_,
        root=os.fsdecode(root),
        path=to_path(root, path),
        size_bytes=size_bytes,
        mtime_ns=mtime_ns,
        content_hash=content_hash.hex(),
        info=PhotoInfo(
            format=format_,
            width=width,
            height=height,
            orientation=orientation,
            taken_at=in_zone(to_time(taken_at), offset_s),
            taken_at_source=TakenAtSource(source) if source else None,
            camera=camera,
            lens=lens,
            latitude=latitude,
            longitude=longitude,
            rating=rating,
            keywords=keywords,
        ),
        labels=labels,
        gone_at=to_utc(gone_at),
    )


def time_text(value: Any) -> Any:
    """Return a moment as SQLite keeps it, so that texts sort as moments do; any other value as it is."""
    return value.isoformat(" ", "microseconds") if isinstance(value, datetime) else value


def to_time(value: str | datetime | None) -> datetime | None:
    """Return a moment of a row, naive; SQLite keeps it as text, servers have a type for it."""
    return datetime.fromisoformat(value) if isinstance(value, str) else value


def to_utc(value: str | datetime | None) -> datetime | None:
    """Return a moment that is kept in UTC."""
    time = to_time(value)
    return time.replace(tzinfo=UTC) if time else None


def moment_in_name() -> str:
    """Return this moment, UTC, as the names of backups have it, so that each has one of its own."""
    return f"{datetime.now(UTC):%Y%m%dT%H%M%S.%f}"


def in_zone(wall_clock: datetime | None, offset_s: int | None) -> datetime | None:
    """Return a moment with its zone where that is known."""
    if wall_clock is None or offset_s is None:
        return wall_clock
    return wall_clock.replace(tzinfo=timezone(timedelta(seconds=offset_s)))


def lengths(vectors: Halves) -> tuple[Vectors, npt.NDArray[np.bool_]]:
    """Return the lengths (N,) of vectors (N, D), and whether each is the unit vector that every model gives."""
    floats = vectors.astype(np.float32)
    with np.errstate(over="ignore", invalid="ignore"):
        norms: Vectors = np.sqrt(np.einsum("nd,nd->n", floats, floats))
        return norms, np.abs(norms - 1) < _NORM_TOLERANCE  # False for NaN


def is_unit(blob: bytes, dim: int) -> bool:
    """Whether these bytes are a vector of a model with `dim` numbers."""
    if len(blob) != dim * HALF.itemsize:
        return False
    return bool(lengths(np.frombuffer(blob, HALF).reshape(1, dim))[1][0])
