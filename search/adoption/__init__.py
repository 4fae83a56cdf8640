"""Vectors that other software made: what is compared before they are trusted, and how they come into a library.

A passport says by which model of ours the vectors are held to be made, how that model sees a picture, and what
encoding some of the photos anew gave. Photos that are on their side unless their file's orientation is applied are
compared both ways, since much software does not apply it; where that shows, such photos are encoded here.
"""

from __future__ import annotations

import functools
import os
import stat
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple, Protocol

from search.addresses import common, first, is_remote, tars
from search.errors import UsageError
from search.photos.scan import scan
from search.types import FileStat, Progress, Skip, Stage

if TYPE_CHECKING:
    from search.types import Vectors

CHECKED = 64
"""Photos encoded anew before the vectors of all are trusted."""
MISSING = "missing"
"""Why a photo that the source names is left out: its file is not there."""
MOST_TOLERATED = CHECKED // 4
_TOLD = 1024  # photos looked at between two words on how far it is
_HOMES = ("home", "Users", "media")  # what is in them is a user's, not one collection
_CLOCK_S = 1e-6  # a time kept as a float says no more


class Entry(NamedTuple):
    """A photo that the source has a vector of; row: what its vector is asked for by.

    size_bytes, mtime_s: of the file that was encoded.   made_s: when the vector was there, in seconds since 1970.
    None where that is not known. A tuple: there are very many of them.
    """

    path: str
    row: int
    size_bytes: int | None = None
    mtime_s: float | None = None
    made_s: float | None = None


class Source(Protocol):
    """What other software knows of photos. Reading it never writes to it."""

    @property
    def kind(self) -> str:
        """What made it, as one would call it."""

    @property
    def place(self) -> str:
        """Where it lies."""

    @property
    def model(self) -> str | None:
        """Which of our models made the vectors, None where it does not say."""

    @property
    def dim(self) -> int:
        """The width of its vectors."""

    @property
    def entries(self) -> Sequence[Entry]:
        """Its photos."""

    @property
    def left(self) -> Mapping[str, int]:
        """How many of its rows are of no use, by reason."""

    def vectors(self, rows: Sequence[int]) -> Vectors:
        """Return the vectors of rows as they are kept, (N, dim) float32, in order."""


@dataclass(frozen=True, slots=True)
class AdoptOptions:
    """When to trust a source's vectors, and what to do with them.

    moved: folders as the source names them, and where they are now.   agreement: the least cosine of a stored vector
    with a new one.   tolerate: photos compared that may fall below; None: one in sixteen, none of them far below, as
    photos with a colour profile do where other software does not apply it.   reencode: take the photos, not the
    vectors.   encode: encode here what is not taken over; else the next `index` does.
    """

    moved: tuple[tuple[str, str], ...] = ()
    agreement: float = 0.99
    tolerate: int | None = None
    reencode: bool = False
    encode: bool = True

    def __post_init__(self) -> None:
        if not 0.9 <= self.agreement <= 1:
            raise UsageError(
                f"vectors that agree to {self.agreement:g} are not the same", hint="0.9 to 1 is meant"
            )
        if not 0 <= (self.tolerate or 0) <= MOST_TOLERATED:
            raise UsageError(
                f"of {CHECKED} photos compared 0 to {MOST_TOLERATED} may deviate, not {self.tolerate}"
            )


# ---- the source's photos on this disk


@dataclass(frozen=True, slots=True)
class Listing:
    """A source's photos whose files are here, and the rows that hold for them as they are now, by path."""

    files: tuple[FileStat, ...]
    rows: Mapping[str, int]
    stale: int = 0
    skipped: tuple[Skip, ...] = ()


def look(source: Source, options: AdoptOptions, progress: Callable[[Progress], None]) -> Listing:
    """Find a source's photos on this disk.   Raises UsageError where it names none, or none of them is here."""
    if not source.entries:
        left = "".join(f"; of no use: {count} {reason}" for reason, count in source.left.items())
        raise UsageError(f"{source.place} names no photo that has a vector{left}")
    real = functools.lru_cache(maxsize=1024)(os.path.realpath)
    files: dict[str, FileStat] = {}
    rows: dict[str, int] = {}
    skipped: list[Skip] = []
    stale = 0
    for done, entry in enumerate(source.entries, start=1):
        path = os.path.abspath(_where(entry.path, options.moved))
        path = os.path.join(real(os.path.dirname(path)), os.path.basename(path))
        if found := _stat(path, skipped):
            files[path] = found
            if _is_of(entry, found):
                rows[path] = entry.row
            else:
                stale += 1
        if not done % _TOLD:
            progress(Progress(Stage.SCAN, done, len(source.entries)))
    if not files:
        first = source.entries[0].path
        raise UsageError(
            f"none of the {len(source.entries)} photos of {source.place} is on this machine, such as {first}",
            hint="if their folder is another now, say so: --moved OLD NEW"
            if os.path.splitext(first)[1]
            else "those are keys of tar files: say where these are unpacked with --pictures FOLDER",
        )
    return Listing(tuple(files.values()), rows, stale, tuple(skipped))


def _where(path: str, moved: Iterable[tuple[str, str]]) -> str:
    """Return where a path is now; the first folder that holds it counts.

    One that is not absolute, in what the source has or what the user says, is also met from the current folder.
    """
    for old, new in moved:
        for known, stem in ((path, old.rstrip("/")), (os.path.abspath(path), os.path.abspath(old).rstrip("/"))):
            if known == stem or known.startswith(stem + "/"):
                return os.path.join(new, known[len(stem) :].lstrip("/"))
    return path


def _stat(path: str, skipped: list[Skip]) -> FileStat | None:
    try:
        if stat.S_ISREG(os.lstat(path).st_mode):
            return next(scan(path), None)
        skipped.append(Skip(path, MISSING, "not a regular file"))
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        skipped.append(Skip(path, MISSING, reason or "it can't be looked at"))
    return None


def _is_of(entry: Entry, found: FileStat) -> bool:
    """Whether a vector can be of the file as it is now."""
    mtime_s = found.mtime_ns / 1e9
    if entry.size_bytes is not None and entry.size_bytes != found.size_bytes:
        return False
    if entry.mtime_s is not None and abs(entry.mtime_s - mtime_s) > _CLOCK_S:
        return False
    return entry.made_s is None or mtime_s <= entry.made_s


def folders(within: Iterable[str]) -> list[str]:
    """Return the folders to index for photos in these: what they have in common.

    Never a whole disk, a user's whole home or several drives as one, which may be away one by one; a tar file is one
    by itself, and so is what has an address.
    """
    groups: dict[tuple[int | None, str], list[str]] = {}
    for folder in within:
        if is_remote(folder) or _in_tar(folder):
            tar = next(iter(tars(folder)), None)
            groups.setdefault((None, tar or first(folder)), []).append(tar or folder)
            continue
        parts = folder.split(os.sep)
        deep = 4 if parts[1:2] and parts[1] in _HOMES else 3
        groups.setdefault((_device(folder), os.sep.join(parts[:deep])), []).append(folder)
    return sorted({common(group) for group in groups.values()})


def _in_tar(folder: str) -> bool:
    return any(map(os.path.isfile, tars(folder)))


def _device(folder: str) -> int | None:
    try:
        return os.stat(folder).st_dev
    except OSError:
        return None
