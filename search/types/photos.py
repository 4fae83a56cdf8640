"""A file as the walk meets it, and what is known of a photo."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import NamedTuple


class SkipReason(StrEnum):
    """Why a file is not in the library."""

    DECODE_ERROR = "decode_error"
    EMPTY = "empty"
    TOO_LARGE = "too_large"
    UNSUPPORTED_FORMAT = "unsupported_format"
    UNREADABLE = "unreadable"
    UNSTABLE = "unstable"
    BAD_VECTOR = "bad_vector"
    MEMORY = "memory"  # decoding it needs more memory than a decoder may take
    TIMEOUT = "timeout"  # decoding it takes more time than a decoder may take
    CRASHED = "crashed"  # its decoder died of it, twice
    QUARANTINED = "quarantined"  # the indexing process died while it was at work on this file alone, twice


class TakenAtSource(StrEnum):
    """Where a photo's date comes from."""

    EXIF = "exif"
    FILE = "file"


class FileStat(NamedTuple):
    """A file as the walk saw it, unopened; ctime_ns: when content or attributes changed last, None if unknown.

    A tuple: a walk makes very many of them.
    """

    path: str
    size_bytes: int
    mtime_ns: int
    ctime_ns: int | None = None


@dataclass(frozen=True, slots=True)
class Skip:
    """A file that was left out, and why."""

    path: str
    reason: str
    detail: str


@dataclass(frozen=True, slots=True)
class PhotoInfo:
    """What one image file says of itself.

    width, height: pixels, upright.   orientation: EXIF 1…8, 1 where absent.
    taken_at: wall-clock time where it was taken, with tzinfo only if the offset is known.
    latitude, longitude: degrees, WGS 84.   rating: 0 to 5 stars, -1 for rejected, None for not rated.
    keywords: sorted, the folders of a hierarchy before it ("animal/cat").
    """

    format: str
    width: int
    height: int
    orientation: int = 1
    taken_at: datetime | None = None
    taken_at_source: TakenAtSource | None = None
    camera: str | None = None
    lens: str | None = None
    latitude: float | None = None
    longitude: float | None = None
    rating: int | None = None
    keywords: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Photo:
    """What the catalog knows of one image; gone_at (UTC): since when its file is not found."""

    id: int
    root: str
    path: str
    size_bytes: int
    mtime_ns: int
    content_hash: str
    info: PhotoInfo
    labels: tuple[str, ...] = ()
    gone_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class Picture:
    """What a photo's pixels come to at a glance: for telling the same picture, and the better one.

    hash: bytes that are alike where pictures look alike; every one of a method has the same length.   quality: of the
    file's compression, None where it has none.   id: of the photo.
    """

    id: int
    hash: bytes
    sharpness: float
    quality: int | None = None


HASH_BYTES = 64
"""Of a picture's perceptual hash."""


@dataclass(frozen=True, slots=True)
class Likeness:
    """What a picture comes to at a glance, before it is known whose it is: see Picture.

    method: which way the rest was made (search.photos.likeness).
    """

    method: int
    hash: bytes
    sharpness: float
