"""What a run is at, and what it did."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from search.types.photos import Skip


class Stage(StrEnum):
    """What a run is at."""

    SCAN = "scanning"
    RECOGNISE = "recognising"
    ENCODE = "encoding"
    LABEL = "labelling"
    READ = "reading"  # what photos already indexed say of themselves
    CHECK = "checking"
    HASH = "hashing"
    MOVE = "moving"
    COMPARE = "comparing"
    WRITE = "writing"  # sidecars
    ADOPT = "taking over"  # vectors that other software made
    UNPACK = "unpacking"
    COPY = "copying"  # a catalog's rows
    EXPORT = "exporting"


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a run is: files done of `total`, None while that is not known."""

    stage: Stage
    done: int
    total: int | None = None


@dataclass(frozen=True, slots=True)
class Withheld:
    """Photos of a folder that were not found and are kept as if they were there, and why."""

    path: str
    photos: int
    reason: str


class PassedOver(StrEnum):
    """What the walk through a folder leaves out on purpose."""

    VIDEOS = "videos"
    HIDDEN = "hidden"
    EXCLUDED = "excluded"
    LINKS = "links"
    OTHERS = "others"  # no photos by their names


@dataclass(frozen=True, slots=True)
class IndexReport:
    """What a run did. Every file seen is in exactly one of added, updated, moved, unchanged, skipped.

    offline: photos not found that stay, because their folder may only be away; `withheld` says where and why.
    purged: photos forgotten because they were gone for too long.   reread: photos whose metadata was read anew, though
    their content is as it was; each counts elsewhere, too.
    not_encoded: after re-encoding, photos that have no vector by the new model yet; while there are any, the old
    model answers.   not_published: why the index generation that was due could not be written, "" if it was; the
    photos are committed and found all the same.   index_behind: why an index on a server could not be brought up to
    date.   passed_over: what lay between the photos and was left out on purpose, a folder as one.
    """

    encoder: str
    photos: int
    added: int = 0
    updated: int = 0
    moved: int = 0
    unchanged: int = 0
    gone: int = 0
    offline: int = 0
    withheld: tuple[Withheld, ...] = ()
    purged: int = 0
    skipped: tuple[Skip, ...] = ()
    encoded: int = 0
    reread: int = 0
    not_encoded: int = 0
    seconds: float = 0.0
    interrupted: bool = False
    not_published: str = ""
    index_behind: str = ""
    passed_over: Mapping[PassedOver, int] = field(default_factory=dict)

    @property
    def seen(self) -> int:
        """How many files were looked at."""
        return self.added + self.updated + self.moved + self.unchanged + len(self.skipped)

    @property
    def images_per_second(self) -> float:
        """Photos encoded per second of the whole run."""
        return self.encoded / self.seconds if self.seconds else 0.0


class Orientation(StrEnum):
    """What other software did with the orientation that files ask for, told from its vectors."""

    APPLIED = "applied"
    IGNORED = "ignored"  # such photos were encoded lying on their side
    MIXED = "mixed"  # neither fits all that were compared
    UNTOLD = "untold"  # no photo that was compared could tell


@dataclass(frozen=True, slots=True)
class SpotCheck:
    """A stored vector beside new ones: its cosine with that of the photo upright, and as its file has the pixels."""

    path: str
    cosine: float
    as_stored: float


@dataclass(frozen=True, slots=True)
class Passport:
    """What vectors of other software were held against, and how they stood.

    source, place: what made them, and where they are.   model, fingerprint, preprocessing: of the model compared with.
    agreement: the least cosine that counts as the same vector.   spots: the photos compared.
    turned: those compared both ways, since their files ask to be turned.
    """

    source: str
    place: str
    model: str
    fingerprint: str
    preprocessing: Mapping[str, Any]
    agreement: float
    orientation: Orientation
    spots: tuple[SpotCheck, ...]
    turned: tuple[SpotCheck, ...] = ()

    @property
    def agreeing(self) -> int:
        """How many of the photos compared have the vector that the model makes."""
        return sum(spot.cosine >= self.agreement for spot in self.spots)

    @property
    def lowest(self) -> float:
        return min(spot.cosine for spot in self.spots)

    @property
    def median(self) -> float:
        """The cosine that half of the photos compared reach."""
        return sorted(spot.cosine for spot in self.spots)[len(self.spots) // 2]


@dataclass(frozen=True, slots=True)
class AdoptReport:
    """What was taken over from other software.

    passport: None where its vectors were not asked for, or nothing was left to do.   named: photos that it names.
    adopted: those that have its vector now.   left: its rows that are of no use, by reason.   not_adopted: photos that
    were not given the vector it has, by reason.   not_encoded: photos with no vector yet.   index: what the run did,
    files left out in `skipped`.
    """

    passport: Passport | None
    named: int
    adopted: int
    left: Mapping[str, int]
    not_adopted: Mapping[str, int]
    not_encoded: int
    index: IndexReport
