"""Codes of 4 bits for every four dimensions of a file of vectors, which tell the few rows that are worth scoring.

Product quantization (Jégou et al., IEEE TPAMI 2011) in FAISS's fast-scan layout, after a rotation to principal axes
that are shared out so that every group of four carries about the same variance. A 16th of float32's size, read
in one pass; the rows it names are then scored exactly, so it can cost a hit its place but never its score.

How many rows: on a million rows whose queries are off the data as texts are off images, the codes must name about
3,000 for 99 of 100 true hits to be among them, and in proportion for fewer rows (bench/index.py); `depth` asks for
more than that.

    codes       (ceil(N / 32) blocks) of 32 rows, W / 8 bytes a row, W the dimensions rounded up to whole bytes
    positions   as many int64: 0, 1, 2…
    mean        (D,) float32
    rotation    (D, W) float32
    centroids   (W / 4, 16, 4) float32
"""

from __future__ import annotations

import weakref
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from search.vectors import CODES, places_of

if TYPE_CHECKING:
    import numpy.typing as npt

    from search.types import Halves, Ids, Vectors
    from search.vectors.lists import PreviousLists
    from search.vectors.scan import Bits, Positions

    Codes = npt.NDArray[np.uint8]
    """(N, M) values 0…15."""

LEAST = 256
"""Vectors below which there is nothing to learn a code from."""

BLOCK = 32  # rows that are interleaved
_GROUP = 4  # dimensions to a code
_CENTROIDS = 16
_SAMPLE = 16_384  # rows the code is learned from
_CHUNK = 8192  # rows coded at a time; whole blocks
_LEAST_DEPTH, _DEPTH = 1000, 250  # at least, and one row of so many
_WARM = 3  # searches after which the codes are worth copying into memory
FLOAT = np.dtype("<f4")


@dataclass(frozen=True, slots=True)
class Layout:
    """Where things are in a file of codes.   count: rows.   dim: their width."""

    count: int
    dim: int

    @property
    def width(self) -> int:
        return -(-self.dim // 8) * 8

    @property
    def groups(self) -> int:
        return self.width // _GROUP

    @property
    def rows(self) -> int:
        """Rows there is room for: whole blocks."""
        return -(-self.count // BLOCK) * BLOCK

    @property
    def codes_bytes(self) -> int:
        return self.rows * self.groups // 2

    @property
    def book_start(self) -> int:
        return self.codes_bytes + self.rows * 8

    @property
    def size_bytes(self) -> int:
        return self.book_start + self.book_bytes

    @property
    def book_bytes(self) -> int:
        floats = self.dim + self.dim * self.width + self.groups * _CENTROIDS * _GROUP
        return floats * FLOAT.itemsize


@dataclass(frozen=True, slots=True)
class Codebook:
    """How vectors become codes.   mean: (D,).   rotation: (D, W).   centroids: (M, 16, 4)."""

    mean: Vectors
    rotation: Vectors
    centroids: Vectors

    @classmethod
    def learn(cls, halves: Halves) -> Codebook:
        """Learn a code from rows taken evenly.   halves: (N, D), N ≥ LEAST."""
        rows = halves[:: -(-len(halves) // _SAMPLE)].astype(np.float32)
        mean = rows.mean(axis=0)
        return cls.of(rows - mean, mean)

    @classmethod
    def of(cls, rows: Vectors, mean: Vectors) -> Codebook:
        """Learn a code for rows from which something was taken away.   rows: (N, D).   mean: to be kept with it."""
        import faiss

        rotation = _rotation(rows)
        quantizer = faiss.ProductQuantizer(rotation.shape[1], rotation.shape[1] // _GROUP, 4)
        quantizer.cp.min_points_per_centroid = 1  # it would complain of few rows to its output
        quantizer.cp.max_points_per_centroid = _SAMPLE // _CENTROIDS
        quantizer.cp.niter = 12
        quantizer.train(rows[:: -(-len(rows) // _SAMPLE)] @ rotation)
        centroids = faiss.vector_to_array(quantizer.centroids).reshape(-1, _CENTROIDS, _GROUP)
        return cls(mean, rotation, centroids)

    def quantizer(self) -> Any:
        """Return FAISS's form of it."""
        import faiss

        quantizer = faiss.ProductQuantizer(self.rotation.shape[1], len(self.centroids), 4)
        faiss.copy_array_to_vector(np.ascontiguousarray(self.centroids).reshape(-1), quantizer.centroids)
        return quantizer

    def to_bytes(self) -> bytes:
        return b"".join(
            np.ascontiguousarray(a, FLOAT).tobytes() for a in (self.mean, self.rotation, self.centroids)
        )

    @classmethod
    def parse(cls, content: npt.NDArray[np.uint8], layout: Layout) -> Codebook:
        """Read it from the bytes at the end of a file."""
        floats = content.view(FLOAT)
        ends = [layout.dim, layout.dim * (1 + layout.width)]
        mean, rotation, centroids = np.split(floats, ends)
        return cls(mean, rotation.reshape(layout.dim, -1), centroids.reshape(-1, _CENTROIDS, _GROUP))


def _rotation(rows: Vectors) -> Vectors:
    """The principal axes of centred rows, dealt out to groups, each to the one with the least variance so far."""
    dim = rows.shape[1]
    width = Layout(0, dim).width
    variances, axes = np.linalg.eigh(rows.T @ rows / len(rows))
    rotation = np.zeros((dim, width), np.float32)
    taken = np.zeros(width // _GROUP, np.int64)
    carried = np.zeros(len(taken))  # the logarithm of a group's volume
    for axis in range(dim - 1, -1, -1):
        group = int(np.argmin(np.where(taken < _GROUP, carried, np.inf)))
        rotation[:, group * _GROUP + taken[group]] = axes[:, axis]
        taken[group] += 1
        carried[group] += np.log(max(float(variances[axis]), 1e-9)) + 21  # positive: an empty group comes first
    return rotation


# ---- writing


@dataclass(frozen=True, slots=True)
class Previous:
    """A file of codes and the vectors it was made from, to take what still holds from it."""

    ids: Ids
    halves: Halves
    codes: Coarse


def encode(ids: Ids, halves: Halves, book: Codebook, *, previous: Previous | None = None) -> Iterator[bytes]:
    """Yield the content of a file of codes, in parts.

    previous: made with the same `book`; the codes of rows that are as they were are taken from there.
    """
    layout = Layout(*halves.shape)
    quantizer, order = book.quantizer(), interleaving(layout.groups)
    for start in range(0, len(ids), _CHUNK):
        part = slice(start, start + _CHUNK)
        rows = halves[part]
        codes = np.zeros((len(rows), layout.groups), np.uint8)
        known, at = known_rows(ids[part], rows, previous)
        if previous is not None and known.any():
            codes[known] = previous.codes.codes(at)
        if not known.all():
            codes[~known] = _coded(rows[~known].astype(np.float32), book, quantizer)
        yield interleaved(codes, order).tobytes()
    yield np.arange(layout.rows, dtype="<i8").tobytes()
    yield book.to_bytes()


def known_rows(
    ids: Ids, rows: Halves, previous: Previous | PreviousLists | None
) -> tuple[npt.NDArray[np.bool_], Positions]:
    """Which rows are in the previous file bit for bit, and where."""
    if previous is None:
        return np.zeros(len(ids), bool), np.empty(0, np.int64)
    at, known = places_of(ids, previous.ids)
    same = (previous.halves[at].view(np.uint16) == rows[known].view(np.uint16)).all(axis=1)
    known[known] = same
    return known, at[same]


def _coded(rows: Vectors, book: Codebook, quantizer: Any) -> Codes:
    packed = quantizer.compute_codes(np.ascontiguousarray((rows - book.mean) @ book.rotation))
    return np.stack([packed & 15, packed >> 4], axis=2).reshape(len(rows), -1)


def interleaving(groups: int) -> npt.NDArray[np.int64]:
    """Where FAISS keeps the code of each row and group in a block: (32 · M,), as it tells itself.

    A block is filled with numbers of its places, one hexadecimal digit at a time, and taken apart.
    """
    import faiss

    index: Any = faiss.IndexPQFastScan(groups * _GROUP, groups, 4, faiss.METRIC_INNER_PRODUCT)
    packer = index.get_CodePacker()
    places = np.arange(BLOCK * groups)
    found = np.zeros(BLOCK * groups, np.int64)
    for digit in range(0, 16, 4):
        block = to_bytes(((places >> digit) & 15).astype(np.uint8))
        flat = np.zeros(BLOCK * groups // 2, np.uint8)
        packer.unpack_all(faiss.swig_ptr(block), faiss.swig_ptr(flat))
        found |= to_codes(flat).astype(np.int64) << digit
    return found


def interleaved(codes: Codes, order: npt.NDArray[np.int64]) -> npt.NDArray[np.uint8]:
    """Codes in FAISS's layout; the last block is filled up with zeros."""
    blocks = -(-len(codes) // BLOCK)
    flat = np.zeros((blocks * BLOCK, codes.shape[1]), np.uint8)
    flat[: len(codes)] = codes
    mixed = np.empty((blocks, len(order)), np.uint8)
    mixed[:, order] = flat.reshape(blocks, -1)
    return to_bytes(mixed)


def to_bytes(codes: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    """Two codes to a byte, the first in its lower half."""
    packed: npt.NDArray[np.uint8] = codes[..., ::2] | codes[..., 1::2] << np.uint8(4)
    return packed


def to_codes(packed: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    return np.stack([packed & 15, packed >> 4], axis=-1).reshape(*packed.shape[:-1], -1)


# ---- reading


class Coarse:
    """A file of codes, mapped. Searching it gives places in the file of vectors, best first by a rough score."""

    kind = CODES
    worth = 20_000
    """Permitted rows from which a search here is faster than scoring each."""

    def __init__(self, content: npt.NDArray[np.uint8], layout: Layout) -> None:
        """content: the file, (layout.size_bytes,), contiguous; it may be mapped and stays where it is."""
        self._content = content
        self._layout = layout
        self._searches = 0

    @property
    def size_bytes(self) -> int:
        return len(self._content)

    @cached_property
    def book(self) -> Codebook:
        """How its codes were made."""
        return Codebook.parse(self._content[self._layout.book_start :], self._layout)

    def depth(self, count: int, k: int) -> int:
        """Return how many of `count` rows to score exactly for the k best ones."""
        return max(_LEAST_DEPTH, count // _DEPTH) + 8 * k

    def codes(self, at: Positions) -> Codes:
        """Return the codes of rows, (len(at), M)."""
        layout = self._layout
        blocks = self._content[: layout.codes_bytes].reshape(-1, BLOCK * layout.groups // 2)
        needed, which = np.unique(at // BLOCK, return_inverse=True)
        flat = to_codes(blocks[needed])[:, self._order].reshape(len(needed) * BLOCK, layout.groups)
        codes: Codes = flat[which * BLOCK + at % BLOCK]
        return codes

    @cached_property
    def _order(self) -> npt.NDArray[np.int64]:
        return interleaving(self._layout.groups)

    def search(self, query: Vectors, count: int, *, permitted: Bits | None = None) -> Positions:
        """Return the places of up to `count` rows that promise most.

        query: (D,) float32.   permitted: one bit a row, the lowest first.
        """
        import faiss

        rotated = np.ascontiguousarray(query[None] @ self.book.rotation, np.float32)
        count = min(count, self._layout.count)
        if permitted is None:
            self._searches += 1
            index, params = (self._mapped, None) if self._searches <= _WARM else (self._resident, None)
        else:
            chosen = faiss.IDSelectorBitmap(np.ascontiguousarray(permitted))  # type: ignore[call-arg, arg-type]
            index, params = self._mapped, faiss.SearchParametersIVF(sel=chosen)  # type: ignore[call-arg]
        places: Positions = index.search(rotated, count, params=params)[1][0]
        return places[places >= 0]

    @cached_property
    def _mapped(self) -> Any:
        """An inverted file of one list, the mapped file: it opens at once and can be told what to leave out."""
        import faiss

        layout = self._layout
        lists: Any = faiss.OnDiskInvertedLists(1, layout.groups // 2, "")
        place = faiss.OnDiskOneList()
        place.size, place.capacity, place.offset = layout.count, layout.rows, 0
        lists.lists.clear()
        lists.lists.push_back(place)
        lists.read_only, lists.prefetch_nthread = True, 0  # nobody reads ahead of the one who reads
        lists.totsize = len(self._content)
        lists.ptr = faiss.swig_ptr(self._content)
        weakref.finalize(self, let_go, lists, self._content)
        centre = faiss.IndexFlatIP(layout.width)
        centre.add(np.zeros((1, layout.width), np.float32))
        index = faiss.IndexIVFPQFastScan(centre, layout.width, 1, layout.groups, 4, faiss.METRIC_INNER_PRODUCT)
        index.by_residual = False
        faiss.copy_array_to_vector(np.ascontiguousarray(self.book.centroids).reshape(-1), index.pq.centroids)
        index.replace_invlists(lists, False)
        index.is_trained, index.ntotal = True, layout.count
        return index

    @cached_property
    def _resident(self) -> Any:
        """The codes in memory: twice as fast, and worth the copying for who searches more than a few times."""
        import faiss

        layout = self._layout
        index: Any = faiss.IndexPQFastScan(layout.width, layout.groups, 4, faiss.METRIC_INNER_PRODUCT)
        faiss.copy_array_to_vector(np.ascontiguousarray(self.book.centroids).reshape(-1), index.pq.centroids)
        faiss.copy_array_to_AlignedTable(self._content[: layout.codes_bytes], index.codes)
        index.is_trained, index.ntotal, index.ntotal2 = True, layout.count, layout.rows
        return index


def let_go(lists: Any, content: npt.NDArray[np.uint8]) -> None:
    """Take the mapping away from FAISS, which would unmap what numpy has mapped and will unmap itself."""
    lists.ptr = None
    lists.totsize = 0
