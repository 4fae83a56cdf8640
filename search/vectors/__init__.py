"""Unit vectors → nearest ids.

One convention everywhere: unit float32 rows in, cosine out, higher is better. The index is a cache: the
catalog keeps the vectors, and any index can be rebuilt from them.

    exact.py    rows in memory, one matrix product
    mapped.py   float16 rows where they lie on the disk, with changes in memory on top
    scan.py     every row of such a file, exactly
    coarse.py   4-bit codes of such a file, which say which rows are worth looking at
    lists.py    such codes in lists of rows that are near one another, of which a search reads some
    pairs.py    all rows against one another, by lists of near ones
    stored.py   rows that a database server keeps (stores/), with changes in memory on top
    laid.py     what these two have in common
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from search.errors import DimensionError

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from search.types import Filter, Ids, Vectors
    from search.vectors.pairs import Pairs


class VectorIndex(Protocol):
    """Finds the k highest cosines among the ids it holds, optionally within a selection."""

    @property
    def kind(self) -> str:
        """What `search status` calls it."""

    @property
    def dim(self) -> int:
        """Width of the vectors."""

    @property
    def laid_over(self) -> int:
        """How many of its vectors are in memory, over what was published."""

    @property
    def size_bytes(self) -> int:
        """What the vectors take, in memory and in mapped files."""

    @property
    def deepest(self) -> int:
        """How many of the nearest can be had at a time."""

    def __len__(self) -> int: ...

    def add(self, ids: Ids, vectors: Vectors) -> None:
        """Hold these vectors; a known id gets its new vector.

        ids: (N,) int64, each once.   vectors: (N, D) float32, unit rows.
        Raises DimensionError if D differs from self.dim.
        """

    def remove(self, ids: Ids) -> None:
        """Forget these ids; unknown ones are ignored."""

    def prepare(self) -> None:
        """Begin to load what a search will need, beside what the caller does until then."""

    def search(
        self, vectors: Vectors, k: int, *, within: Ids | None = None, where: Filter | None = None
    ) -> tuple[Ids, npt.NDArray[np.float32]]:
        """Return the k best-scoring ids for each query vector.

        vectors: (Q, D) float32, unit rows.   within: ids to consider; None means all, empty means none.
        where: the filter that exactly those pass; an index on a server tells it what it can of that, in place of ids.
        Returns ids (Q, k) int64, padded with -1, and scores (Q, k) float32: cosine, descending, padded
        with -inf; of equal scores the lower id comes first.
        Raises DimensionError if D differs from self.dim.
        """

    @property
    def ids(self) -> Ids:
        """The ids it holds, (N,), in no order."""

    def exact(self) -> VectorIndex:
        """Return the same vectors, searched by scoring every one of them."""

    def sample(self, size: int) -> tuple[Ids, Vectors]:
        """Return about `size` of the vectors it holds, taken evenly: ids (M,) and unit rows (M, D)."""

    def vectors(self, ids: Ids) -> Vectors:
        """Return the unit rows of ids, (N, D), in their order; of zeros for ids it does not hold."""

    def near_pairs(self, k: int, *, least: float, within: Ids | None = None) -> Pairs:
        """Return pairs of ids whose cosine is `least` or more, the first id lower: k of each photo or a few more.

        Far faster than a search for each, and not exact: of many vectors some pairs are missed, the fewer the nearer.
        within: ids to consider; None means all.
        """


EXACT, CODES, LISTS = "exact", "pq", "ivf"
"""The kinds of index over a library: every row is scored; 4-bit codes tell which rows are; so do codes in lists, of
which only some are read."""


def normalize(vectors: npt.ArrayLike) -> Vectors:
    """Scale each row to length 1.

    vectors: (N, D) or (D,).   Returns float32 of the same shape; rows of zeros stay zeros.
    """
    import numpy as np

    rows = np.asarray(vectors, dtype=np.float32)
    norms = np.linalg.norm(rows, axis=-1, keepdims=True)
    norms[norms == 0] = 1
    unit: Vectors = rows / norms
    return unit


def cosines(rows: Vectors, vector: Vectors) -> npt.NDArray[np.float32]:
    """Return the cosine of unit rows (N, D) with one unit vector (D,), each the same whatever rows are beside it.

    A matrix product sums in an order that depends on the size of the matrix; scores that are shown must not.
    """
    scores: npt.NDArray[np.float32] = (rows * vector).sum(axis=1)
    return scores


def check_width(vectors: Vectors, dim: int) -> None:
    """Raise DimensionError unless `vectors` is (N, dim)."""
    if vectors.ndim != 2 or vectors.shape[1] != dim:
        raise DimensionError(f"expected vectors of shape (N, {dim}), got {vectors.shape}")


def nothing(queries: int, k: int) -> tuple[Ids, npt.NDArray[np.float32]]:
    """Return the answer of a search that found nothing yet: (Q, k) ids and scores, padded."""
    import numpy as np

    return np.full((queries, k), -1, np.int64), np.full((queries, k), -np.inf, np.float32)


def best(ids: Ids, scores: npt.NDArray[np.float32], k: int) -> tuple[Ids, npt.NDArray[np.float32]]:
    """Return the k best of scored ids, padded: (k,) and (k,); of equal scores the lower id comes first."""
    import numpy as np

    order = np.lexsort((ids, -scores))[:k]
    padded = np.full(k, -1, np.int64), np.full(k, -np.inf, np.float32)
    padded[0][: len(order)], padded[1][: len(order)] = ids[order], scores[order]
    return padded


def places_of(ids: Ids, among: Ids) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.bool_]]:
    """Return where those of some ids are that are among others, ascending; and which of them are, (N,)."""
    import numpy as np

    if not len(among):
        return np.empty(0, np.int64), np.zeros(len(ids), bool)
    places = np.minimum(np.searchsorted(among, ids), len(among) - 1)
    known: npt.NDArray[np.bool_] = among[places] == ids
    return places[known], known
