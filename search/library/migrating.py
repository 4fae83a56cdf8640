"""A library moved to another place: its catalog to another database, its vectors to another index."""

from __future__ import annotations

from collections.abc import Callable
from time import perf_counter
from typing import TYPE_CHECKING

import numpy as np

from search.errors import LibraryError, SearchError, UsageError
from search.generations.manifest import WISHES
from search.types import MigrationReport, Progress, Stage
from search.vectors import normalize

if TYPE_CHECKING:
    from search.library import Library

_SAMPLE = 100  # photos whose nearest ones are asked for on both sides
_NEAREST = 10
_LEAST = 0.95  # of them must be found on both: either side may have an index that is not exact
_ARRIVED = "all rows arrived: run 'search rebuild' there, perhaps with another --index"
_TIE = 1e-3  # cosines closer than that are as good as equal


def migrate(
    source: Library, target: Library, *, index: str | None, progress: Callable[[Progress], None]
) -> MigrationReport:
    """Give an empty library all that another one knows, then an index, and hold both against one another."""
    started = perf_counter()
    if source.catalog.location == target.catalog.location:
        raise UsageError("a library can't be moved to where it is")
    if index is not None and index not in WISHES:
        target._index.mirroring.checked(index)
    with source.catalog.turn():
        rows = source.catalog.copy_into(
            target.catalog, told=lambda done, total: progress(Progress(Stage.COPY, done, total))
        )
        source.model.lend_recipes(target.model)
        photos = target.catalog.count()
        compared, agreement = 0, None
        try:
            if photos:
                target.rebuild(index=index)
            if source.catalog.encoder():
                compared, agreement = _compare(source, target, progress)
        except SearchError as error:
            error.hint = "; ".join(filter(None, (error.hint, _ARRIVED)))
            raise
    return MigrationReport(photos, rows["embeddings"], rows, compared, agreement, seconds=perf_counter() - started)


def _compare(source: Library, target: Library, progress: Callable[[Progress], None]) -> tuple[int, float | None]:
    """Ask both sides for the nearest of some photos; return of how many, and how alike the answers are.

    Raises LibraryError where the destination finds others, or has fewer vectors.
    """
    row = source.model.answering()
    ours, theirs = source.vector_index(), target.vector_index()
    if len(ours) != len(theirs):
        raise LibraryError(f"{len(theirs)} of {len(ours)} vectors can be searched in {target.catalog.shown}")
    ids = source.catalog.all_ids()
    ids, vectors = source.catalog.embeddings(row, ids[:: max(1, len(ids) // _SAMPLE)][:_SAMPLE].tolist())
    if not len(ids):
        return 0, None
    progress(Progress(Stage.COMPARE, 0, len(ids)))
    queries, k = normalize(vectors), min(_NEAREST, len(ours))
    _, exact = ours.exact().search(queries, k)
    found, _ = theirs.search(queries, k)
    reached = np.einsum("qd,qkd->qk", queries, ours.vectors(found.ravel()).reshape(*found.shape, row.dim))
    agreement = float(np.mean(reached >= exact[:, -1:] - _TIE))  # others just as near will do
    progress(Progress(Stage.COMPARE, len(ids), len(ids)))
    if agreement < _LEAST:
        raise LibraryError(
            f"the index of {target.catalog.shown} finds {agreement:.0%} of the photos that it should"
        )
    return len(ids), agreement
