"""Exact search over rows in memory, in plain numpy."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from search.vectors import EXACT, best, check_width, cosines, nothing, pairs, places_of

if TYPE_CHECKING:
    import numpy.typing as npt

    from search.types import Filter, Ids, Vectors
    from search.vectors.pairs import Pairs

_SPARE = 32  # candidates beyond k whose order a matrix product may have got wrong by its rounding


class ExactIndex:
    """All rows in one array; a search is one matrix product. See VectorIndex for the contract."""

    kind = EXACT

    def __init__(self, dim: int) -> None:
        self.dim = dim
        self._count = 0
        self._room: tuple[Ids, Vectors] = (np.empty(0, np.int64), np.empty((0, dim), np.float32))
        self._last = -1  # no id is higher
        self._sorted: tuple[Ids, Ids] | None = None  # where the ids are, ascending, and these

    def __len__(self) -> int:
        return self._count

    @property
    def laid_over(self) -> int:
        return self._count

    @property
    def deepest(self) -> int:
        return self._count

    @property
    def size_bytes(self) -> int:
        return self._count * (4 * self.dim + 8)

    @property
    def ids(self) -> Ids:
        """The ids it holds, in no order."""
        return self._room[0][: self._count]

    @property
    def _rows(self) -> Vectors:
        return self._room[1][: self._count]

    def add(self, ids: Ids, vectors: Vectors) -> None:
        check_width(vectors, self.dim)
        if not len(ids):
            return
        if ids.min() <= self._last:
            self.remove(ids)
        self._grow(self._count + len(ids))
        new = slice(self._count, self._count + len(ids))
        self._room[0][new], self._room[1][new] = ids, vectors
        self._count += len(ids)
        self._sorted = None
        self._last = max(self._last, int(ids.max()))

    def _grow(self, count: int) -> None:
        """Make room in steps of half the size, so that filling it in small parts stays cheap."""
        if count > len(self._room[0]):
            size = max(count, 3 * len(self._room[0]) // 2)
            room = np.empty(size, np.int64), np.empty((size, self.dim), np.float32)
            room[0][: self._count], room[1][: self._count] = self.ids, self._rows
            self._room = room

    def remove(self, ids: Ids) -> None:
        keep = ~np.isin(self.ids, ids)
        if not keep.all():
            self._room = self.ids[keep], self._rows[keep]
            self._count = len(self._room[0])
            self._sorted = None

    def _among(self, within: Ids) -> npt.NDArray[np.bool_]:
        """Which of its ids are among others: np.isin alone takes a second for a million of them, even beside none."""
        if len(within) <= self._count:
            return np.isin(self.ids, within)
        ascending = within if (within[1:] >= within[:-1]).all() else np.sort(within)
        return places_of(self.ids, ascending)[1]

    def exact(self) -> ExactIndex:
        return self

    def sample(self, size: int) -> tuple[Ids, Vectors]:
        order = np.argsort(self.ids)[:: max(1, self._count // max(size, 1))]
        return self.ids[order], self._rows[order]

    def vectors(self, ids: Ids) -> Vectors:
        found = np.zeros((len(ids), self.dim), np.float32)
        if self._sorted is None:
            order = np.argsort(self.ids)
            self._sorted = order, self.ids[order]
        order, ascending = self._sorted
        places, known = places_of(ids, ascending)
        found[known] = self._rows[order[places]]
        return found

    def near_pairs(self, k: int, *, least: float, within: Ids | None = None) -> Pairs:
        kept = np.arange(self._count) if within is None else np.flatnonzero(self._among(within))
        kept = kept[np.argsort(self.ids[kept])]
        found = pairs.near_rows(lambda some: self._rows[kept[some]], len(kept), k, least)
        ids = self.ids[kept]
        return found._replace(first=ids[found.first], second=ids[found.second])

    def prepare(self) -> None:
        """Nothing is needed."""

    def search(
        self, vectors: Vectors, k: int, *, within: Ids | None = None, where: Filter | None = None
    ) -> tuple[Ids, npt.NDArray[np.float32]]:
        check_width(vectors, self.dim)
        k = max(k, 0)
        permitted = slice(None) if within is None else self._among(within)
        ids, rows = self.ids[permitted], self._rows[permitted]
        found = nothing(len(vectors), k)
        if k and len(vectors):
            near = _nearest(vectors @ rows.T, k + _SPARE)
            for query, some in enumerate(near):
                found[0][query], found[1][query] = best(ids[some], cosines(rows[some], vectors[query]), k)
        return found


def _nearest(scores: npt.NDArray[np.float32], count: int) -> npt.NDArray[np.intp]:
    """The columns of the highest scores of each row, in no order.   scores: (Q, N)."""
    if scores.shape[1] <= count:
        return np.tile(np.arange(scores.shape[1]), (len(scores), 1))
    return np.argpartition(-scores, count, axis=1)[:, :count]
