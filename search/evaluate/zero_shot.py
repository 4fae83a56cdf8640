"""Zero-shot classification of photos whose class is known, with all that one wants to know of its errors."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from search.evaluate import metrics
from search.evaluate.naming import spoken_names
from search.evaluate.statistics import Interval, mean_share, share, wilson
from search.labels import LabelSet

if TYPE_CHECKING:
    import numpy.typing as npt

    from search.evaluate.datasets import Dataset
    from search.types import Vectors

_RESAMPLES = 1000  # at most


@dataclass(frozen=True, slots=True)
class ClassFigures:
    """One class.   recall: of its photos, the share that was said right.   confused: (class, photos), most first."""

    folder: str
    name: str
    photos: int
    recall: Interval
    confused: tuple[tuple[str, int], ...]


@dataclass(frozen=True, slots=True)
class ZeroShot:
    """What a classifier made of N photos in C classes.

    figures: acc1, acc5 (absent for fewer than five classes) and mean_per_class_recall; of photos that may be of
    several classes mean_average_precision alone.   predicted: (N,) best classes.   confusion: (C, C), rows the true
    ones.   classes: those with photos, the worst first. Photos of several classes have neither.
    """

    figures: Mapping[str, Interval]
    predicted: npt.NDArray[np.int64]
    confusion: npt.NDArray[np.int64]
    classes: tuple[ClassFigures, ...]


def label_set(
    dataset: Dataset, templates: Iterable[str] = (), prompts: Mapping[str, Iterable[str]] | None = None
) -> LabelSet:
    """Return the classes of a data set as labels, called by their folders' names.

    templates: with `{}` for what the class is called; none: "a photo of a {}.".   prompts: whole sentences by what the
    class is called, or by its folder, instead.   Words after a bar in what it is called are synonyms.
    Raises UsageError for a class without prompts.
    """
    labels = spoken_names(dataset)
    if prompts is None:
        return LabelSet.of(labels, list(templates))
    pairs = zip(dataset.folders, dataset.classnames, strict=True)
    own = {folder: tuple(prompts.get(name) or prompts.get(folder) or ()) for folder, name in pairs}
    return LabelSet.described(labels, own)


def evaluate_zero_shot(vectors: Vectors, weights: Vectors, dataset: Dataset) -> ZeroShot:
    """Measure a classifier.

    vectors: (N, D), the photos'.   weights: (C, D), the classes'.   The score is the cosine: a logit scale changes no
    order.   Intervals are of 95 %.
    """
    scores = vectors @ weights.T
    predicted = scores.argmax(axis=1)
    if dataset.truth is not None:
        return ZeroShot(_of_several(scores, dataset.truth), predicted, np.zeros((0, 0), np.int64), ())
    confusion = metrics.confusion_matrix(predicted, dataset.targets, len(weights))
    before = metrics.ranks(scores, dataset.targets)
    figures = {"acc1": share(before < 1)}
    if len(weights) >= 5:
        figures["acc5"] = share(before < 5)
    figures["mean_per_class_recall"] = mean_share(before < 1, dataset.targets)
    return ZeroShot(figures, predicted, confusion, _classes(confusion, dataset))


def _of_several(scores: npt.NDArray[np.float32], truth: npt.NDArray[np.bool_]) -> dict[str, Interval]:
    """Mean average precision between the bounds that other photos would have given.

    A class that no photo of a resample is of is none of its mean: that would say of the draw, not of the model.
    """
    random = np.random.default_rng(0)
    order = np.argsort(-scores, axis=0, kind="stable")
    right = np.take_along_axis(truth, order, axis=0)
    there = truth.any(axis=0)
    means = []
    for _ in range(_resamples(scores)):
        drawn = np.bincount(random.integers(0, len(scores), len(scores)), minlength=len(scores))
        found = _redrawn(drawn[order], right)[there]
        means.append(float(there.mean() * np.nanmean(found)) if np.isfinite(found).any() else 0.0)
    low, high = np.quantile(means, [0.025, 0.975]).tolist()
    return {"mean_average_precision": Interval(low, metrics.mean_average_precision(scores, truth), high)}


def _redrawn(drawn: npt.NDArray[np.int64], right: npt.NDArray[np.bool_]) -> npt.NDArray[np.float64]:
    """Return (C,) average precisions of a resample, NaN where nothing is right.

    drawn: (N, C) how often each photo was drawn, the best first.   right: (N, C).   A photo that was drawn twice does
    not come before itself, or a resample would do better than the photos.
    """
    hits = drawn * right
    above, hits_above = np.cumsum(drawn, axis=0) - drawn, np.cumsum(hits, axis=0) - hits
    total = hits.sum(axis=0)
    found = (hits * (1 + hits_above) / (1 + above)).sum(axis=0) / np.maximum(total, 1)
    return np.where(total > 0, found, np.nan)


def _resamples(scores: npt.NDArray[Any]) -> int:
    """As many as take seconds: each goes through all scores."""
    return int(min(_RESAMPLES, max(100, 2**25 // max(1, scores.size))))


def _classes(confusion: npt.NDArray[np.int64], dataset: Dataset) -> tuple[ClassFigures, ...]:
    found = []
    for number, row in enumerate(confusion):
        if not row.sum():
            continue
        wrong = [place for place in np.argsort(-row, kind="stable") if row[place] and place != number]
        confused = tuple((dataset.folders[place], int(row[place])) for place in wrong)
        found.append(
            ClassFigures(
                dataset.folders[number],
                dataset.classnames[number],
                int(row.sum()),
                wilson(row[number] / row.sum(), row.sum()),
                confused,
            )
        )
    return tuple(sorted(found, key=lambda one: one.recall.value))
