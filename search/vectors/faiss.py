"""FAISS behind the VectorIndex contract. The flat index scores every row, so answers are exact.

FAISS's type stubs show the C++ signatures; its Python layer takes arrays instead, hence the ignored types.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import faiss
import numpy as np

from search.vectors import FLAT, check_width, flat_size_bytes

if TYPE_CHECKING:
    import numpy.typing as npt

    from search.types import Ids, Vectors


class FaissIndex:
    """IndexFlatIP under an id map. See VectorIndex for the contract."""

    kind = FLAT

    def __init__(self, dim: int) -> None:
        self.dim = dim
        self._index = faiss.IndexIDMap(faiss.IndexFlatIP(dim))
        self._held: set[int] = set()  # FAISS can't say which ids it has, and looks through all to remove one

    def __len__(self) -> int:
        return int(self._index.ntotal)

    @property
    def size_bytes(self) -> int:
        return flat_size_bytes(len(self), self.dim)

    def add(self, ids: Ids, vectors: Vectors) -> None:
        check_width(vectors, self.dim)
        self.remove(ids)  # FAISS would hold a known id twice
        self._held.update(ids.tolist())
        self._index.add_with_ids(np.ascontiguousarray(vectors, np.float32), np.asarray(ids, np.int64))

    def remove(self, ids: Ids) -> None:
        known = self._held.intersection(ids.tolist())
        if known:
            self._index.remove_ids(faiss.IDSelectorBatch(np.fromiter(known, np.int64)))
            self._held -= known

    def search(
        self, vectors: Vectors, k: int, *, within: Ids | None = None
    ) -> tuple[Ids, npt.NDArray[np.float32]]:
        check_width(vectors, self.dim)
        if k < 1 or not len(vectors):
            shape = (len(vectors), max(k, 0))
            return np.full(shape, -1, np.int64), np.full(shape, -np.inf, np.float32)
        # The parameters belong to this call alone: set on the index they would leak into other queries.
        params = None if within is None else faiss.SearchParameters(sel=_selector(within))  # type: ignore[call-arg]
        scores, ids = self._index.search(np.ascontiguousarray(vectors, np.float32), k, params=params)
        scores[ids == -1] = -np.inf
        return ids, scores


def _selector(within: Ids) -> faiss.IDSelector:
    """A bitmap while it stays small against the list of ids, for it answers in one look."""
    ids = np.unique(np.asarray(within, np.int64))
    if len(ids) and ids[0] >= 0 and ids[-1] < 64 * len(ids) + 1_000_000:
        bits = np.zeros(int(ids[-1]) + 1, bool)
        bits[ids] = True
        return faiss.IDSelectorBitmap(np.packbits(bits, bitorder="little"))  # type: ignore[call-arg, arg-type]
    return faiss.IDSelectorBatch(ids)
