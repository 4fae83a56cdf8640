"""A choice of photos that are good answers and unlike each other.

Maximal marginal relevance (Carbonell and Goldstein, SIGIR 1998): again and again the photo is taken whose score, less
its likeness to what was taken already, is the highest. Scores are brought to [0, 1] over the pool, as cosines of texts
with photos lie closer together than those of photos with photos. Near-duplicates of a taken photo come only where
nothing else is left.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import numpy.typing as npt

    from search.types import Vectors

TWIN = 0.96
"""The cosine from which two photos are near-duplicates."""

_BALANCE = 0.7  # what a score weighs; likeness weighs the rest


def pool_size(k: int) -> int:
    """Return how many of the best photos to choose k of."""
    return max(10 * k, 100)


def diverse(vectors: Vectors, scores: npt.NDArray[np.float32], k: int) -> list[int]:
    """Return the places of k photos of a pool, the first the best, each next one as good and as new as can be.

    vectors: (n, D) unit rows.   scores: (n,).   Fewer than k only if n is.
    """
    worth = _BALANCE * _spread_out(scores)
    likeness = np.full(len(scores), -1.0, np.float32)
    left = np.ones(len(scores), bool)
    chosen: list[int] = []
    while left.any() and len(chosen) < k:
        fresh = left & (likeness < TWIN)
        gain = worth - (1 - _BALANCE) * likeness if chosen else worth
        place = int(np.where(fresh if fresh.any() else left, gain, -np.inf).argmax())
        chosen.append(place)
        left[place] = False
        likeness = np.maximum(likeness, vectors @ vectors[place])
    return chosen


def _spread_out(scores: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Scores from 0 to 1; all 1 where they are equal."""
    if not len(scores) or scores.max() == scores.min():
        return np.ones(len(scores), np.float32)
    spread: npt.NDArray[np.float32] = (scores - scores.min()) / (scores.max() - scores.min())
    return spread
