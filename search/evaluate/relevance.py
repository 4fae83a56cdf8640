"""Whether relevance tells what is there from what is not, beside the best that one cosine for all queries can do.

On photos whose classes are known four kinds of query are asked: the classes' names; the same with the photos of the
class left out; names of things that no class is like; and nonsense. Of the first kind the photos of the class that are
among the k best should stay, of the others nothing should.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from search.errors import UsageError
from search.evaluate.zero_shot import label_set
from search.relevance import BACKGROUND, DEFAULT_CUT, TOGETHER, calibrate
from search.resources import data_path, text_lines

if TYPE_CHECKING:
    import numpy.typing as npt

    from search.evaluate.datasets import Dataset
    from search.evaluate.pictures import Pictures
    from search.relevance import Bank
    from search.types import Vectors

PRESENT, LEFT_OUT, ABSENT, NONSENSE = "present", "left out", "absent", "nonsense"
KEPT = 0.95
"""The share of true photos that a threshold must leave."""

_UNLIKE = 0.6  # cosine of two texts from which one may name what the other does
_NONSENSE_QUERIES = 200
_POINTS = 60
_SCRIPTS = ((0x430, 32), (0x4E00, 2000), (0x5D0, 27), (0x3041, 80), (0xAC00, 2000))  # first letter, how many


@dataclass(frozen=True, slots=True)
class Point:
    """What one threshold does: the share of true photos it leaves, and of each other kind's queries it leaves empty."""

    threshold: float
    kept: float
    nonsense: float
    absent: float
    left_out: float


@dataclass(frozen=True, slots=True)
class RelevanceEvaluation:
    """queries: how many of each kind.   true_photos: of the class asked for, among the k best.

    cut: what the usual cut does.   relevance, cosine: the curves.   best_relevance, best_cosine: of each the highest
    threshold that leaves 95 % of the true photos.   truncated_tokens: of what was asked, beyond what the model reads.
    """

    encoder: str
    photos: int
    classes: int
    queries: Mapping[str, int]
    true_photos: int
    cut: Point
    best_relevance: Point
    best_cosine: Point
    relevance: tuple[Point, ...]
    cosine: tuple[Point, ...]
    truncated_tokens: int = 0


@dataclass(frozen=True, slots=True)
class _Asked:
    """The k best photos of one query: relevance and cosines, (k,), and which are true."""

    kind: str
    relevance: npt.NDArray[np.float32]
    cosine: npt.NDArray[np.float32]
    true: npt.NDArray[np.bool_]


def evaluate_relevance(
    pictures: Pictures,
    dataset: Dataset,
    vectors: Vectors,
    *,
    absent: Sequence[str] | None = None,
    k: int = 10,
) -> RelevanceEvaluation:
    """Ask photos of known classes for what is in them and what is not.

    vectors: (N, D) of the data set's photos.   absent: names of things, of which those near to a class are not asked
    for.   Raises UsageError for fewer than two classes.
    """
    classes, known = dataset.targets, np.unique(dataset.targets).tolist()
    if len(known) < 2:
        raise UsageError("the photos are of one class", hint="give a folder with a folder for each class")
    tower = pictures.text()
    encode = tower.encode_texts
    asking = _Asking(vectors, classes, pictures.bank(), k)
    others = list(absent if absent is not None else text_lines(data_path("bank", "absent.txt")))
    nonsense = list(_nonsense(others))
    weights, beyond = label_set(dataset, ["{}"]).embed(tower)
    named = weights[known]
    strange = encode(others) if others else named[:0]
    strange = strange[(strange @ named.T).max(axis=1) < _UNLIKE]
    asked = [
        *(asking(PRESENT, vector, number) for vector, number in zip(named, known, strict=True)),
        *(asking(LEFT_OUT, vector, number) for vector, number in zip(named, known, strict=True)),
        *(asking(ABSENT, vector) for vector in strange),
        *(asking(NONSENSE, vector) for vector in encode(nonsense)),
    ]
    beyond += sum(max(0, length - tower.context_length) for length in tower.count_tokens(others)) if others else 0
    return _evaluated(asked, pictures.model, len(vectors), len(known), beyond=beyond)


@dataclass(frozen=True, slots=True)
class _Asking:
    """Photos to ask for: (N, D) vectors, (N,) classes by number."""

    vectors: Vectors
    classes: npt.NDArray[np.int64]
    bank: Bank | None
    k: int

    def __call__(self, kind: str, vector: Vectors, number: int = -1) -> _Asked:
        """Ask as a query would be answered, among all photos or, if they are left out, those of other classes."""
        rows, true = self.vectors, self.classes == number
        if kind == LEFT_OUT:
            rows, true = rows[~true], true[~true]
        scores = rows @ vector
        best = np.argsort(-scores, kind="stable")[: max(self.k, TOGETHER)]
        background = rows[:: max(1, len(rows) // BACKGROUND)]
        found = calibrate(vector, background=background, bank=self.bank, photos=len(rows))
        relevance, shown = found.relevance(scores[best], rows[best]), best[: self.k]
        return _Asked(kind, relevance[: self.k], scores[shown], true[shown])


def _evaluated(
    asked: Sequence[_Asked], encoder: str, photos: int, classes: int, *, beyond: int = 0
) -> RelevanceEvaluation:
    curves = {}
    for measure in ("relevance", "cosine"):
        values = np.sort(np.concatenate([getattr(one, measure) for one in asked]))
        places = np.linspace(0, len(values) - 1, min(_POINTS, len(values))).astype(int)
        curves[measure] = tuple(_point(asked, measure, value) for value in np.unique(values[places]).tolist())
    kinds = (PRESENT, LEFT_OUT, ABSENT, NONSENSE)
    return RelevanceEvaluation(
        encoder=encoder,
        photos=photos,
        classes=classes,
        queries={kind: sum(one.kind == kind for one in asked) for kind in kinds},
        true_photos=sum(int(one.true.sum()) for one in asked),
        cut=_point(asked, "relevance", DEFAULT_CUT),
        best_relevance=_best(asked, "relevance"),
        best_cosine=_best(asked, "cosine"),
        relevance=curves["relevance"],
        cosine=curves["cosine"],
        truncated_tokens=beyond,
    )


def _point(asked: Sequence[_Asked], measure: str, threshold: float) -> Point:
    def empty(kind: str) -> float:
        highest = [getattr(one, measure).max(initial=-1) for one in asked if one.kind == kind]
        return float(np.mean([value < threshold for value in highest])) if highest else 1.0

    true = _true(asked, measure)
    kept = float((true >= threshold).mean()) if len(true) else 1.0
    return Point(threshold, kept, empty(NONSENSE), empty(ABSENT), empty(LEFT_OUT))


def _best(asked: Sequence[_Asked], measure: str) -> Point:
    """The highest threshold that leaves the share of true photos that must be left."""
    true = np.sort(_true(asked, measure))
    may_go = int(len(true) * (1 - KEPT) + 1e-9)
    return _point(asked, measure, float(true[may_go]) if len(true) else 0.0)


def _true(asked: Sequence[_Asked], measure: str) -> npt.NDArray[np.float32]:
    found: npt.NDArray[np.float32] = np.concatenate([getattr(one, measure)[one.true] for one in asked])
    return found


def _nonsense(words: Sequence[str]) -> Iterator[str]:
    """Letters, syllables of three words mixed, letters of other scripts, marks; none that the bank was made of."""
    import random
    import re

    chance = random.Random(1)  # noqa: S311 nothing secret

    def letters(first: int, count: int, most: int) -> str:
        return "".join(chr(first + int(chance.random() * count)) for _ in range(3 + int(chance.random() * most)))

    def mixed() -> str:
        three = "".join(
            words[int(chance.random() * len(words))].replace(" ", "") for _ in range(3 if words else 0)
        )
        syllables = sorted(re.findall("[^aeiou]*[aeiou]+", three.lower()), key=lambda _: chance.random())
        return "".join(syllables[:3]) + " " + "".join(syllables[3:6])

    for number in range(_NONSENSE_QUERIES):
        yield (
            " ".join(letters(97, 26, 8) for _ in range(1 + number // 4 % 3)),
            mixed(),
            letters(*_SCRIPTS[number // 4 % len(_SCRIPTS)], 8),
            letters(33, 31, 9),
        )[number % 4]
