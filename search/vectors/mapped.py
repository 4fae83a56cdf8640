"""Vectors searched in the files where they were published, with what changed since in memory on top."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from search.vectors import EXACT, cosines, normalize, pairs, places_of, scan
from search.vectors.laid import LaidOver
from search.vectors.pages import Pages

if TYPE_CHECKING:
    import numpy.typing as npt

    from search.types import Filter, Halves, Ids, Vectors
    from search.vectors.coarse import Coarse
    from search.vectors.lists import Lists
    from search.vectors.pairs import Pairs
    from search.vectors.scan import Bits, Positions

    Mask = npt.NDArray[np.bool_]

_SPARE = 32  # candidates beyond k: float16 rows are unit only to their precision, which may swap near ties
_MOST_DROPPED = 8  # one in so many candidates may be buried before they are looked for anew
_APART = 65_536  # bytes of file for each row that is read: from there on most of what lies between is of no use


class MappedIndex(LaidOver):
    """Rows that never change, laid over by what was added, replaced and removed. See VectorIndex for the contract.

    A score is the cosine of the row as it is kept, scaled to length 1 in float32, whichever part it comes from.
    """

    def __init__(self, ids: Ids, halves: Halves, coarse: Coarse | Lists | None = None) -> None:
        """ids: (N,), ascending.   halves: (N, D), contiguous; both may be mapped and are only read.

        coarse: codes of these rows, all together or in lists; without, every row is scored.
        """
        super().__init__(halves.shape[1])
        self._ids = ids
        self._halves = halves
        self._pages = Pages(halves)
        self._coarse = coarse
        self._alive: Mask | None = None  # None: all

    @property
    def kind(self) -> str:
        return EXACT if self._coarse is None else self._coarse.kind

    def __len__(self) -> int:
        alive = len(self._ids) if self._alive is None else int(np.count_nonzero(self._alive))
        return alive + len(self._new)

    @property
    def deepest(self) -> int:
        return len(self)

    @property
    def size_bytes(self) -> int:
        codes = self._coarse.size_bytes if self._coarse else 0
        return self._ids.nbytes + self._halves.nbytes + codes + self._new.size_bytes

    def _bury(self, ids: Ids) -> None:
        """Leave out rows of the base from now on."""
        places = self._places(ids)
        if len(places):
            alive = np.ones(len(self._ids), bool) if self._alive is None else self._alive
            alive[places] = False
            self._alive = alive

    def _places(self, ids: Ids) -> Positions:
        """Where ids are in the base; those that are not there are left out."""
        places = places_of(ids, self._ids)[0]
        # np.unique imports numpy.ma, which takes longer than a search.
        return np.unique(places) if len(places) else places

    @property
    def ids(self) -> Ids:
        own = self._ids if self._alive is None else self._ids[self._alive]
        return np.concatenate([own, self._new.ids])

    def exact(self) -> MappedIndex:
        twin = MappedIndex(self._ids, self._halves)
        twin._alive, twin._new = self._alive, self._new
        return twin

    def sample(self, size: int) -> tuple[Ids, Vectors]:
        every = max(1, len(self) // max(size, 1))
        alive = np.arange(len(self._ids)) if self._alive is None else np.flatnonzero(self._alive)
        places = alive[::every]
        ids, vectors = self._new.sample(max(1, len(self._new) // every))
        return np.concatenate([self._ids[places], ids]), np.concatenate([normalize(self._rows(places)), vectors])

    def vectors(self, ids: Ids) -> Vectors:
        found = self._new.vectors(ids)
        places, known = places_of(ids, self._ids)
        if self._alive is not None:
            known[known], places = self._alive[places], places[self._alive[places]]
        found[known] = normalize(self._rows(places))
        return found

    def near_pairs(self, k: int, *, least: float, within: Ids | None = None) -> Pairs:
        ids = np.sort(self.ids if within is None else np.intersect1d(self.ids, within))
        found = pairs.near_rows(lambda some: self.vectors(ids[some]), len(ids), k, least)
        return found._replace(first=ids[found.first], second=ids[found.second])

    def prepare(self) -> None:
        if len(self._ids) > scan.FEW:
            scan.prepare()

    def _scored(
        self, vectors: Vectors, k: int, within: Ids | None, where: Filter | None
    ) -> Iterator[tuple[Ids, npt.NDArray[np.float32]]]:
        for vector, places in zip(vectors, self._nearest(vectors, k + _SPARE, within), strict=True):
            yield self._ids[places], cosines(normalize(self._halves[places]), vector)

    def _nearest(self, vectors: Vectors, count: int, within: Ids | None) -> list[Positions]:
        """Where the `count` best rows of the base are for each query, and a few more or less by rounding."""
        if within is None:
            if self._coarse is not None:
                return [self._by_codes(vector, count, self._coarse) for vector in vectors]
            return scan.top(self._halves, vectors, count, permitted=_bits(self._alive))
        places = self._permitted(within)
        if len(places) <= scan.FEW:
            near = scan.top(self._rows(places), vectors, count)
            return [places[some] for some in near]
        bits = _bits(_mask(places, len(self._ids)))
        if self._coarse is None or len(places) < self._coarse.worth:
            return scan.top(self._halves, vectors, count, permitted=bits)
        wanted = min(self._coarse.depth(len(places), count), len(places))
        return [self._by_permitted_codes(v, count, self._coarse, wanted, bits) for v in vectors]

    def _by_codes(self, vector: Vectors, count: int, coarse: Coarse | Lists) -> Positions:
        """Everything permitted; rows that are buried are left out afterwards, which is faster where they are few."""
        wanted = min(coarse.depth(len(self._ids), count), len(self._ids))
        places = coarse.search(vector, wanted)
        if self._alive is None:
            return self._refined(vector, places, count, wanted, None)
        left = places[self._alive[places]]
        dropped = len(places) - len(left)
        if len(places) == wanted and dropped <= wanted // _MOST_DROPPED:
            return self._refined(vector, left, count, len(left), None)
        # Codes tell far rows apart worse than near ones, and it is the near ones that are buried.
        alive = int(np.count_nonzero(self._alive))
        deeper = wanted + 2 * min(len(self._alive) - alive, 8 * dropped)
        return self._by_permitted_codes(vector, count, coarse, min(deeper, alive), _bits(self._alive))

    def _by_permitted_codes(
        self, vector: Vectors, count: int, coarse: Coarse | Lists, wanted: int, bits: Bits | None
    ) -> Positions:
        places = coarse.search(vector, wanted, permitted=bits) if wanted else np.empty(0, np.int64)
        return self._refined(vector, places, count, wanted, bits)

    def _refined(
        self, vector: Vectors, places: Positions, count: int, wanted: int, bits: Bits | None
    ) -> Positions:
        """The best of some rows by their exact scores; of all permitted ones where the codes named too few.

        FAISS's fast scan leaves rows out whose quantized score is the lowest there is, as all are among equal ones.
        """
        if len(places) < wanted:
            return scan.scanned(self._halves, vector, count, permitted=bits)
        places = np.sort(places)  # the file is read forwards
        return places[scan.scanned(self._rows(places), vector, count)]

    def _rows(self, places: Positions) -> Halves:
        """Some rows of the base; the pages of few among very many are asked for first."""
        width = self._halves.strides[0]
        if len(places) * _APART < self._halves.nbytes:
            self._pages.ask(np.sort(places) * width, width)
        return self._halves[places]

    def _permitted(self, within: Ids) -> Positions:
        if len(within) <= scan.FEW and not self._is_dense:
            places = self._places(within)
        elif self._is_dense:
            inside = within[(within >= self._ids[0]) & (within <= self._ids[-1])] - self._ids[0]
            places = np.flatnonzero(_mask(inside, len(self._ids)))
        else:
            places = np.flatnonzero(np.isin(self._ids, within))
        return places if self._alive is None else places[self._alive[places]]

    @cached_property
    def _is_dense(self) -> bool:
        """Whether ids have no gaps, so that where one is needs no looking up."""
        return len(self._ids) > 0 and int(self._ids[-1] - self._ids[0]) == len(self._ids) - 1


def _mask(places: Positions, count: int) -> Mask:
    mask = np.zeros(count, bool)
    mask[places] = True
    return mask


def _bits(mask: Mask | None) -> Bits | None:
    return None if mask is None else np.packbits(mask, bitorder="little")
