"""Zero-shot classification of photos whose class is known, with all that one wants to know of its errors."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from search.evaluate import metrics
from search.evaluate.statistics import Interval, bootstrap, share
from search.labels import Label, LabelSet

if TYPE_CHECKING:
    import numpy.typing as npt

    from search.evaluate.datasets import Dataset
    from search.types import Vectors

_COLUMNS = 1000  # resamples of a mean over classes


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
    ones.   classes: those with photos, the worst first; empty of photos of several classes.
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
    pairs = list(zip(dataset.folders, dataset.classnames, strict=True))
    labels = [Label(folder, Label.parse(name).words if "|" in name else (name,)) for folder, name in pairs]
    if prompts is None:
        return LabelSet.of(labels, list(templates))
    own = {folder: tuple(prompts.get(name) or prompts.get(folder) or ()) for folder, name in pairs}
    return LabelSet.described(labels, own)


def evaluate_zero_shot(vectors: Vectors, weights: Vectors, dataset: Dataset) -> ZeroShot:
    """Measure a classifier.

    vectors: (N, D), the photos'.   weights: (C, D), the classes'.   The score is the cosine: a logit scale changes no
    order.   Intervals are of 95 %, by bootstrap over photos.
    """
    scores = vectors @ weights.T
    predicted = scores.argmax(axis=1)
    confusion = metrics.confusion_matrix(predicted, dataset.targets, len(weights))
    if dataset.truth is not None:
        return ZeroShot(_of_several(scores, dataset.truth), predicted, confusion, ())
    before = metrics.ranks(scores, dataset.targets)
    figures = {"acc1": share(before < 1)}
    if len(weights) >= 5:
        figures["acc5"] = share(before < 5)
    figures["mean_per_class_recall"] = bootstrap(before < 1, strata=dataset.targets, equally=True)
    return ZeroShot(figures, predicted, confusion, _classes(confusion, dataset))


def _of_several(scores: npt.NDArray[np.float32], truth: npt.NDArray[np.bool_]) -> dict[str, Interval]:
    """Mean average precision between the bounds that other photos would have given."""
    random = np.random.default_rng(0)
    drawn = (random.integers(0, len(scores), len(scores)) for _ in range(_resamples(scores)))
    means = [metrics.mean_average_precision(scores[rows], truth[rows]) for rows in drawn]
    low, high = np.quantile(means, [0.025, 0.975]).tolist()
    return {"mean_average_precision": Interval(low, metrics.mean_average_precision(scores, truth), high)}


def _resamples(scores: npt.NDArray[Any]) -> int:
    """As many as take seconds: each sorts all scores."""
    return int(min(_COLUMNS, max(100, 2**25 // max(1, scores.size))))


def _classes(confusion: npt.NDArray[np.int64], dataset: Dataset) -> tuple[ClassFigures, ...]:
    found = []
    for number, row in enumerate(confusion):
        if not row.sum():
            continue
        right = np.repeat([True, False], [row[number], row.sum() - row[number]])
        wrong = [place for place in np.argsort(-row, kind="stable") if row[place] and place != number]
        confused = tuple((dataset.folders[place], int(row[place])) for place in wrong)
        found.append(
            ClassFigures(
                dataset.folders[number], dataset.classnames[number], int(row.sum()), share(right), confused
            )
        )
    return tuple(sorted(found, key=lambda one: one.recall.value))
