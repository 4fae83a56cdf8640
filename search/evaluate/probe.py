"""Zero-shot against linear probes: how many labelled photos a class are worth what the words are worth.

Logistic regression by L-BFGS on image vectors, as in the CLIP paper (arXiv:2103.00020, appendix A.3): at most 1,000
iterations, the strength of its regularisation chosen on photos that neither train nor test it, first among seven
powers of ten, then among ever finer ones around the best, down to eight a decade. What differs: vectors are unit rows,
and the photos to choose by are the same for every number of examples; a user with four labels a class has none.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

import numpy as np

from search.errors import UsageError
from search.evaluate.metrics import mean_per_class_recall, top_k_accuracy
from search.evaluate.statistics import Interval, crossed, paired, share
from search.extras import how_to_add

if TYPE_CHECKING:
    import numpy.typing as npt

    from search.types import Vectors

    Integers = npt.NDArray[np.int64]
    Scores = npt.NDArray[np.float64]

SHOTS: tuple[int | None, ...] = (1, 2, 4, 8, 16, None)
"""Examples of each class; None: all there are."""

VALIDATION = 0.25
"""Part of the photos to train with, to choose the regularisation by."""

_COARSE = range(-6, 7, 2)  # powers of ten
_FINEST = 1 / 8  # of a decade
_ITERATIONS = 1000


@dataclass(frozen=True, slots=True)
class ProbeOptions:
    """shots: as SHOTS.   seeds: how many draws of examples each.   test_share: of each class, where no test set is.

    seed: of the split and the draws.
    """

    shots: tuple[int | None, ...] = SHOTS
    seeds: int = 3
    test_share: float = 0.4
    seed: int = 0


@dataclass(frozen=True, slots=True)
class Training:
    """One probe, tested.   seed: its draw.   c: the inverse strength of regularisation."""

    seed: int
    c: float
    acc1: float
    acc5: float
    mean_per_class_recall: float


@dataclass(frozen=True, slots=True)
class ProbeResult:
    """Probes of one number of examples.

    shots: of each class, None for all.   examples: photos trained with, all classes together.   accuracy: the mean of
    the trainings, as other draws and other photos would have it.   against: its difference from zero-shot.
    """

    shots: int | None
    examples: int
    trainings: tuple[Training, ...]
    accuracy: Interval
    against: Interval

    @property
    def acc5(self) -> float:
        return float(np.mean([training.acc5 for training in self.trainings]))

    @property
    def mean_per_class_recall(self) -> float:
        return float(np.mean([training.mean_per_class_recall for training in self.trainings]))


@dataclass(frozen=True, slots=True)
class ProbeEvaluation:
    """zero_shot: accuracy on the photos tested with; zero_shot_acc5 and zero_shot_recall likewise.

    train, validation, test: photos of each part.   left_out: photos to test with that are among the others.
    """

    classes: int
    zero_shot: Interval
    zero_shot_acc5: float
    zero_shot_recall: float
    results: tuple[ProbeResult, ...]
    train: int
    validation: int
    test: int
    left_out: int = 0

    @property
    def matching(self) -> ProbeResult | None:
        """The fewest examples whose probes do as well as zero-shot on average."""
        return next((result for result in self.results if result.against.value >= 0), None)

    @property
    def overtaking(self) -> ProbeResult | None:
        """The fewest examples from which on probes are better beyond doubt."""
        sure = None
        for result in reversed(self.results):
            if result.against.low <= 0:
                break
            sure = result
        return sure


@dataclass(frozen=True, slots=True)
class Examples:
    """Photos whose class is known: (N, D) unit rows, (N,) places of classes.

    contents: (N,) what the files hold, such as digests; equal ones are one photo, that must not train and test a
    probe.   None: all differ.
    """

    vectors: Vectors
    targets: Integers
    contents: Sequence[str] | None = None

    def __len__(self) -> int:
        return len(self.targets)

    def take(self, rows: npt.NDArray[Any]) -> Examples:
        contents = None if self.contents is None else np.asarray(self.contents)[rows].tolist()
        return Examples(self.vectors[rows], self.targets[rows], contents)

    def groups(self) -> Integers:
        """Return (N,) the first row that holds the same."""
        if self.contents is None:
            return np.arange(len(self), dtype=np.int64)
        _, first, places = np.unique(np.asarray(self.contents), return_index=True, return_inverse=True)
        return first[places].astype(np.int64)


def evaluate_probe(
    photos: Examples,
    weights: Vectors,
    *,
    test: Examples | None = None,
    names: Sequence[str] = (),
    options: ProbeOptions | None = None,
    progress: Callable[[str], None] | None = None,
) -> ProbeEvaluation:
    """Train probes on few and on all photos, and hold them against zero-shot on photos that no probe has seen.

    weights: (C, D) of the classes' prompts.   test: photos to test with; None: a part of each class.
    names: of the classes, to name one of too few photos.
    Equal contents never train and test: of a split they stay on one side, of test they are left out.
    progress: told what begins.   Raises UsageError for a class of too few photos, or without scikit-learn.
    """
    require()
    how = options or ProbeOptions()
    random = np.random.default_rng(how.seed)
    check(photos, len(weights), least=2 if test else 3, names=names)
    left, tested = (photos, _strange(photos, test)) if test else split(photos, how.test_share, random)
    train, validation = split(left, VALIDATION, random)
    zero = tested.vectors @ weights.T
    right = zero.argmax(axis=1) == tested.targets
    results = []
    for shots in _shots(train, how.shots):
        if progress:
            progress("all examples" if shots is None else f"{shots} examples a class")
        results.append(_probes(train, validation, tested, right, shots=shots, how=how))
    return ProbeEvaluation(
        classes=len(weights),
        zero_shot=share(right),
        zero_shot_acc5=top_k_accuracy(zero, tested.targets, 5),
        zero_shot_recall=mean_per_class_recall(zero.argmax(axis=1).astype(np.int64), tested.targets),
        results=tuple(results),
        train=len(train),
        validation=len(validation),
        test=len(tested),
        left_out=len(test) - len(tested) if test else 0,
    )


def require() -> None:
    """Raise UsageError unless scikit-learn is there."""
    if find_spec("sklearn") is None:
        raise UsageError("probes need scikit-learn", hint=how_to_add("evaluate"))


def check(photos: Examples, classes: int, *, least: int, names: Sequence[str] = ()) -> None:
    """Raise UsageError where a class has fewer photos that are no copies."""
    fewest, place = min((len(_own(photos, place)), place) for place in range(classes))
    if fewest < least:
        one = f"the class {names[place]}" if names else "a class"
        raise UsageError(
            f"{one} has {fewest} photos that are no copies; {least} are needed, to train with, to choose by and "
            "to test with"
        )


def _own(photos: Examples, place: int) -> Integers:
    """The photos of a class that no other has, by the first row of each."""
    groups, inside = photos.groups(), photos.targets == place
    return np.setdiff1d(groups[inside], groups[~inside])


def _strange(photos: Examples, test: Examples) -> Examples:
    """Photos to test with less those that are to train with."""
    if photos.contents is None or test.contents is None:
        return test
    known = set(photos.contents)
    found = test.take(np.array([content not in known for content in test.contents], np.bool_))
    if not len(found):
        raise UsageError("all photos to test with are among those to train with", hint="give others, or none")
    return found


def split(photos: Examples, part: float, random: np.random.Generator) -> tuple[Examples, Examples]:
    """Set a part of each class aside, at least one photo, and leave at least one; copies stay together."""
    aside = []
    for place in np.unique(photos.targets).tolist():
        own = random.permutation(_own(photos, place))
        aside.append(own[: min(max(1, round(part * len(own))), len(own) - 1)])
    chosen = np.isin(photos.groups(), np.concatenate(aside))
    return photos.take(~chosen), photos.take(chosen)


def _shots(train: Examples, wanted: Sequence[int | None]) -> list[int | None]:
    """The numbers of examples that every class has; all of them last."""
    most = int(np.bincount(train.targets).min())
    few = sorted({shots for shots in wanted if shots is not None and shots <= most})
    return [*few, None] if None in wanted or not few else [*few]


def _probes(
    train: Examples,
    validation: Examples,
    test: Examples,
    zero_shot: npt.NDArray[np.bool_],
    *,
    shots: int | None,
    how: ProbeOptions,
) -> ProbeResult:
    trainings, right, c = [], [], 0.0
    examples = train
    for seed in range(how.seed, how.seed + (how.seeds if shots else 1)):
        if shots:
            examples = _drawn(train, shots, seed)
        c = c or _chosen(examples, validation)  # chosen once: what fits is a matter of how many examples there are
        whole = examples if shots else _joined(train, validation)
        scores = log_probabilities(whole, test.vectors, c)
        predicted = scores.argmax(axis=1).astype(np.int64)
        right.append(predicted == test.targets)
        trainings.append(
            Training(
                seed=seed,
                c=c,
                acc1=float(right[-1].mean()),
                acc5=top_k_accuracy(scores, test.targets, 5),
                mean_per_class_recall=mean_per_class_recall(predicted, test.targets),
            )
        )
    rows = np.stack(right).astype(np.int8)  # (S, N)
    return ProbeResult(
        shots=shots,
        examples=len(whole),
        trainings=tuple(trainings),
        accuracy=_sure(crossed(rows, seed=how.seed), share(rows[0] > 0)),
        against=_sure(
            crossed(rows - zero_shot.astype(np.int8), seed=how.seed), paired(rows[0] > 0, zero_shot).difference
        ),
    )


def _sure(resampled: Interval, alone: Interval) -> Interval:
    """Return what resampling says; where all photos are alike it knows no doubt, then that of one training."""
    return resampled if resampled.low < resampled.high else alone


def _drawn(train: Examples, shots: int, seed: int) -> Examples:
    """Draw examples of each class; of one seed more examples hold the fewer."""
    random = np.random.default_rng(seed)
    classes = np.unique(train.targets)
    rows = [random.permutation(np.flatnonzero(train.targets == place))[:shots] for place in classes]
    return train.take(np.concatenate(rows))


def _joined(one: Examples, other: Examples) -> Examples:
    return Examples(np.concatenate([one.vectors, other.vectors]), np.concatenate([one.targets, other.targets]))


def _chosen(examples: Examples, validation: Examples) -> float:
    """Return the C that does best on the photos to choose by."""

    def quality(c: float) -> float:
        return top_k_accuracy(log_probabilities(examples, validation.vectors, c), validation.targets, 1)

    return sweep(quality)


def sweep(quality: Callable[[float], float]) -> float:
    """Return the C of the highest quality, searched from coarse to fine; of equal ones the smallest of the coarse."""
    known: dict[float, float] = {}

    def of(power: float) -> float:
        if power not in known:
            known[power] = quality(10**power)
        return known[power]

    best, step = max(map(float, _COARSE), key=of), 2.0
    while step > _FINEST:
        step /= 2
        near = [power for power in (best, best - step, best + step) if abs(power) <= -_COARSE[0]]
        best = max(near, key=of)  # of equal ones what stood before stays
    return float(10**best)


def log_probabilities(examples: Examples, vectors: Vectors, c: float) -> Scores:
    """Train a probe and return (N, C) log probabilities of other vectors."""
    from sklearn.linear_model import LogisticRegression

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # at the weakest regularisation a thousand iterations may not do
        probe = LogisticRegression(C=c, max_iter=_ITERATIONS).fit(np.float64(examples.vectors), examples.targets)
    scores: Scores = probe.predict_log_proba(np.float64(vectors))
    return scores
