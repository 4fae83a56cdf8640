"""Queries worth trying on a library: those, of a list of everyday ones, that its model is surest of.

Sure is where the best photos lie far above the scores that the same photos have for unrelated prompts, as relevance
takes it, and where no other query of the list fits the two best of them better: one photo may be anything by luck.
What was chosen is kept in the library's folder, where it is read without a model. That file is a cache.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from search import files
from search.relevance import TOGETHER
from search.resources import data_path, text_lines
from search.types import Suggestion

if TYPE_CHECKING:
    from search.relevance import Bank
    from search.types import Vectors

LEAST_PHOTOS = 20
"""Of fewer it is not known what is usual among them, and they are looked through without a query."""

_FILE = "suggestions.json"
_FITTING = 2  # of the best photos, that no other query may fit better
_SMALL_WORDS = frozenset(("a", "an", "the", "at", "in", "of", "on", "by", "from", "with", "through"))


@dataclass(frozen=True, slots=True)
class Wording:
    """A query of the list, and what kind of thing it asks for."""

    group: str
    query: str

    @property
    def words(self) -> frozenset[str]:
        """What queries for different things do not share."""
        return frozenset(self.query.casefold().split()) - _SMALL_WORDS


def wordings() -> list[Wording]:
    """Return the list of everyday queries."""
    parts = (line.partition("/") for line in text_lines(data_path("suggestions.txt")))
    return [Wording(group, query) for group, _, query in parts]


# ---- choosing


@dataclass(frozen=True, slots=True)
class _Candidate:
    """A query that fits its best photos best.   photo: the place of the best.   standing: how sure that is."""

    wording: Wording
    photo: int
    standing: float


def ranked(asked: Sequence[Wording], texts: Vectors, photos: Vectors, *, bank: Bank) -> Iterator[Wording]:
    """Yield queries for different things on different photos, the surest first.

    texts: (T, D), of `asked`.   photos: (P, D), taken evenly of a library.   bank: of the model.
    """
    left = sorted(_candidates(asked, texts, photos, bank), key=lambda one: -one.standing)
    taken: list[_Candidate] = []
    while left:
        groups: set[str] = set()  # each gives one, and another only when all have
        later = []
        for one in left:
            if one.wording.group in groups:
                later.append(one)
            elif all(_are_different(one, other) for other in taken):
                groups.add(one.wording.group)
                taken.append(one)
                yield one.wording
        left = later


def _are_different(one: _Candidate, other: _Candidate) -> bool:
    return one.photo != other.photo and not one.wording.words & other.wording.words


def _candidates(asked: Sequence[Wording], texts: Vectors, photos: Vectors, bank: Bank) -> Iterator[_Candidate]:
    scores = photos @ texts.T  # (P, T)
    means, spreads = bank.usual(photos)
    standing = (scores - means[:, None]) / spreads[:, None]
    fitting = scores.argmax(axis=1)
    for place, column in enumerate(scores.T):
        best = np.argsort(-column, kind="stable")[:TOGETHER]
        if (fitting[best[:_FITTING]] == place).all():
            yield _Candidate(asked[place], int(best[0]), float(standing[best, place].mean()))


# ---- what was chosen


@dataclass(frozen=True, slots=True)
class Kept:
    """Suggestions as they were found.   encoder: the model's fingerprint.   photos: how many there were."""

    encoder: str
    photos: int
    suggestions: tuple[Suggestion, ...]


def keep(folder: Path, kept: Kept) -> None:
    """Write suggestions into a library's folder; where that can't be, they are looked for again."""
    with contextlib.suppress(OSError):
        files.atomic_write(folder / _FILE, json.dumps(asdict(kept)).encode())


def kept(folder: Path) -> Kept | None:
    """Return what was kept in a library's folder, None if nothing that can be read."""
    try:
        found = json.loads((folder / _FILE).read_bytes())
        suggestions = tuple(Suggestion(str(one["query"]), float(one["relevance"])) for one in found["suggestions"])
        return Kept(str(found["encoder"]), int(found["photos"]), suggestions)
    except (OSError, ValueError, TypeError, KeyError):
        return None
