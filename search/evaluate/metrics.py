"""Figures of zero-shot classification and retrieval, as CLIP_benchmark defines them; plain numpy.

Scores are the higher the better. Where scores are equal the first counts as better: what is measured does not depend
on how a sort happens to go. Retrieval is reckoned in blocks of scores; the others are given the whole matrix.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from search import measures

if TYPE_CHECKING:
    import numpy.typing as npt

    from search.types import Vectors

    Scores: TypeAlias = npt.NDArray[np.floating[Any]]
    Truth: TypeAlias = npt.NDArray[np.bool_]
    Integers: TypeAlias = npt.NDArray[np.int64]

_BLOCK_SCORES = 2**24  # 64 MiB of float32


def ranks(scores: Scores, targets: Integers) -> Integers:
    """Return (N,) how many classes come before the true one.   scores: (N, C).   targets: (N,)."""
    places = targets[:, None]
    own = np.take_along_axis(scores, places, axis=1)
    before = (scores > own) | ((scores == own) & (np.arange(scores.shape[1]) < places))
    found: Integers = before.sum(axis=1)
    return found


def top_k_accuracy(scores: Scores, targets: Integers, k: int) -> float:
    """Return the share of rows whose true class is among the k best; NaN for fewer than k classes, or no rows.

    scores: (N, C).   targets: (N,).
    """
    if scores.shape[1] < k or not len(targets):
        return float("nan")
    return float((ranks(scores, targets) < k).mean())


def confusion_matrix(predicted: Integers, targets: Integers, classes: int) -> Integers:
    """Return (C, C) counts: row for the true class, column for the predicted one."""
    counts = np.bincount(targets * classes + predicted, minlength=classes * classes)
    return counts.reshape(classes, classes).astype(np.int64)


def per_class_recall(confusion: Integers) -> npt.NDArray[np.float64]:
    """Return (C,) shares of each class's rows that were predicted right; NaN for a class without rows."""
    rows = confusion.sum(axis=1)
    return np.where(rows > 0, np.diag(confusion) / np.maximum(rows, 1), np.nan)


def mean_per_class_recall(predicted: Integers, targets: Integers) -> float:
    """Return the mean over classes of the share predicted right: balanced accuracy.

    predicted, targets: (N,) classes. One that no row is of does not count. NaN without rows.
    """
    if not len(targets):
        return float("nan")
    classes = int(max(predicted.max(), targets.max())) + 1
    return float(np.nanmean(per_class_recall(confusion_matrix(predicted, targets, classes))))


def average_precision(scores: Scores, targets: Truth) -> float:
    """Return the mean precision at the rank of each positive; 0 without positives.   scores, targets: (N,)."""
    return measures.average_precision(scores, targets) if targets.any() else 0.0


def mean_average_precision(scores: Scores, targets: Truth) -> float:
    """Return the mean over classes of `average_precision`.   scores, targets: (N, C)."""
    columns = zip(scores.T, targets.T, strict=True)
    return float(np.mean([average_precision(score, target) for score, target in columns]))


def recall_at_k(scores: Scores, positives: Truth, k: int) -> npt.NDArray[np.float64]:
    """Return (Q,) the share of each query's positives that are among the k best.

    scores, positives: (Q, N). NaN for a query without positives. What CLIP_benchmark reports counts a query where this
    is above 0: see `first_positive_ranks` for that without the matrix.
    """
    best = np.argsort(-scores, axis=1, kind="stable")[:, :k]
    found = np.take_along_axis(positives, best, axis=1).sum(axis=1)
    there = positives.sum(axis=1)
    return np.where(there > 0, found / np.maximum(there, 1), np.nan)


def first_positive_ranks(
    queries: Vectors, gallery: Vectors, query_owners: Integers, gallery_owners: Integers
) -> Integers:
    """Return (Q,) how many rows of the gallery come before the best that belongs to each query.

    queries: (Q, D).   gallery: (N, D).   query_owners, gallery_owners: (Q,), (N,); rows of the same owner belong
    together. A query that nothing belongs to has rank N. Recall at k is the share of ranks below k. Scores are held in
    blocks of 64 MiB, or one query's.
    """
    order = np.argsort(gallery_owners, kind="stable")
    low, high = (np.searchsorted(gallery_owners[order], query_owners, side) for side in ("left", "right"))
    found = np.empty(len(queries), np.int64)
    for start, scores in _score_blocks(queries, gallery):
        for row, of_one in enumerate(scores, start):
            found[row] = _rank(of_one, order[low[row] : high[row]])
    return found


def _rank(scores: Scores, positives: Integers) -> int:
    """How many of (N,) scores come before the best of the positives, whose places ascend."""
    if not len(positives):
        return len(scores)
    place = positives[scores[positives].argmax()]
    best = scores[place]
    return int((scores > best).sum() + (scores[:place] == best).sum())


def _score_blocks(queries: Vectors, gallery: Vectors) -> Iterator[tuple[int, Scores]]:
    step = max(1, _BLOCK_SCORES // max(1, len(gallery)))
    for start in range(0, len(queries), step):
        yield start, queries[start : start + step] @ gallery.T
