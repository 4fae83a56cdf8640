"""How much a score means in this library.

A cosine alone says little: its usual height differs between models and between queries. Held against the scores
of the library's other photos for the same query it says more: with a normal fit to that background (median and
median absolute deviation, which a few true matches do not move), relevance is the probability that the best of
N unrelated photos would score lower, Φ(z)^N. It is near 1 where a photo stands out from its library and small
where the best hit is no more than the luckiest of many.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import erf, sqrt
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import numpy.typing as npt

    from search.types import Vectors

BACKGROUND = 2048
"""Photos that are enough to know a library's usual scores."""

_MAD_TO_SIGMA = 1.4826  # for a normal distribution


@dataclass(frozen=True, slots=True)
class Calibration:
    """What a query's scores mean in one library.

    middle, spread: of the library's own scores for the query.   photos: how many the library has.
    """

    middle: float
    spread: float
    photos: int

    def standing(self, scores: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """Return how far scores (n,) stand above the library's usual ones, in spreads: comparable between queries."""
        return (scores - np.float32(self.middle)) / np.float32(self.spread)

    def relevance(self, scores: npt.NDArray[np.float32], vectors: Vectors) -> npt.NDArray[np.float32]:
        """Return the relevance in [0, 1] of photos, (n,).   scores: (n,) cosines.   vectors: (n, D) unit rows."""
        return np.array([_below(float(z)) ** self.photos for z in self.standing(scores)], np.float32)


def calibrate(vector: Vectors, *, background: Vectors, bank: Vectors | None = None, photos: int) -> Calibration:
    """Return what scores for a query mean.

    vector: (D,), unit.   background: (M, D), photos of the library taken evenly.   bank: (P, D), unrelated texts;
    None for a query that has no text.   photos: how many the library has.
    """
    return _calibration((background * vector).sum(axis=1), photos)


def _calibration(background: npt.NDArray[np.float32], photos: int) -> Calibration:
    if not len(background):
        return Calibration(0.0, 1.0, photos)
    middle = _median(background)
    sigma = _MAD_TO_SIGMA * _median(np.abs(background - middle))
    return Calibration(middle, max(sigma, 1e-6), photos)


def relevance(scores: npt.NDArray[np.float32], background: npt.NDArray[np.float32], photos: int) -> list[float]:
    """Return the relevance in [0, 1] of each score.

    scores: (k,) cosines of the hits.   background: (M,) cosines of photos of the library taken evenly.
    photos: how many the library has.
    """
    if not len(background):
        return [0.0 for _ in scores]
    middle = _median(background)
    sigma = _MAD_TO_SIGMA * _median(np.abs(background - middle))
    return [_below((float(score) - middle) / max(sigma, 1e-6)) ** photos for score in scores]


def _median(values: npt.NDArray[np.float32]) -> float:
    """Return the median; numpy's own imports masked arrays to look for some, which takes longer than a search."""
    ordered = np.sort(values)
    return float((ordered[(len(ordered) - 1) // 2] + ordered[len(ordered) // 2]) / 2)


def _below(z: float) -> float:
    """Φ(z), the standard normal distribution's share below z."""
    return (1 + erf(z / sqrt(2))) / 2
