"""Exact search in plain numpy: the yardstick every other index is held to."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from search.vectors import check_width

if TYPE_CHECKING:
    import numpy.typing as npt

    from search.types import Ids, Vectors


class ExactIndex:
    """All rows in one array; a search is one matrix product. See VectorIndex for the contract."""

    kind = "exact"

    def __init__(self, dim: int) -> None:
        self.dim = dim
        self._ids: Ids = np.empty(0, np.int64)
        self._rows: Vectors = np.empty((0, dim), np.float32)

    def __len__(self) -> int:
        return len(self._ids)

    @property
    def size_bytes(self) -> int:
        return self._rows.nbytes

    def add(self, ids: Ids, vectors: Vectors) -> None:
        check_width(vectors, self.dim)
        self.remove(ids)
        self._ids = np.concatenate([self._ids, ids])
        self._rows = np.concatenate([self._rows, vectors])

    def remove(self, ids: Ids) -> None:
        keep = ~np.isin(self._ids, ids)
        self._ids, self._rows = self._ids[keep], self._rows[keep]

    def search(
        self, vectors: Vectors, k: int, *, within: Ids | None = None
    ) -> tuple[Ids, npt.NDArray[np.float32]]:
        check_width(vectors, self.dim)
        permitted = slice(None) if within is None else np.isin(self._ids, within)
        ids, rows = self._ids[permitted], self._rows[permitted]
        scores = vectors @ rows.T  # (Q, N)
        best = np.argsort(-scores, axis=1, kind="stable")[:, :k]
        found_ids = np.full((len(vectors), k), -1, np.int64)
        found_scores = np.full((len(vectors), k), -np.inf, np.float32)
        found_ids[:, : best.shape[1]] = ids[best]
        found_scores[:, : best.shape[1]] = np.take_along_axis(scores, best, axis=1)
        return found_ids, found_scores
