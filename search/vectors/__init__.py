"""Unit vectors → nearest ids.

One convention everywhere: unit float32 rows in, cosine out, higher is better. The index is a cache: the
catalog keeps the vectors, and any index can be rebuilt from them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from search.errors import DimensionError, UsageError

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from search.types import Ids, Vectors


class VectorIndex(Protocol):
    """Finds the k highest cosines among the ids it holds, optionally within a selection."""

    @property
    def kind(self) -> str:
        """What `search status` calls it."""

    @property
    def dim(self) -> int:
        """Width of the vectors."""

    @property
    def size_bytes(self) -> int:
        """Memory the vectors take."""

    def __len__(self) -> int: ...

    def add(self, ids: Ids, vectors: Vectors) -> None:
        """Hold these vectors; a known id gets its new vector.

        ids: (N,) int64, each once.   vectors: (N, D) float32, unit rows.
        Raises DimensionError if D differs from self.dim.
        """

    def remove(self, ids: Ids) -> None:
        """Forget these ids; unknown ones are ignored."""

    def search(
        self, vectors: Vectors, k: int, *, within: Ids | None = None
    ) -> tuple[Ids, npt.NDArray[np.float32]]:
        """Return the k best-scoring ids for each query vector.

        vectors: (Q, D) float32, unit rows.   within: ids to consider; None means all, empty means none.
        Returns ids (Q, k) int64, padded with -1, and scores (Q, k) float32: cosine, descending, padded
        with -inf.
        Raises DimensionError if D differs from self.dim.
        """


FLAT = "faiss-flat"
"""The kind of the index that libraries use."""


def flat_size_bytes(count: int, dim: int) -> int:
    """Return what a flat index of `count` vectors takes: float32 rows and int64 ids."""
    return count * (4 * dim + 8)


def open_index(url: str, dim: int) -> VectorIndex:
    """Open an empty index of the kind that `url` names: `faiss:` or `exact:`.

    dim: width of its vectors.   Raises UsageError for a kind that does not exist.
    """
    kind = url.partition(":")[0]
    if kind == "faiss":
        from search.vectors.faiss import FaissIndex

        return FaissIndex(dim)
    if kind == "exact":
        from search.vectors.exact import ExactIndex

        return ExactIndex(dim)
    raise UsageError(f"there is no vector index of kind {kind!r}", hint="use 'faiss:' or 'exact:'")


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


def check_width(vectors: Vectors, dim: int) -> None:
    """Raise DimensionError unless `vectors` is (N, dim)."""
    if vectors.ndim != 2 or vectors.shape[1] != dim:
        raise DimensionError(f"expected vectors of shape (N, {dim}), got {vectors.shape}")
