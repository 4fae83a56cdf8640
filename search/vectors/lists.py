"""Codes of vectors in lists, of which a query reads the nearest: for more vectors than can all be looked at.

An inverted file (Jégou et al., IEEE TPAMI 2011): each row is dealt to the nearest of L centres, and what is left of
it beside its centre is coded in 4 bits for every four dimensions, as in search.vectors.coarse. A query reads `probe` of
the lists, and the rows that their codes name are scored exactly. Every list lies in one piece, so that a slow disk is
read in as many strides as lists, and one page for each row that is scored.

How many lists: learned with the file. Queries that lie off the data as texts lie off images are drawn, what an exact
search finds for them is kept while all rows pass by, and so many lists are read that REACHED of it lies in them. Texts
need far more of them than photos do: their neighbours are scattered.

    lists       each: ceil(n / 32) blocks of 32 rows, W / 8 bytes a row; as many int64: where they are in the file of
                vectors, ascending; room is left at the end, as no list fills its last block
    sizes       (L,) int64: rows in each list
    mean, rotation, centroids   float32, as in a file of codes
    centres     (L, W) float32
"""

from __future__ import annotations

import weakref
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from math import log2
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import numpy as np

from search.vectors import LISTS, normalize
from search.vectors.coarse import (
    BLOCK,
    FLOAT,
    Codebook,
    Layout,
    interleaved,
    interleaving,
    known_rows,
    let_go,
    to_bytes,
    to_codes,
)
from search.vectors.pages import Pages

if TYPE_CHECKING:
    import numpy.typing as npt

    from search.types import Halves, Ids, Vectors
    from search.vectors.coarse import Codes
    from search.vectors.scan import Bits, Positions

REACHED = 0.97
"""Of the ten best rows of text-like queries, the share that lies in the lists that are read."""

_PLACE = np.dtype("<i8")
_LEARNED = 32  # rows to learn each centre from
_ROUNDS = 6  # of k-means
_CHUNK = 8192  # rows dealt at a time
_FEW = 256  # centres that are all looked at for each row
_LOOKED = 6  # groups of centres that are looked at where there are more
_GATHERED = 65_536  # rows written at a time
_QUERIES, _BEST = 128, 10  # to learn the number of lists from
_LEAST_DEPTH, _DEPTH = 500, 2_500  # rows scored exactly: at least, and one of so many
_SPARE = 4  # times as many rows are read as are wanted, at least
_WORTH = 64  # one permitted row in so many, and they are worth looking for in the lists


def lists_for(count: int) -> int:
    """Return how many lists for so many rows: a power of two near 1.2 times the root, 1,024 for a million."""
    return 1 << int(max(0, round(log2(max(count, 1)) / 2 + 0.3)))


@dataclass(frozen=True, slots=True)
class ListLayout:
    """Where things are in a file of lists.   count: rows.   dim: their width."""

    count: int
    dim: int
    lists: int

    @property
    def code(self) -> Layout:
        """That of a file of codes, which says how wide they are."""
        return Layout(self.count, self.dim)

    @property
    def code_bytes(self) -> int:
        return self.code.groups // 2

    @property
    def rows(self) -> int:
        """Rows there is room for, however they are dealt to lists of whole blocks."""
        return (self.count + (BLOCK - 1) * self.lists) // BLOCK * BLOCK

    @property
    def sizes_start(self) -> int:
        return self.rows * (self.code_bytes + _PLACE.itemsize)

    @property
    def book_start(self) -> int:
        return self.sizes_start + self.lists * _PLACE.itemsize

    @property
    def centres_start(self) -> int:
        return self.book_start + self.code.book_bytes

    @property
    def size_bytes(self) -> int:
        return self.centres_start + self.lists * self.code.width * FLOAT.itemsize


@dataclass(frozen=True, slots=True)
class ListBook:
    """How rows are dealt and coded.   code: of what is left beside a centre.   centres: (L, W), rotated as rows are."""

    code: Codebook
    centres: Vectors

    @classmethod
    def learn(cls, halves: Halves, lists: int) -> ListBook:
        """Learn centres and a code from rows taken evenly.   halves: (N, D), N ≥ lists."""
        import faiss

        rows = halves[:: max(1, len(halves) // (lists * _LEARNED))].astype(np.float32)
        mean = rows.mean(axis=0)
        rows -= mean
        means: Any = faiss.Kmeans(rows.shape[1], lists, niter=_ROUNDS, seed=1)
        means.cp.min_points_per_centroid, means.cp.max_points_per_centroid = 1, len(rows)
        means.train(rows)
        centres = means.centroids
        rows -= centres[means.index.search(rows, 1)[1][:, 0]]
        code = Codebook.of(rows, mean)
        return cls(code, centres @ code.rotation)

    def ways(self) -> tuple[Vectors, npt.NDArray[np.float32]]:
        """Return which way each centre lies from the origin, (L, W), and how far, (L,).

        Which lists promise most is told by the way alone: centres of rows that are much alike are farther off, which
        says nothing of a query. By centres as they are, half as many lists again have to be read.
        """
        whole = self.centres + self.code.mean @ self.code.rotation
        return normalize(whole), np.linalg.norm(whole, axis=1).astype(np.float32)

    def to_bytes(self) -> bytes:
        return self.code.to_bytes() + np.ascontiguousarray(self.centres, FLOAT).tobytes()


# ---- writing


@dataclass(frozen=True, slots=True)
class PreviousLists:
    """A file of lists and the vectors it was made from, to take what still holds from it."""

    ids: Ids
    halves: Halves
    codes: Lists


class Trial:
    """Queries off the data as texts are off images, and what an exact search finds for them so far."""

    def __init__(self, halves: Halves) -> None:
        rows = halves[:: max(1, len(halves) // (3 * _QUERIES))].astype(np.float32)
        count = min(_QUERIES, len(rows) // 3)
        meant, one, other = np.split(rows[: 3 * count], 3)
        noise = np.random.default_rng(0).standard_normal(meant.shape).astype(np.float32)
        # What is meant, what lies elsewhere among the rows, and what is in no direction of theirs: a cosine of 0.43
        # with the row that is meant, where texts have 0.3 with their photos.
        self.queries = normalize(0.4 * meant + 0.5 * normalize(one - other) + 0.68 * normalize(noise))
        self._places = np.empty((count, 0), np.int64)
        self._scores = np.empty((count, 0), np.float32)

    def see(self, rows: Vectors, start: int) -> None:
        """Account for rows that begin at a place."""
        places = np.broadcast_to(np.arange(start, start + len(rows)), (len(self.queries), len(rows)))
        scores = np.concatenate([self._scores, self.queries @ rows.T], axis=1)
        places = np.concatenate([self._places, places], axis=1)
        best = np.argpartition(-scores, min(_BEST, scores.shape[1]) - 1, axis=1)[:, :_BEST]
        self._scores, self._places = np.take_along_axis(scores, best, 1), np.take_along_axis(places, best, 1)

    def probe(self, book: ListBook, dealt: npt.NDArray[np.int32]) -> int:
        """Return how many lists must be read for REACHED of what was found."""
        if not self._places.size:
            return len(book.centres)
        scores = self.queries @ book.code.rotation @ book.ways()[0].T  # (Q, L)
        own = np.take_along_axis(scores, dealt[self._places].astype(np.int64), 1)  # (Q, 10)
        before = (scores[:, None, :] > own[:, :, None]).sum(axis=2)
        return int(np.quantile(before, REACHED, method="higher")) + 1


class Dealer:
    """Deals rows to their nearest centre; of many centres, those in the groups nearest to a row are looked at.

    Of 4,096 centres that is a tenth, and some rows in a hundred get their second nearest.
    """

    def __init__(self, centres: Vectors) -> None:
        import faiss

        count = 1 if len(centres) <= _FEW else 1 << round(log2(len(centres)) / 2)
        groups: Any = faiss.Kmeans(centres.shape[1], count, niter=_ROUNDS, seed=1, min_points_per_centroid=1)
        groups.train(np.ascontiguousarray(centres))
        own = groups.index.search(np.ascontiguousarray(centres), 1)[1][:, 0]
        self._groups = groups.index
        self._members = [np.flatnonzero(own == group) for group in range(count)]
        self._centres = [centres[members] for members in self._members]
        self._lengths = [(rows**2).sum(axis=1) / 2 for rows in self._centres]

    def deal(self, rows: Vectors) -> npt.NDArray[np.int32]:
        """Return the number of a centre for each row, (N,).   rows: (N, W)."""
        near = self._groups.search(rows, min(_LOOKED, len(self._members)))[1]
        dealt, apart = np.zeros(len(rows), np.int32), np.full(len(rows), np.inf, np.float32)
        for group, members in enumerate(self._members):
            some = np.flatnonzero((near == group).any(axis=1))
            if len(some) and len(members):
                far = self._lengths[group] - rows[some] @ self._centres[group].T
                nearest = far.argmin(axis=1)
                least = far[np.arange(len(some)), nearest]
                better = least < apart[some]
                dealt[some[better]], apart[some[better]] = members[nearest[better]], least[better]
        return dealt


class Filing:
    """A file of lists in the making. `probe` is known once all parts were written."""

    def __init__(self, ids: Ids, halves: Halves, book: ListBook, previous: PreviousLists | None = None) -> None:
        """previous: made with the same `book`; what is known of rows that are as they were is taken from there."""
        self._ids, self._halves, self._book, self._previous = ids, halves, book, previous
        self.layout = ListLayout(len(ids), halves.shape[1], len(book.centres))
        self.probe = previous.codes.probe if previous else 0
        self._trial = None if previous else Trial(halves)
        self._dealt = np.empty(len(ids), np.int32)

    def parts(self, scratch: Path) -> Iterator[bytes]:
        """Yield the content, in parts, the first ones empty while rows are coded.   scratch: a folder for the codes.

        16 bytes a row are in memory meanwhile, and the book.
        """
        from tempfile import TemporaryFile

        with TemporaryFile(dir=scratch) as file:
            for _ in self._code(file):
                yield b""
            if self._trial is not None:
                self.probe = self._trial.probe(self._book, self._dealt)
            file.flush()
            codes = np.memmap(file, np.uint8, "r", shape=(len(self._ids), self.layout.code_bytes))
            yield from self._lists(codes)
        yield self._sizes.astype(_PLACE).tobytes()
        yield self._book.to_bytes()

    @property
    def _sizes(self) -> npt.NDArray[np.int64]:
        return np.bincount(self._dealt, minlength=len(self._book.centres))

    def _code(self, file: IO[bytes]) -> Iterator[None]:
        """Deal and code all rows, in their order."""
        dealer, quantizer = Dealer(self._book.centres), self._book.code.quantizer()
        for start in range(0, len(self._ids), _CHUNK):
            part = slice(start, min(start + _CHUNK, len(self._ids)))
            halves, dealt = self._halves[part], self._dealt[part]
            packed = np.empty((len(halves), self.layout.code_bytes), np.uint8)
            known, at = known_rows(self._ids[part], halves, self._previous)
            if self._previous is not None and known.any():
                dealt[known], packed[known] = self._previous.codes.filed(at)
            if not known.all():
                rows = halves[~known].astype(np.float32)
                if self._trial is not None:
                    self._trial.see(rows, start)
                rotated: Vectors = np.matmul(rows - self._book.code.mean, self._book.code.rotation)
                own = dealer.deal(rotated)
                dealt[~known] = own
                packed[~known] = quantizer.compute_codes(rotated - self._book.centres[own])
            file.write(packed.tobytes())
            yield

    def _lists(self, packed: npt.NDArray[np.uint8]) -> Iterator[bytes]:
        """Yield the lists one after the other, some together, and then the room that is left."""
        order = np.argsort(self._dealt, kind="stable")
        ends = np.cumsum(self._sizes)
        mixing, written, start = interleaving(self.layout.code.groups), 0, 0
        while start < len(ends):
            first = int(ends[start - 1]) if start else 0
            stop = max(start + 1, int(np.searchsorted(ends, first + _GATHERED, side="right")))
            places = order[first : ends[stop - 1]]
            codes = packed[places]
            cuts = ends[start : stop - 1] - first
            for own, some in zip(np.split(places, cuts), np.split(codes, cuts), strict=True):
                content = _one_list(own, some, mixing)
                written += len(content)
                yield content
            start = stop
        yield bytes(self.layout.sizes_start - written)


def _one_list(places: Positions, packed: npt.NDArray[np.uint8], mixing: npt.NDArray[np.int64]) -> bytes:
    if not len(places):
        return b""
    padded = np.zeros(-(-len(places) // BLOCK) * BLOCK, _PLACE)
    padded[: len(places)] = places
    return interleaved(to_codes(packed), mixing).tobytes() + padded.tobytes()


# ---- reading


class Lists:
    """A file of lists, mapped. Searching it gives places in the file of vectors, best first by a rough score."""

    kind = LISTS

    def __init__(self, content: npt.NDArray[np.uint8], layout: ListLayout, probe: int) -> None:
        """content: the file, (layout.size_bytes,), contiguous; it may be mapped and stays where it is.

        probe: lists to read for a query.   Raises ValueError if its lists can't be what was written.
        """
        sizes = content[layout.sizes_start : layout.book_start].view(_PLACE)
        if len(content) != layout.size_bytes or sizes.min() < 0 or sizes.max() > layout.count:
            raise ValueError("lists of an impossible size")
        if sum(sizes.tolist()) != layout.count or not 0 < probe <= layout.lists:
            raise ValueError("lists that are not of so many rows")
        self._content = content
        self._layout = layout
        self._sizes = sizes.astype(np.int64)
        rooms = -(-self._sizes // BLOCK) * BLOCK
        self._rooms = rooms  # of each list, in rows
        self._starts = np.cumsum(rooms) - rooms
        self._pages = Pages(content)
        self.probe = probe

    @property
    def size_bytes(self) -> int:
        return len(self._content)

    @property
    def worth(self) -> int:
        """Permitted rows from which a search here is faster than scoring each."""
        return self._layout.count // _WORTH

    @cached_property
    def book(self) -> ListBook:
        """How its rows were dealt and coded."""
        layout = self._layout
        code = Codebook.parse(self._content[layout.book_start : layout.centres_start], layout.code)
        return ListBook(code, self._content[layout.centres_start :].view(FLOAT).reshape(layout.lists, -1))

    def depth(self, count: int, k: int) -> int:
        """Return how many of `count` rows to score exactly for the k best ones."""
        return max(_LEAST_DEPTH, count // _DEPTH) + 8 * k

    def filed(self, at: Positions) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.uint8]]:
        """Return in which list rows are, (len(at),), and their codes, two to a byte."""
        slots = self._slots[at]
        lists = np.searchsorted(self._starts, slots, side="right") - 1
        inside = slots - self._starts[lists]
        width = self._layout.code_bytes
        blocks = self._starts[lists] * (width + _PLACE.itemsize) + inside // BLOCK * BLOCK * width
        nibbles = self._mixing.reshape(BLOCK, -1)[inside % BLOCK]  # half bytes of its block that are a row's codes
        raw = self._content[blocks[:, None] + nibbles // 2]
        codes: Codes = (raw >> (nibbles % 2 * 4).astype(np.uint8)) & np.uint8(15)
        return lists.astype(np.int32), to_bytes(codes)

    @cached_property
    def _mixing(self) -> npt.NDArray[np.int64]:
        return interleaving(self._layout.code.groups)

    @cached_property
    def _slots(self) -> npt.NDArray[np.int64]:
        """Where in the lists each row of the file of vectors is, counted with the room that lists have."""
        slots = np.zeros(self._layout.count, np.int64)
        for start, size, places in zip(self._starts, self._sizes, self._places(), strict=True):
            slots[places] = start + np.arange(size)
        return slots

    def _places(self) -> Iterator[Positions]:
        width = self._layout.code_bytes
        for start, size in zip(self._starts.tolist(), self._sizes.tolist(), strict=True):
            room = -(-size // BLOCK) * BLOCK
            offset = start * (width + _PLACE.itemsize) + room * width
            yield self._content[offset : offset + size * _PLACE.itemsize].view(_PLACE)

    def search(self, query: Vectors, count: int, *, permitted: Bits | None = None) -> Positions:
        """Return the places of up to `count` rows that promise most.

        query: (D,) float32.   permitted: one bit a row, the lowest first; the fewer there are, the more lists are read.
        """
        share = 1.0 if permitted is None else int(np.bitwise_count(permitted).sum()) / self._layout.count
        count = min(count, self._layout.count)
        enough = _SPARE * count / self._layout.count
        probe = min(self._layout.lists, int(max(self.probe, enough * self._layout.lists) / max(share, 1e-9)) + 1)
        found = self._found(query, count, probe, permitted)
        if len(found) < count and probe < self._layout.lists:
            # Lists that are short, or hold few that are permitted.
            found = self._found(query, count, self._layout.lists, permitted)
        return found

    def _found(self, query: Vectors, count: int, probe: int, permitted: Bits | None) -> Positions:
        import faiss

        rotated = np.ascontiguousarray(query[None] @ self.book.code.rotation, np.float32)
        lists, offsets = self._near(rotated[0], probe)
        self._fetch(lists)
        options: dict[str, Any] = {"nprobe": probe}
        if permitted is not None:
            options["sel"] = faiss.IDSelectorBitmap(np.ascontiguousarray(permitted))  # type: ignore[call-arg, arg-type]
        params: Any = faiss.SearchParametersIVF(**options)
        places, scores = np.full(count, -1, np.int64), np.empty(count, np.float32)
        given, taken = (faiss.swig_ptr(array) for array in (lists, offsets)), (scores, places)
        self._index.search_preassigned_c(
            1, faiss.swig_ptr(rotated), count, *given, *(faiss.swig_ptr(array) for array in taken), False, params
        )
        return places[(places >= 0) & (places < self._layout.count)]

    def _near(self, rotated: Vectors, probe: int) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float32]]:
        """Return the lists that promise most for a query, best first, and what its rows' scores have in common."""
        ways, lengths = self._ways
        toward = ways @ rotated
        near = np.argpartition(-toward, probe - 1)[:probe]
        near = near[np.argsort(-toward[near], kind="stable")].astype(np.int64)
        return near, toward[near] * lengths[near]

    def _fetch(self, lists: npt.NDArray[np.int64]) -> None:
        """Have lists read, each in one piece."""
        filled = np.sort(lists[self._sizes[lists] > 0])
        row = self._layout.code_bytes + _PLACE.itemsize
        self._pages.ask(self._starts[filled] * row, self._rooms[filled] * row)

    @cached_property
    def _ways(self) -> tuple[Vectors, npt.NDArray[np.float32]]:
        return self.book.ways()

    @cached_property
    def _index(self) -> Any:
        """An inverted file over the mapped one, which is told what lists to read."""
        import faiss

        layout, centroids = self._layout, np.ascontiguousarray(self.book.code.centroids)
        none = faiss.IndexFlatIP(layout.code.width)
        index: Any = faiss.IndexIVFPQFastScan(
            none, layout.code.width, layout.lists, layout.code.groups, 4, faiss.METRIC_INNER_PRODUCT
        )
        index.by_residual = True
        faiss.copy_array_to_vector(centroids.reshape(-1), index.pq.centroids)
        lists = self._inverted()
        weakref.finalize(self, let_go, lists, self._content)
        index.replace_invlists(lists, False)
        index.is_trained, index.ntotal = True, layout.count
        return index

    def _inverted(self) -> Any:
        """The mapped file as FAISS has it: how long each list is and where it begins."""
        import faiss

        layout = self._layout
        lists: Any = faiss.OnDiskInvertedLists(layout.lists, layout.code_bytes, "")
        lists.lists.clear()
        for start, size in zip(self._starts.tolist(), self._sizes.tolist(), strict=True):
            place = faiss.OnDiskOneList()
            place.size, place.capacity = size, -(-size // BLOCK) * BLOCK
            place.offset = start * (layout.code_bytes + _PLACE.itemsize)
            lists.lists.push_back(place)
        lists.read_only, lists.prefetch_nthread = True, 0
        lists.totsize = len(self._content)
        lists.ptr = faiss.swig_ptr(self._content)
        return lists
