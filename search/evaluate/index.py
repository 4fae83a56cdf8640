"""How much of what an exact search finds the index finds, and how long each takes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from time import perf_counter
from typing import TYPE_CHECKING

import numpy as np

from search.errors import LibraryError

if TYPE_CHECKING:
    from search.library import Library
    from search.types import Ids, Vectors
    from search.vectors import VectorIndex

K = 10
FILTERS = (None, 0.01, 0.1, 0.5)
"""Shares of the photos that a filter lets through; None: no filter."""


@dataclass(frozen=True, slots=True)
class Measured:
    """One kind of query under one filter.

    filter: the share of photos let through, 1 for all.   recall_at_10: of the ten best photos, or of as many as
    there are, the share that the index found.   ms_exact, ms_index: medians of single queries, taken in turns.
    """

    queries: str
    filter: float
    count: int
    recall_at_10: float
    ms_exact: float
    ms_index: float


@dataclass(frozen=True, slots=True)
class IndexEvaluation:
    """index: its kind, vectors and bytes; its lists and how many are read, if any.   rows: what was measured."""

    index: Mapping[str, int | str | None]
    rows: tuple[Measured, ...]


def evaluate_index(
    library: Library, texts: Sequence[str], *, queries: int = 100, seed: int = 0
) -> IndexEvaluation:
    """Search a library's own vectors with texts and with its own photos, exactly and by its index.

    queries: of each kind at most.   seed: which photos the filters let through.   Raises LibraryError where there
    are no photos.
    """
    index = library.vector_index()
    if not len(index):
        raise LibraryError("there are no photos to search", hint="run 'search index DIR'")
    kinds = {"text": library.text_vectors(texts[:queries]), "image": index.sample(queries)[1][:queries]}
    random = np.random.default_rng(seed)
    every = index.ids
    rows = []
    for share in FILTERS:
        within = None if share is None else every[random.random(len(every)) < share]
        if within is not None and not len(within):
            continue
        rows += [_measured(index, name, vectors, share, within) for name, vectors in kinds.items() if len(vectors)]
    told = library.status().index
    lists = {name: told[name] for name in ("lists", "probe") if name in told}
    described = {"kind": index.kind, "vectors": len(index), "bytes": index.size_bytes, **lists}
    return IndexEvaluation(described, tuple(rows))


def _measured(
    index: VectorIndex, name: str, vectors: Vectors, share: float | None, within: Ids | None
) -> Measured:
    exact = index.exact()
    for layer in (exact, index):  # what is read or loaded once is no part of a query
        layer.search(vectors[:1], K, within=within)
    times: tuple[list[float], list[float]] = [], []
    recalls = []
    for vector in vectors:
        found = []
        for layer, taken in zip((exact, index), times, strict=True):
            started = perf_counter()
            ids, _ = layer.search(vector[None], K, within=within)
            taken.append(perf_counter() - started)
            found.append(ids[0][ids[0] >= 0])
        recalls.append(len(np.intersect1d(*found)) / max(1, len(found[0])))
    ms_exact, ms_index = (1000 * median(taken) for taken in times)
    return Measured(name, share or 1.0, len(vectors), float(np.mean(recalls)), ms_exact, ms_index)
