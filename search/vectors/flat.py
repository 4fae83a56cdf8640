"""An index file that others open: FAISS's flat one, in which a vector's id is its row."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from search.files import fsync_file
from search.vectors import normalize

_AT_ONCE = 65_536


def write_flat(path: Path, parts: Iterable[Any], dim: int) -> None:
    """Write vectors as an index of inner products.   parts: (N, dim) each, float16 or float32, ids in their order.

    Every vector is in memory meanwhile, in float32.   Raises OSError.
    """
    import faiss

    index = faiss.IndexFlatIP(dim)
    for part in parts:
        for start in range(0, len(part), _AT_ONCE):
            index.add(np.ascontiguousarray(normalize(part[start : start + _AT_ONCE])))
    try:
        faiss.write_index(index, str(path))
    except RuntimeError as error:  # what FAISS says of a full disk
        raise OSError(f"can't write {path}: {error}") from error
    fsync_file(path)
