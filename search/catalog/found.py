"""What a run's scan comes to, as values."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

from search.types import FileStat, Likeness, PhotoInfo, Skip, Withheld

if TYPE_CHECKING:
    from search.catalog.scopes import Scope


class Verdict(StrEnum):
    """What the catalog makes of a file from its name, size and time alone."""

    NEW = "new"
    SUSPECT = "suspect"  # a new name, but a known photo has this size: may have been moved or copied
    CHANGED = "changed"  # size or a time differ: the content may
    UNREAD = "unread"  # unchanged, but this reader has not read its metadata
    UNEMBEDDED = "unembedded"  # unchanged, but this encoder has no vector of it
    RETURNED = "returned"  # unchanged, and was gone
    UNCHANGED = "unchanged"
    SETTLED = "settled"  # skipped before, for a reason that still holds


UNENCODED = (Verdict.NEW, Verdict.SUSPECT, Verdict.CHANGED, Verdict.UNEMBEDDED)
"""What has no vector by this encoder, and is to get one."""


@dataclass(frozen=True, slots=True)
class ScannedFile:
    """A file of this run, its verdict, and the photo that has its place."""

    root_id: int
    place: bytes
    stat: FileStat
    verdict: Verdict
    photo_id: int | None


@dataclass(frozen=True, slots=True)
class Record:
    """A photo to commit with its vector."""

    file: ScannedFile
    content_hash: bytes
    info: PhotoInfo
    likeness: Likeness | None = None


@dataclass(frozen=True, slots=True)
class Settled:
    """What needs no second look while its file stays as it is: skips by this decoder, metadata by this reader."""

    decoder: str
    reasons: Sequence[str]
    reader: int = 0


@dataclass(frozen=True, slots=True)
class Recognised:
    """How many files were known by content: touched, moved, and added or updated without decoding.

    added: copies, and photos back from having been gone.   gone: photos that lost their place to a moved one and
    whose content is nowhere now.
    """

    touched: int = 0
    moved: int = 0
    added: int = 0
    updated: int = 0
    gone: int = 0


@dataclass(frozen=True, slots=True)
class Settlement:
    """How a scan ends: photos that returned, photos now gone, and those not found that stay nevertheless."""

    returned: int
    gone: int
    withheld: tuple[Withheld, ...]


@dataclass(frozen=True, slots=True)
class Matched:
    """A scope whose files were as known, up to this place."""

    scope: Scope
    last: bytes


@dataclass(frozen=True, slots=True)
class Unchanged:
    """How a run ends that found every file as it was: photos, files skipped as before, photos to forget now."""

    photos: int
    skips: list[Skip]
    long_gone: list[int]
