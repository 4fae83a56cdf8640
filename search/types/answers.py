"""What to look for, and what was found."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING

from search.errors import UsageError

if TYPE_CHECKING:
    from search.conditions import Node
    from search.types.photos import Photo


@dataclass(frozen=True, slots=True)
class Filter:
    """Conditions on photo fields; every one given must hold.

    folder: absolute path, sub-folders included.   after, before: after <= taken_at < before; one without zone is
    wall-clock time, for one with a zone see search.conditions.Taken.   camera: part of the camera's name, any case.
    near: latitude, longitude, radius in km.   labels: all of them, each with what is below it in a hierarchy.
    where: any other condition, such as `search.where.parse` returns.
    Raises UsageError for an empty text: it would stand for anything.
    """

    folder: str | None = None
    after: datetime | None = None
    before: datetime | None = None
    camera: str | None = None
    near: tuple[float, float, float] | None = None
    labels: tuple[str, ...] = ()
    where: Node | None = None

    def __post_init__(self) -> None:
        for name, texts in (("folder", (self.folder,)), ("camera", (self.camera,)), ("labels", self.labels)):
            if any(text is not None and not text.strip() for text in texts):
                raise UsageError(f"the {name} to look for is empty", hint="leave it out to ask for nothing of it")

    def __bool__(self) -> bool:
        """False when nothing is asked for: every photo passes."""
        return self != Filter()


@dataclass(frozen=True, slots=True)
class ClauseScore:
    """How a photo stands to one clause of a long text; it holds where its relevance reaches the cut."""

    text: str
    score: float
    relevance: float
    holds: bool


@dataclass(frozen=True, slots=True)
class Hit:
    """One answer: `score` is the cosine, `relevance` in [0, 1] is calibrated (search.relevance).

    clauses: of a text that is too long for the model, else none; the relevance is the lowest of theirs.
    """

    score: float
    relevance: float
    photo: Photo
    clauses: tuple[ClauseScore, ...] = ()


@dataclass(frozen=True, slots=True)
class Answer:
    """Hits, best first, with what one must know to trust them.

    cut: the relevance below which photos were dropped.   below: how many were.   best: the highest relevance that was
    seen, dropped or not; None where there was no photo.
    clauses: what a text that is too long for the model was split into, else none.   truncated_tokens: none of a query
    are, whatever its length.
    """

    query: str
    encoder: str
    hits: tuple[Hit, ...]
    candidates: int
    seconds: float
    cut: float = 0.0
    below: int = 0
    best: float | None = None
    clauses: tuple[str, ...] = ()
    truncated_tokens: int = 0
