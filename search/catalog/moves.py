"""Which known photo a file is, told by content: pure bookkeeping over places and rows.

A place is where the walk found a file whose content was hashed; a row is a photo the catalog knows with one
of those contents. A row is free when its own place no longer holds its content.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import PurePosixPath


@dataclass(frozen=True, slots=True)
class Place:
    """A file as scanned and hashed; photo_id: the row that claims this place so far."""

    root_id: int
    path: bytes
    size_bytes: int
    mtime_ns: int
    content_hash: bytes
    photo_id: int | None


@dataclass(frozen=True, slots=True)
class Known:
    """A row of the catalog with a content that some place holds."""

    id: int
    path: bytes
    content_hash: bytes
    free: bool


@dataclass(slots=True)
class Resolution:
    """What to do: touched rows get a new stat, moved rows a new place, copies take over a row's vectors.

    parked: rows whose place a moved row takes and whose content is nowhere now.
    """

    touched: list[tuple[int, Place]] = field(default_factory=list)
    moved: list[tuple[int, Place]] = field(default_factory=list)
    copied: list[tuple[int, Place]] = field(default_factory=list)
    parked: list[int] = field(default_factory=list)


def resolve(places: Iterable[Place], known: Iterable[Known]) -> Resolution:
    """Give every place the row that has its content, each row at most once.

    A row keeps its own place if it can; among free rows one of the same file name goes first.
    """
    by_content: dict[bytes, list[Known]] = defaultdict(list)
    contents: dict[int, bytes] = {}
    for row in known:
        by_content[row.content_hash].append(row)
        contents[row.id] = row.content_hash
    resolution = Resolution()
    strangers = []
    for place in places:
        if place.photo_id is not None and contents.get(place.photo_id) == place.content_hash:
            resolution.touched.append((place.photo_id, place))
        else:
            strangers.append(place)
    free = {content: [row for row in rows if row.free] for content, rows in by_content.items()}
    for place in strangers:
        candidates = free.get(place.content_hash, [])
        if candidates:
            row = min(candidates, key=lambda row: (_name(row.path) != _name(place.path), row.id))
            candidates.remove(row)
            resolution.moved.append((row.id, place))
        elif place.content_hash in by_content:
            resolution.copied.append((by_content[place.content_hash][0].id, place))
    moved = {row_id for row_id, _ in resolution.moved}
    taken = {place.photo_id for _, place in resolution.moved if place.photo_id is not None}
    resolution.parked = sorted(taken - moved)
    return resolution


def _name(path: bytes) -> str:
    return PurePosixPath(path.decode("utf-8", "surrogateescape")).name
