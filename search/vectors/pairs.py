"""All rows of a library held against one another at once: which pairs are near, without looking at every pair.

Vectors: rows are dealt to lists by their nearest centroids, each to several, and every list is one matrix product;
near rows share a list (an inverted file, Sivic and Zisserman 2003, with soft assignment, Philbin et al. 2008).
Bits: multi-index hashing (Norouzi et al., IEEE TPAMI 2014) by FAISS.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

if TYPE_CHECKING:
    import numpy.typing as npt

    from search.types import Vectors
    from search.vectors.scan import Positions

_FEW = 8192  # rows up to which every pair is looked at
_LIST = 256  # rows to a centroid
_MOST_LISTS = 8192
_LEARNED = 64  # rows to learn each centroid from
_LISTS_OF_ONE = 3  # a row is dealt to
_CHUNK = 8192  # rows that are dealt at a time
_SCORES = 2**23  # of a matrix product that is in memory at a time
_BANDS, _BAND_BITS = 3, 21  # so wide that a million codes leave most of a band's values to one of them or none
_MOST_BITS = 7  # that may differ: those beyond the radius are found if they lie well

BITS_RADIUS = 5
"""Bits of 64 by which codes may differ so that none is missed: of three bands one differs by a single bit at most."""


class Pairs(NamedTuple):
    """Pairs of rows, first < second, each once: (P,) positions and (P,) cosines."""

    first: Positions
    second: Positions
    scores: npt.NDArray[np.float32]


def near_rows(rows: Callable[[Positions], Vectors], count: int, k: int, least: float) -> Pairs:
    """Return pairs of rows with a cosine of `least` or more: the k nearest of each row, in each list it is in.

    rows: gives unit rows (P, D) at positions.   count: how many there are.
    Where the rows have no order at all, 3 of 1,000 pairs with a cosine of 0.98 are missed, 18 of 0.94 and 57 of 0.9
    (bench/duplicates.py); real ones lie in clusters, and lists along them.
    """
    if count < 2:
        return _once([], count)
    lists = [np.arange(count)] if count <= _FEW else _lists(rows, count)
    found = [part for members in lists for part in _within(rows(members), members, k, least)]
    return _once(found, count)


def firsts(rows: Vectors, least: float) -> list[int]:
    """Return the first position of each group of unit rows, (N, D), ascending.

    Rows hang together that have a cosine of `least` or more, directly or by others between them.
    """
    pairs = near_rows(lambda some: rows[some], len(rows), max(len(rows), 1), least)
    group = np.arange(len(rows))  # the lowest position that each is known to hang together with
    while True:
        before = group.copy()
        np.minimum.at(group, pairs.second, group[pairs.first])
        np.minimum.at(group, pairs.first, group[pairs.second])
        group = group[group]
        if np.array_equal(before, group):
            kept: list[int] = np.flatnonzero(group == np.arange(len(rows))).tolist()
            return kept


def _within(vectors: Vectors, members: Positions, k: int, least: float) -> Iterator[Pairs]:
    """Yield the near pairs of a list, some rows against all of it at a time."""
    step = max(1, _SCORES // len(members))
    for start in range(0, len(members), step):
        scores = vectors[start : start + step] @ vectors.T
        scores[np.arange(len(scores)), np.arange(start, start + len(scores))] = -1
        if k < scores.shape[1]:
            near = np.argpartition(-scores, k - 1, axis=1)[:, :k]
        else:
            near = np.tile(np.arange(scores.shape[1]), (len(scores), 1))
        cosines = np.take_along_axis(scores, near, 1)
        row, column = np.nonzero(cosines >= least)
        one, other = members[start + row], members[near[row, column]]
        yield Pairs(np.minimum(one, other), np.maximum(one, other), cosines[row, column])


def _lists(rows: Callable[[Positions], Vectors], count: int) -> Iterator[Positions]:
    """Deal rows to lists; yield the positions in each, ascending."""
    import faiss

    wanted = min(_MOST_LISTS, count // _LIST)
    sample = rows(np.arange(0, count, max(1, count // (wanted * _LEARNED))))
    means: Any = faiss.Kmeans(sample.shape[1], wanted, niter=8, spherical=True, seed=1, min_points_per_centroid=1)
    means.train(sample)
    dealt = np.empty((count, _LISTS_OF_ONE), np.int32)
    for start in range(0, count, _CHUNK):
        some = np.arange(start, min(start + _CHUNK, count))
        dealt[some] = means.index.search(rows(some), _LISTS_OF_ONE)[1]
    flat = dealt.ravel()
    order = np.argsort(flat, kind="stable")
    ends = np.searchsorted(flat[order], np.arange(1, wanted))
    yield from (part // _LISTS_OF_ONE for part in np.split(order, ends) if len(part) > 1)


def _once(found: list[Pairs], count: int) -> Pairs:
    """Put parts together, each pair once."""
    if not found:
        return Pairs(np.empty(0, np.int64), np.empty(0, np.int64), np.empty(0, np.float32))
    first, second, scores = (np.concatenate(column) for column in zip(*found, strict=True))
    _, kept = np.unique(first * count + second, return_index=True)
    return Pairs(first[kept], second[kept], scores[kept])


def near_bits(
    codes: npt.NDArray[np.uint8], queries: npt.NDArray[np.uint8], k: int
) -> tuple[Positions, Positions, npt.NDArray[np.int32]]:
    """Return (query, code, bits that differ) where no more than BITS_RADIUS do, some with two more: the k nearest.

    codes: (N, 8), queries: (Q, 8), 64 bits each.
    """
    if not len(codes) or not len(queries):
        return np.empty(0, np.int64), np.empty(0, np.int64), np.empty(0, np.int32)
    import faiss

    index: Any = faiss.IndexBinaryMultiHash(64, _BANDS, _BAND_BITS)
    index.nflip = 1
    index.add(np.ascontiguousarray(codes))
    distances, places = index.search(np.ascontiguousarray(queries), min(k, len(codes)))
    query, rank = np.nonzero((places >= 0) & (distances <= _MOST_BITS))
    return query, places[query, rank], distances[query, rank]
