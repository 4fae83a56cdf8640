"""The photos that are good by every one of several query vectors: best by the lowest of their standings.

The threshold algorithm of Fagin, Lotem and Naor, "Optimal aggregation algorithms for middleware" (PODS 2001): each
vector's list of nearest ids is read from the top, whatever is in one is scored by all, and reading ends where no id
outside of the lists could be as good as the k found. Here lists are read in strides that grow, as a list is made anew
for each depth.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, TypeAlias

import numpy as np

from search.errors import IndexUnavailable

if TYPE_CHECKING:
    import numpy.typing as npt

    from search.types import Filter, Ids, Vectors
    from search.vectors import VectorIndex

    Scores: TypeAlias = npt.NDArray[np.float32]

_FIRST = 8  # times k: how deep the lists are read at first
_DEEPER = 4  # times as deep at each further step


def search_minimum(
    index: VectorIndex,
    vectors: Vectors,
    standings: Sequence[Callable[[Scores], Scores]],
    k: int,
    *,
    within: Ids | None = None,
    where: Filter | None = None,
) -> tuple[Ids, Scores]:
    """Return the k ids whose lowest standing is highest, best first, and their scores.

    vectors: (Q, D) unit rows, Q > 0.   standings: for each vector, what makes its scores comparable with the others';
    it must rise with the score.   within, where: as in VectorIndex.search.
    Returns ids (n,), n <= k, the lower id first among equals, and scores (Q, n), cosine.
    """
    count = min(len(index) if within is None else len(within), index.deepest)
    depth = min(max(_FIRST * k, 64), count)
    known: tuple[Ids, Scores] | None = None
    while True:
        try:
            near, nearest = index.search(vectors, depth, within=within, where=where)
        except IndexUnavailable:  # a server names only so many
            if known is None:
                raise
            return known
        ids = np.unique(near[near >= 0])
        scores = scores_of(index, vectors, ids)
        lowest = _stand(standings, scores).min(axis=0) if len(ids) else np.empty(0, np.float32)
        order = np.lexsort((ids, -lowest))[: max(k, 0)]
        known = ids[order], scores[:, order]
        if depth == count or k <= 0:
            return known
        unseen = _stand(standings, nearest[:, -1:]).min()
        if len(order) == k and lowest[order[-1]] > unseen:
            return known
        depth = min(_DEEPER * depth, count)


def scores_of(index: VectorIndex, vectors: Vectors, ids: Ids) -> Scores:
    """Return the scores (Q, N) of ids (N,) that the index holds, in their order, by each vector."""
    found, scores = index.search(vectors, len(ids), within=ids)
    ascending = np.take_along_axis(scores, np.argsort(found, axis=1), axis=1)
    return ascending[:, np.searchsorted(np.sort(ids), ids)]


def _stand(standings: Sequence[Callable[[Scores], Scores]], scores: Scores) -> Scores:
    return np.stack([standing(row) for standing, row in zip(standings, scores, strict=True)])
