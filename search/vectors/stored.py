"""Vectors searched on a server, with what was committed since they were brought there in memory on top."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Protocol

import numpy as np

from search.errors import IndexUnavailable
from search.vectors import cosines, places_of
from search.vectors.exact import ExactIndex
from search.vectors.laid import LaidOver
from search.vectors.stores import pieces
from search.vectors.stores.declared import pushed

if TYPE_CHECKING:
    import numpy.typing as npt

    from search.types import Filter, Ids, Vectors
    from search.vectors.pairs import Pairs
    from search.vectors.stores import Store
    from search.vectors.stores.declared import Test

_FEW = 1000  # permitted photos whose vectors are rather had from the catalog, and all scored
MOST_LISTED = 100_000
"""Permitted ids that are sent to a server, if need be."""
_SPARE = 32  # candidates beyond k, whose order half precision may have got wrong
_DEEPER = 4  # times as many candidates where too few are permitted
_PART = 4096  # vectors taken from the catalog at a time


class Rows(Protocol):
    """Where the vectors themselves are: the catalog, or what stands for it."""

    def vectors(self, ids: Ids) -> tuple[Ids, Vectors]:
        """Return those of some ids that there are, ascending, and their unit rows."""

    def count(self) -> int:
        """Return how many photos have one."""

    def ids(self) -> Ids:
        """Return the ids of all photos that may be found, ascending."""

    def sample(self, size: int) -> tuple[Ids, Vectors]:
        """Return about so many, taken evenly: ids and unit rows."""

    def cameras(self) -> Sequence[str]:
        """Return the names of all cameras."""


class StoredIndex(LaidOver):
    """Rows on a server, laid over by what was added, replaced and removed since. See VectorIndex for the contract.

    The server names candidates; the score of each is computed from its vector in the catalog, so that it is the same
    by whatever index it was found, and a photo that is gone is not found whatever the server has.
    """

    def __init__(self, store: Store, rows: Rows, dim: int) -> None:
        super().__init__(dim)
        self.store = store
        self._rows = rows
        self._count: int | None = None  # not known yet
        self._buried = np.empty(0, np.int64)  # ids whose vector on the server does not count, ascending

    @property
    def kind(self) -> str:
        return self.store.kind

    def __len__(self) -> int:
        if self._count is None:
            self._count = self._rows.count()
        return self._count

    @property
    def deepest(self) -> int:
        return self.store.deepest

    @property
    def size_bytes(self) -> int:
        return self.store.size_bytes() + self._new.size_bytes

    def _bury(self, ids: Ids) -> None:
        """Leave out what the server has of these ids from now on."""
        self._buried = np.union1d(self._buried, ids)
        self._count = None

    @property
    def _held(self) -> int:
        """How many on the server count."""
        return len(self) - len(self._new)

    def bury_strangers(self) -> None:
        """Leave out what the server has of photos that were forgotten for good."""
        self._bury(np.setdiff1d(self.store.ids(), self._rows.ids(), assume_unique=True))

    @property
    def ids(self) -> Ids:
        return np.concatenate([np.setdiff1d(self.store.ids(), self._buried), self._new.ids])

    def exact(self) -> ExactIndex:
        index = ExactIndex(self.dim)
        ids = self._rows.ids()
        for start in range(0, len(ids), _PART):
            index.add(*self._rows.vectors(ids[start : start + _PART]))
        return index

    def sample(self, size: int) -> tuple[Ids, Vectors]:
        return self._rows.sample(size)

    def vectors(self, ids: Ids) -> Vectors:
        found = np.zeros((len(ids), self.dim), np.float32)
        known, rows = self._rows.vectors(np.unique(ids))
        places, there = places_of(ids, known)
        found[there] = rows[places]
        return found

    def near_pairs(self, k: int, *, least: float, within: Ids | None = None) -> Pairs:
        return self.exact().near_pairs(k, least=least, within=within)

    def prepare(self) -> None:
        """The server is prepared."""

    def _scored(
        self, vectors: Vectors, k: int, within: Ids | None, where: Filter | None
    ) -> Iterator[tuple[Ids, npt.NDArray[np.float32]]]:
        candidates = self._candidates(vectors, k, within, where)
        known, rows = self._rows.vectors(np.unique(np.concatenate([*candidates, np.empty(0, np.int64)])))
        for vector, some in zip(vectors, candidates, strict=True):
            there = np.isin(known, some)
            yield known[there], cosines(rows[there], vector)

    # ---- candidates

    def _candidates(self, vectors: Vectors, k: int, within: Ids | None, where: Filter | None) -> list[Ids]:
        """The ids on the server, for each query, among which its k best are, as far as the server finds them."""
        if within is None:
            return self._completed(self._permitted(vectors, k, None, None), vectors, k, None)
        own = np.setdiff1d(within, self._buried)
        if len(own) <= max(_FEW, 2 * k):
            return [own for _ in vectors]
        test = pushed(where, self._rows.cameras()) if where else None
        if test is None and self._depth(k, own) > self.store.deepest and len(own) <= MOST_LISTED:
            return self._listed(vectors, k, own)
        return self._completed(self._permitted(vectors, k, own, test), vectors, k, own)

    def _depth(self, k: int, within: Ids) -> int:
        """How many of the nearest there are to look at for k that are permitted, if these lie evenly."""
        return 2 * (k + _SPARE) * self._held // max(len(within), 1)

    def _permitted(self, vectors: Vectors, k: int, within: Ids | None, test: Test | None) -> list[Ids]:
        """Ask for the nearest by what the server can tell, and deeper while too few of them are permitted."""
        evenly = self._depth(k, within) if within is not None and test is None else 0
        count = max(evenly, k + _SPARE + min(len(self._buried), k))
        found: list[Ids] = [np.empty(0, np.int64) for _ in vectors]
        left = np.arange(len(vectors))
        while len(left):
            count = min(count, self.store.deepest)
            again = []
            for number, some in zip(
                left.tolist(), self.store.search(vectors[left], count, test=test), strict=True
            ):
                passing = some[~np.isin(some, self._buried)]
                found[number] = passing if within is None else passing[np.isin(passing, within)]
                if len(found[number]) < k and len(some) == count:
                    again.append(number)
            if count == self.store.deepest:
                break
            left, count = np.array(again, np.int64), _DEEPER * count
        return found

    def _completed(self, found: list[Ids], vectors: Vectors, k: int, within: Ids | None) -> list[Ids]:
        """Put others in the place of those that are too few, where there must be more."""
        most = min(k, self._held if within is None else len(within))
        if within is None and self._held > MOST_LISTED and k <= self.store.deepest:
            most = min(most, self.store.deepest - len(self._buried))  # so many of the very nearest will do
        short = [number for number, some in enumerate(found) if len(some) < most]
        if short:
            own = np.setdiff1d(self._rows.ids(), self._buried) if within is None else within
            for number, some in zip(short, self._listed(vectors[short], k, own), strict=True):
                found[number] = some
        return found

    def _listed(self, vectors: Vectors, k: int, within: Ids) -> list[Ids]:
        """Ask for the nearest of ids that are sent along, some at a time."""
        if len(within) > MOST_LISTED and k > self.store.deepest:
            raise IndexUnavailable(
                f"{self.store.place} names no more than the {self.store.deepest} nearest photos at a time",
                hint=f"ask for fewer, or narrow the search to {MOST_LISTED} photos",
            )
        if len(within) > MOST_LISTED:
            raise IndexUnavailable(
                f"{self.store.place} finds too few of the {len(within)} photos that pass the filter",
                hint="narrow the filter by date, camera, place, rating or format, which it knows",
            )
        if k + _SPARE > self.store.deepest:
            return [within for _ in vectors]
        parts = [self.store.search(vectors, k + _SPARE, within=some) for some in pieces(within)]
        return [np.concatenate(some) for some in zip(*parts, strict=True)] if parts else [within for _ in vectors]
