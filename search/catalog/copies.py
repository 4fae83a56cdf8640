"""A generation's rows and vectors, answering in the place of a catalog that can't be read."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from search.catalog import Catalog, Changes, EncoderRow
from search.types import EncoderStatus, Publication

if TYPE_CHECKING:
    from search.types import Halves, Ids, Vectors

_CHUNK = 4096


class CatalogCopy(Catalog):
    """Answers as the catalog did when the generation was published; refuses to be written to.

    rows: the generation's SQLite file.   vectors: returns ids, ascending, and rows of an encoder by its id.
    """

    def __init__(self, location: str, rows: Path, vectors: Callable[[int], tuple[Ids, Halves]]) -> None:
        super().__init__(location, copy=rows)
        self._vectors = vectors

    def _present_vectors(self, encoder_id: int) -> tuple[Ids, Halves]:
        ids, halves = self._vectors(encoder_id)
        rows = np.flatnonzero(np.isin(ids, self.all_ids(), assume_unique=True))
        return (ids, halves) if len(rows) == len(ids) else (ids[rows], halves[rows])

    def publication(self) -> Publication:
        """Say that nothing is published: there is nothing beside this copy to read."""
        return replace(super().publication(), number=None, index_url=None)

    @contextmanager
    def changes(self, encoder: EncoderRow, since: int, *, keep: bool = False) -> Iterator[Changes]:
        """Yield all vectors at first, nothing afterwards: a copy does not change."""
        now = self.sequence()
        none = np.empty(0, np.int64)
        if since >= now:
            yield Changes(now, False, none, iter(()), self.count())
            return
        ids, halves = self._present_vectors(encoder.id)
        parts = (
            (ids[start : start + _CHUNK], halves[start : start + _CHUNK].astype(np.float32))
            for start in range(0, len(ids), _CHUNK)
        )
        yield Changes(now, True, none, parts, self.count())

    def embeddings(self, encoder: EncoderRow, ids: Sequence[int]) -> tuple[Ids, Vectors]:
        found, halves = self._present_vectors(encoder.id)
        rows = np.flatnonzero(np.isin(found, np.asarray(ids, np.int64)))
        return found[rows], halves[rows].astype(np.float32)

    def count_vectors(self, encoder: EncoderRow) -> int:
        return len(self._present_vectors(encoder.id)[0])

    def encoder_status(self) -> list[EncoderStatus]:
        with self._reading() as session:
            rows = session.rows("SELECT id, name, dim FROM encoders ORDER BY id")
        counted = [EncoderStatus(name, dim, len(self._present_vectors(id_)[0])) for id_, name, dim in rows]
        return [status for status in counted if status.photos]
