"""Vectors that lie somewhere and are never changed there, with what was added, replaced and removed since in memory."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable
from typing import TYPE_CHECKING

import numpy as np

from search.vectors import best, check_width, nothing
from search.vectors.exact import ExactIndex

if TYPE_CHECKING:
    import numpy.typing as npt

    from search.types import Filter, Ids, Vectors

    Scores = npt.NDArray[np.float32]


class LaidOver(ABC):
    """The part of an index that lays changes over a base. See VectorIndex for the contract."""

    def __init__(self, dim: int) -> None:
        self.dim = dim
        self._new = ExactIndex(dim)

    @property
    def laid_over(self) -> int:
        return len(self._new)

    def add(self, ids: Ids, vectors: Vectors) -> None:
        check_width(vectors, self.dim)
        self._bury(ids)
        self._new.add(ids, vectors)

    def remove(self, ids: Ids) -> None:
        self._bury(ids)
        self._new.remove(ids)

    @abstractmethod
    def _bury(self, ids: Ids) -> None:
        """Leave out what the base has of these ids from now on."""

    def search(
        self, vectors: Vectors, k: int, *, within: Ids | None = None, where: Filter | None = None
    ) -> tuple[Ids, Scores]:
        check_width(vectors, self.dim)
        k = max(k, 0)
        found = nothing(len(vectors), k)
        if not k or not len(vectors):
            return found
        new_ids, new_scores = self._new.search(vectors, k, within=within)
        for query, (ids, scores) in enumerate(self._scored(vectors, k, within, where)):
            own = new_ids[query] >= 0
            ids = np.concatenate([ids, new_ids[query][own]])
            scores = np.concatenate([scores, new_scores[query][own]])
            found[0][query], found[1][query] = best(ids, scores, k)
        return found

    @abstractmethod
    def _scored(
        self, vectors: Vectors, k: int, within: Ids | None, where: Filter | None
    ) -> Iterable[tuple[Ids, Scores]]:
        """Yield, for each query vector, ids of the base among which its k best are, and their scores."""
