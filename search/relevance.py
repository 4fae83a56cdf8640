"""How much a score means: a cosine's usual height differs between models, queries, libraries and photos.

A query without words, or with an image among them, is held against the library alone: z is how far the score lies
above those of its photos for the query, in spreads (median and median absolute deviation, which a few true matches do
not move), after Fisher's z-transformation, artanh, which gives cosines near 1 the room that they need. Relevance is
the logistic function of 1.5 (z - 2.5): nothing for a photo taken by chance, a half about where the ten nearest are no
better than photos of other things, one for the same picture cropped or turned.

A query in words is held against a bank of unrelated prompts too, which is known once per model (search.banks):

    prompt   b: how far the score lies above the same photo's scores for the prompts. A photo that is near to all
             texts, or far from all, is put right by it, as by the query bank of QB-Norm (arXiv:2112.12777); here
             the bank is taken as normal, so that its mean and covariance are all that is needed:
             b = (s - p·μ) / √(pᵀΣp) for a photo p of score s.
    sense    t: where the text lies between nonsense (letters, keys and syllables by chance) and the prompts, in
             spreads of the prompts: Fisher's linear discriminant with a shrunk covariance. Few real prompts lie
             below -0.7, and above that it says nothing: t is taken as min(t, -0.7).

Of N unrelated photos the best lies √(2 ln N) spreads of the query's own scores above their middle, so b is first
lowered, or raised, to what it would be among 1,000. One photo may lie high by luck, three hardly: what counts is the
mean b of the query's three best, and of a photo its own only where it lies more than a spread below that. Relevance
is the logistic function of a weighted sum of this and t: the probability that it is a photo of what was asked for
rather than the best photo for something that is not there, both being as likely. The weights were fitted on the
built-in model, and are the same for all: both are in spreads, not in cosines.
docs/explanation/relevance.md has the experiment.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from math import log, sqrt
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import numpy.typing as npt

    from search.types import Vectors

BACKGROUND = 2048
"""Photos that are enough to know a library's usual scores."""

DEFAULT_CUT = 0.22
"""The relevance below which a query in words finds nothing."""

TOGETHER = 3
"""The best photos that are judged together; whoever asks for the relevance of fewer gives these too."""

_MAD_TO_SIGMA = 1.4826  # for a normal distribution
_SHRINKAGE = 0.1  # of the covariance towards a ball of the same size
_LEAST = 1e-6  # a spread that is none
_AMONG = 1000  # photos that b is stated for
_PROMPT, _SENSE, _INTERCEPT = 1.6, 1.4, -2.6
_NO_SENSE = -1.0
_MOST = 4.0  # above it a photo says no more: nonsense stays nonsense however near it lies
_BELOW = 1.0  # how far a photo may lie below the best together
_PHOTOS_EACH = 20  # that one of the best is taken for: among few photos no three need show the same
_STEEPNESS, _HALFWAY = 1.5, 2.5  # for a query that is not all words
_NEAREST = 1 - 1e-6  # cosines above are one picture


@dataclass(frozen=True, slots=True, eq=False)
class Bank:
    """What a model makes of unrelated prompts and of nonsense, in a few numbers.

    mean, covariance: (D,) and (D, D), of the prompts' vectors.   axis: (D,), from nonsense to the prompts, in spreads
    of the prompts.   origin: where the prompts lie on it.
    """

    mean: npt.NDArray[np.float64]
    covariance: npt.NDArray[np.float64]
    axis: npt.NDArray[np.float64]
    origin: float

    @classmethod
    def fit(cls, prompts: Vectors, nonsense: Vectors) -> Bank:
        """Make a bank of unit rows, (P, D) and (Q, D)."""
        known, other = prompts.astype(np.float64), nonsense.astype(np.float64)
        mean, apart = known.mean(axis=0), known.mean(axis=0) - other.mean(axis=0)
        covariance = _covariance(known)
        within = (len(known) * covariance + len(other) * _covariance(other)) / (len(known) + len(other))
        within += (_SHRINKAGE * np.trace(within) / len(mean) + _LEAST**2) * np.eye(len(mean))
        axis = np.linalg.solve(within, apart)
        axis /= max(sqrt(axis @ covariance @ axis), _LEAST)
        return cls(mean, covariance, axis, float(mean @ axis))

    def sense(self, vector: Vectors) -> float:
        """Return how a text's vector (D,) stands among the prompts: 0 like most, far below as nonsense does."""
        return float(vector.astype(np.float64) @ self.axis) - self.origin

    def usual(self, vectors: npt.ArrayLike) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
        """Return mean and spread of the prompts' scores for each photo: (n,) and (n,).   vectors: (n, D)."""
        rows = np.asarray(vectors, np.float64)
        variance = ((rows @ self.covariance) * rows).sum(axis=1)
        return rows @ self.mean, np.sqrt(np.maximum(variance, _LEAST**2))


@dataclass(frozen=True, slots=True)
class Calibration:
    """What a query's scores mean in one library.

    middle, spread: of the library's own scores for the query, after artanh if there is no bank.
    photos: how many the library has.   bank: None for a query that is not all words.   sense: as above.
    together: how many of the best are judged together.
    """

    middle: float
    spread: float
    photos: int
    bank: Bank | None = field(default=None, repr=False)
    sense: float = 0.0
    together: int = TOGETHER

    def standing(self, scores: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """Return how far scores (n,) stand above the library's usual ones, in spreads: comparable between queries."""
        stretched = scores if self.bank else _stretched(scores)
        return (stretched - np.float32(self.middle)) / np.float32(self.spread)

    def relevance(self, scores: npt.NDArray[np.float32], vectors: Vectors) -> npt.NDArray[np.float32]:
        """Return the relevance in [0, 1] of photos, (n,), the query's best among them.

        scores: (n,) cosines.   vectors: (n, D) unit rows.
        """
        if self.bank is None or not len(scores):
            return _logistic(_STEEPNESS * (self.standing(scores) - _HALFWAY))
        each = self._prompt(self.bank, scores, vectors)
        best = float(each[np.argsort(-scores, kind="stable")[: self.together]].mean())
        evidence = _PROMPT * np.minimum(min(best, _MOST), each + _BELOW)
        evidence += _SENSE * min(self.sense, _NO_SENSE) + _INTERCEPT
        return _logistic(evidence)

    def _prompt(self, bank: Bank, scores: npt.NDArray[np.float32], vectors: Vectors) -> npt.NDArray[np.float64]:
        """Return how far scores lie above the same photos' scores for the bank's prompts, as if among 1,000."""
        means, spreads = bank.usual(vectors)
        luck = (_luck(self.photos) - _luck(_AMONG)) * self.spread
        found: npt.NDArray[np.float64] = (scores - luck - means) / spreads
        return found


def calibrate(
    vector: Vectors, *, background: Vectors, bank: Bank | None = None, photos: int, among: int | None = None
) -> Calibration:
    """Return what scores for a query mean.

    vector: (D,), unit.   background: (M, D), photos of the library taken evenly.   bank: of the model's prompts;
    None for a query that is not all words.   photos: how many the library has.   among: how many of them are looked
    through, where a filter leaves fewer.
    """
    scores = (background * vector).sum(axis=1)
    middle, spread = _centre(scores if bank else _stretched(scores))
    together = min(TOGETHER, max(1, (photos if among is None else among) // _PHOTOS_EACH))
    return Calibration(middle, spread, photos, bank, bank.sense(vector) if bank else 0.0, together)


def _covariance(rows: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    centred = rows - rows.mean(axis=0)
    found: npt.NDArray[np.float64] = centred.T @ centred / len(rows)
    return found


def _centre(scores: npt.NDArray[np.float32]) -> tuple[float, float]:
    """Median, and median absolute deviation as a standard deviation; (0, 1) of nothing."""
    if not len(scores):
        return 0.0, 1.0
    middle = _median(scores)
    return middle, max(_MAD_TO_SIGMA * _median(np.abs(scores - middle)), _LEAST)


def _luck(photos: int) -> float:
    """How many spreads the best of so many lies above their middle, about."""
    return sqrt(2 * log(max(photos, 2)))


def _median(values: npt.NDArray[np.float32]) -> float:
    """Return the median; numpy's own imports masked arrays to look for some, which takes longer than a search."""
    ordered = np.sort(values)
    return float((ordered[(len(ordered) - 1) // 2] + ordered[len(ordered) // 2]) / 2)


def _stretched(scores: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Fisher's z-transformation."""
    found: npt.NDArray[np.float32] = np.arctanh(np.clip(scores, -_NEAREST, _NEAREST), dtype=np.float32)
    return found


def _logistic(evidence: npt.NDArray[np.floating]) -> npt.NDArray[np.float32]:
    likely: npt.NDArray[np.float32] = (1 / (1 + np.exp(-np.clip(evidence, -60, 60)))).astype(np.float32)
    return likely
