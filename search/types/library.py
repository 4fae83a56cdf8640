"""A library at a glance: where it stands, and what is wrong with it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum


@dataclass(frozen=True, slots=True)
class Publication:
    """Where a catalog stands, and the generation it published last; number is None if there is none.

    seq, purge_seq: its last commit, and the last that deleted photos for good.   generation_seq: the commit that
    the generation reflects.   manifest_hash: SHA-256 of its manifest.
    index_url: of the index on a server; "exact" for none at all, None where nobody said.   index_mark tells that it is
    ours, index_seq the commit that was brought there last, -1 if it is to be filled.
    """

    uuid: str
    seq: int
    purge_seq: int
    number: int | None
    generation_seq: int
    manifest_hash: str
    index_url: str | None = None
    index_mark: str = ""
    index_seq: int = -1

    @property
    def on_server(self) -> str | None:
        """The URL of the index on a server, None if there is none."""
        return None if self.index_url in (None, "exact") else self.index_url


@dataclass(frozen=True, slots=True)
class RebuildReport:
    """What `rebuild` did; recovered: photos taken over from a generation, None if the catalog was whole.

    backup: where the damaged catalog is now.
    """

    photos: int
    generation: int | None
    recovered: int | None = None
    backup: str | None = None
    seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class MigrationReport:
    """What `migrate` moved and compared.

    rows: how many of each table, every one held against its original.   compared: photos whose nearest ones were asked
    for on both sides.   agreement: the share of those that the destination's index finds too, None with none compared.
    """

    photos: int
    vectors: int
    rows: Mapping[str, int]
    compared: int
    agreement: float | None
    seconds: float = 0.0


class ProblemKind(StrEnum):
    """What `check` can find."""

    CATALOG_DAMAGED = "catalog_damaged"
    ROW_DAMAGED = "row_damaged"
    VECTOR_DAMAGED = "vector_damaged"
    VECTOR_MISSING = "vector_missing"
    GENERATION_DAMAGED = "generation_damaged"
    INDEX_DAMAGED = "index_damaged"
    PHOTO_MISSING = "photo_missing"
    PHOTO_CHANGED = "photo_changed"  # its size or time is not as known
    PHOTO_DAMAGED = "photo_damaged"  # size and time are as known, the content is not
    PHOTO_UNREADABLE = "photo_unreadable"


@dataclass(frozen=True, slots=True)
class Problem:
    """Something that is not as it should be.

    loss: what repairing it does and loses, in words.   path, id: the photo that it is about, where known.
    """

    kind: ProblemKind
    detail: str
    loss: str = ""
    path: str | None = None
    id: int | None = None


@dataclass(frozen=True, slots=True)
class CheckReport:
    """What a check found and still stands, and how much was repaired before.

    facts: what one may want to know beside it: the level, SQLite's version, folders that are offline.
    checked, remaining, offline: photos looked at, left for the next time, and out of reach.
    """

    problems: tuple[Problem, ...]
    repaired: int = 0
    facts: Mapping[str, int | str] = field(default_factory=dict)
    checked: int = 0
    remaining: int = 0
    offline: int = 0
    interrupted: bool = False

    @property
    def ok(self) -> bool:
        return not self.problems


@dataclass(frozen=True, slots=True)
class RootStatus:
    """One indexed folder."""

    path: str
    online: bool
    photos: int


@dataclass(frozen=True, slots=True)
class EncoderStatus:
    """One model that has vectors in the library."""

    name: str
    dim: int
    photos: int


class JobState(StrEnum):
    """How a job stands."""

    RUNNING = "running"
    DONE = "done"
    INTERRUPTED = "interrupted"  # stopped, or its process is no more
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class JobStatus:
    """The last piece of work on a library; times are in UTC, total is None while it is not known."""

    kind: str
    state: JobState
    started_at: datetime
    heartbeat_at: datetime
    done: int
    total: int | None
    pid: int
    host: str


@dataclass(frozen=True, slots=True)
class LibraryStatus:
    """The library at a glance."""

    path: str
    photos: int
    roots: tuple[RootStatus, ...]
    encoders: tuple[EncoderStatus, ...]
    index: Mapping[str, int | str | None] = field(default_factory=dict)
    skipped: int = 0
    schema: str = ""
    job: JobStatus | None = None


@dataclass(frozen=True, slots=True)
class Contents:
    """What a library's photos are, as told of a collection that is met for the first time.

    formats: photos by the kind of their files, most first.   years: the first and the last in which one was taken, by
    what files say of themselves; None where none does.   folders: how many they lie in.
    """

    formats: Mapping[str, int]
    years: tuple[int, int] | None
    folders: int


@dataclass(frozen=True, slots=True)
class Suggestion:
    """A query worth trying.   relevance: of the photo that fits it best."""

    query: str
    relevance: float
