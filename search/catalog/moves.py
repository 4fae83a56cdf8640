"""Which known photo a file is, told by content: pure bookkeeping over places and rows.

A place is where the walk found a file whose content was hashed; a row is a photo the catalog knows with one
of those contents. A row is free when its own place no longer holds its content.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable
from dataclasses import dataclass, field, replace
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
    ctime_ns: int | None = None


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
    # A copy that stands where a moved row stood is a photo of its own, not what that row becomes.
    resolution.copied = [
        (source, replace(place, photo_id=None) if place.photo_id in moved else place)
        for source, place in resolution.copied
    ]
    taken = {place.photo_id for _, place in resolution.moved if place.photo_id is not None}
    resolution.parked = sorted(taken - moved)
    return resolution


class Waiting:
    """Files whose match hangs on others that are not hashed yet.

    A run hashes piece by piece. What a file is can be told at once, and as it would be told in the end, unless
    a row with its content may yet turn out free, or a file before it waits for the same content; and a file whose
    own row has another content waits itself, because that row is free for whoever comes (names may be swapped).
    """

    def __init__(self) -> None:
        self.places: list[Place] = []
        self.held: dict[int, bytes] = {}  # what the places of rows hold now
        self._contents: set[bytes] = set()

    def split(self, places: Iterable[Place], known: Iterable[Known], undecided: Collection[int]) -> list[Place]:
        """Return the places that can be resolved now, and keep the others.

        undecided: rows that may yet turn out free.
        """
        own, open_ = {}, set(self._contents)
        for row in known:
            own[row.id] = row.content_hash
            if row.id in undecided:
                open_.add(row.content_hash)
        certain = []
        for place in places:
            keeps = place.photo_id is not None and own.get(place.photo_id) == place.content_hash
            if keeps or (place.photo_id is None and place.content_hash not in open_):
                certain.append(place)
            else:
                self.places.append(place)
                self._contents.add(place.content_hash)
                if place.photo_id is not None:
                    self.held[place.photo_id] = place.content_hash
                open_.add(place.content_hash)
        return certain

    def part(self, moved: Collection[int]) -> None:
        """Note that rows have left for other places: files that stand where they were have no row any more."""
        for id_ in moved:
            self.held.pop(id_, None)
        self.places = [replace(p, photo_id=None) if p.photo_id in moved else p for p in self.places]


def _name(path: bytes) -> str:
    return PurePosixPath(path.decode("utf-8", "surrogateescape")).name
