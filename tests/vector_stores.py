"""Stores on servers as tests open them, and what stands in a catalog's place there."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from uuid import uuid4

import numpy as np

from search.types import PhotoInfo
from search.vectors.stored import StoredIndex
from search.vectors.stores import Stamp, Store, open_store
from search.vectors.stores.declared import row_of

PLAIN = PhotoInfo("jpeg", 640, 480)


class Kept:
    """Vectors by id, and what is known of each photo: what the catalog is to an index on a server."""

    def __init__(self, dim: int) -> None:
        self.dim = dim
        self.known: dict[int, np.ndarray] = {}
        self.infos: dict[int, PhotoInfo] = {}

    def put(self, ids: Sequence[int], vectors: np.ndarray, infos: Sequence[PhotoInfo] | None = None) -> None:
        self.known |= dict(zip(map(int, ids), vectors, strict=True))
        self.infos |= dict(zip(map(int, ids), infos or [PLAIN] * len(ids), strict=True))

    def forget(self, ids: Sequence[int]) -> None:
        for id_ in ids:
            self.known.pop(int(id_), None)
            self.infos.pop(int(id_), None)

    def columns(self, ids: Sequence[int]) -> list[tuple]:
        return [row_of(self.infos[int(id_)]) for id_ in ids]

    def count(self) -> int:
        return len(self.known)

    def ids(self) -> np.ndarray:
        return np.array(sorted(self.known), np.int64)

    def vectors(self, ids: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        there = np.array([id_ for id_ in np.sort(ids).tolist() if id_ in self.known], np.int64)
        rows = [self.known[id_] for id_ in there.tolist()]
        return there, np.array(rows, np.float32).reshape(len(there), self.dim)

    def sample(self, size: int) -> tuple[np.ndarray, np.ndarray]:
        ids = self.ids()
        return self.vectors(ids[:: max(1, len(ids) // max(size, 1))])

    def cameras(self) -> list[str]:
        return sorted({info.camera for info in self.infos.values() if info.camera is not None})


class Pushed(StoredIndex):
    """An index whose every change goes to the server at once."""

    def __init__(self, store: Store, dim: int) -> None:
        self.kept = Kept(dim)
        self.stamp = Stamp("library", "model", dim, uuid4().hex, "0")
        found = store.stamp()
        if store.kind == "milvus" and found and (found.library, found.dim) == ("library", dim):
            store.delete(store.ids())  # a collection takes a server seconds to make
        else:
            store.begin(self.stamp)
        self.stamp = store.finish(self.stamp, changed=0)
        super().__init__(store, self.kept, dim)

    def add(self, ids: np.ndarray, vectors: np.ndarray, infos: Sequence[PhotoInfo] | None = None) -> None:
        if vectors.ndim != 2 or vectors.shape[1] != self.dim:
            super().add(ids, vectors)
        self.kept.put(ids.tolist(), vectors, infos)
        self.store.put(ids, vectors, self.kept.columns(ids.tolist()))
        self.count(len(ids))

    def remove(self, ids: np.ndarray) -> None:
        self.kept.forget(ids.tolist())
        self.store.delete(ids)
        self.count(len(ids))

    def count(self, changed: int) -> None:
        self.stamp = self.store.finish(self.stamp, changed=changed)
        self._count = self.stamp.rows


@contextmanager
def embedded(folder: Path) -> Iterator[Store]:
    """Yield a store in Milvus's embedded twin."""
    store = open_store(f"milvus+file://{folder}/twin.db?collection=photos")
    try:
        yield store
    finally:
        store.close()


def moment(day: int, hour: int = 12) -> datetime:
    return datetime(2020, 1, 1 + day % 28, hour)  # noqa: DTZ001
