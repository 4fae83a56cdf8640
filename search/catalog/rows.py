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
    from collections.abc import Iterator, Sequence

    from sqlalchemy import Row

    from search.types import Vectors

T = TypeVar("T")

HALF = np.dtype("<f2")
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


def chunks(items: Sequence[T], size: int = MAX_PARAMETERS) -> Iterator[Sequence[T]]:
    """Yield parts of at most `size`, in order."""
    for start in range(0, len(items), size):
        yield items[start : start + size]


def to_bytes(relative: str) -> bytes:
    """Return a relative path as the catalog keeps it: the file system's bytes, / between folders."""
    return os.fsencode(relative.replace(os.sep, "/"))


def to_path(root: bytes, relative: bytes) -> str:
    """Return the absolute path of a photo. Only files at the root's own level have no folder before them."""
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
    """Return what a file says of itself as columns of `photos`."""
    offset = info.taken_at.utcoffset() if info.taken_at else None
    return {
        "format": info.format,
        "width": info.width,
        "height": info.height,
        "orientation": info.orientation,
        "taken_at": info.taken_at.replace(tzinfo=None) if info.taken_at else None,
        "taken_offset_s": int(offset.total_seconds()) if offset is not None else None,
        "taken_at_source": info.taken_at_source,
        "camera": info.camera,
        "lens": info.lens,
        "latitude": info.latitude,
        "longitude": info.longitude,
    }


def to_photo(row: Row[Any], labels: tuple[str, ...] = ()) -> Photo:
    """Return the Photo of a row of `photos` joined with its root's path as `root`."""
    return Photo(
        id=row.id,
        root=os.fsdecode(row.root),
        path=to_path(row.root, row.path),
        size_bytes=row.size_bytes,
        mtime_ns=row.mtime_ns,
        content_hash=row.content_hash.hex(),
        info=PhotoInfo(
            format=row.format,
            width=row.width,
            height=row.height,
            orientation=row.orientation,
            taken_at=_taken_at(row.taken_at, row.taken_offset_s),
            taken_at_source=TakenAtSource(row.taken_at_source) if row.taken_at_source else None,
            camera=row.camera,
            lens=row.lens,
            latitude=row.latitude,
            longitude=row.longitude,
        ),
        labels=labels,
        gone_at=row.gone_at.replace(tzinfo=UTC) if row.gone_at else None,
    )


def _taken_at(wall_clock: datetime | None, offset_s: int | None) -> datetime | None:
    if wall_clock is None or offset_s is None:
        return wall_clock
    return wall_clock.replace(tzinfo=timezone(timedelta(seconds=offset_s)))
