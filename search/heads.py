"""What the user's verdicts teach of a label: a linear correction of its zero-shot log odds.

    log odds = o(x) + w·φ(x) + b      φ(x) = (x - centre) / spread,   w ~ N(0, 5 I),   b ~ N(0, 4)

o are the log odds that the label's text gives, φ photos centred in their library and scaled to a mean square length of
1. The prior draws the correction towards none: without examples the text alone decides, and a few move it little. It is
logistic regression with an offset, solved for the most probable w and b (MAP) with L-BFGS; the model is that of a CLIP
adapter begun at the text's vector, but convex. bench/corrections.py measures what it brings, docs/how-to/reviewing.md
says so.

Verdicts of one kind say nothing of how common a label is: there b is 0, so that the mean log odds over the library stay
what they were, and the prior of b widens with the share of the rarer kind. Where accepted ones outnumber all others,
photos that nobody judged hold w, too: each is expected to have the label as often as its text says.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from search.errors import UsageError
from search.measures import average_precision, sigmoid, wilson
from search.photos.keywords import legible

if TYPE_CHECKING:
    import numpy.typing as npt

    from search.types import Vectors

    Floats = npt.NDArray[np.float64]
    Flags = npt.NDArray[np.bool_]

HINT_WEIGHT = 0.1
"""What a photo counts, of one that was judged, of which that is only likely.

It has another label by the user, so most likely not this one too; or was judged by a rule, such as a probability.
"""

_SLOPE, _BIAS = 5.0, 4.0  # variances of the prior
_FOLDS = 5
_SURE = 1.645  # standard deviations below which 5 % lie
_LEAST_OF_EACH = 3  # accepted and rejected ones, below which a figure would say nothing
_FLAT = 1e-6  # a spread that is none
_ITERATIONS, _MANY_ITERATIONS = 200, 1000
_ENOUGH = 1e-7  # relative change of the loss
_EXACT = 1e-10  # the same for `fit`: where regularisation is weak the loss is flat, and 1e-7 far from its bottom


@dataclass(frozen=True, slots=True, eq=False)
class Head:
    """What is learnt of one label under one model.

    weights: (D,) float32.   threshold: least probability for `precision` of those above to be right, None where that is
    not known.   examples: verdicts it was trained on.   level: mean correction over the library.
    """

    label: str
    weights: Vectors
    bias: float
    threshold: float | None = None
    precision: float | None = None
    examples: int = 0
    level: float = 0.0

    def correction(self, vectors: Vectors) -> npt.NDArray[np.float32]:
        """Return (N,), to be added to the zero-shot log odds of photos.   vectors: (N, D) float32, unit rows."""
        return vectors @ self.weights + np.float32(self.bias)


@dataclass(frozen=True, slots=True, eq=False)
class Probe:
    """What labelled photos teach: a linear classifier for each of some labels, which needs no text.

    weights: (C, D), biases: (C,), float32: the log odds of each label by itself.   fingerprint: of the model whose
    vectors it reads.   details: how it was trained and what it is worth, as JSON values.
    Raises UsageError where labels are not each once and as a library keeps them, or numbers none or too few.
    """

    labels: tuple[str, ...]
    weights: Vectors
    biases: Vectors
    fingerprint: str
    details: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        labels, values = self.labels, (self.weights, self.biases)
        if not _are_labels(labels):
            raise UsageError(
                f"{labels!r:.200} are no labels: each once, a text on one line without blanks around it"
            )
        if any(one.dtype.kind != "f" for one in values):
            raise UsageError("weights and biases of a probe are no floats")
        if self.weights.ndim != 2 or not len(labels) == len(self.weights) or self.biases.shape != (len(labels),):
            raise UsageError("labels, weights and biases of a probe do not fit")
        if not all(np.isfinite(one).all() for one in values):
            raise UsageError("weights or biases of a probe are no number")
        if not isinstance(self.details, Mapping):
            raise UsageError("the details of a probe have no names")

    def log_odds(self, vectors: Vectors) -> npt.NDArray[np.float32]:
        """Return (N, C).   vectors: (N, D) float32, unit rows."""
        return vectors @ self.weights.T + self.biases


@dataclass(frozen=True, slots=True, eq=False)
class Space:
    """Where a library's photos lie: their mean (D,), and the root of their mean squared distance from it."""

    centre: Vectors
    spread: float

    @classmethod
    def of(cls, vectors: Vectors) -> Space:
        """Look at photos (N, D), unit rows, taken evenly from a library."""
        if not len(vectors):
            return cls(np.zeros(vectors.shape[1], np.float32), 1.0)
        centre = vectors.mean(axis=0)
        spread = float(np.sqrt(((vectors - centre) ** 2).sum(axis=1).mean()))
        return cls(centre, spread if spread > _FLAT else 1.0)

    def features(self, vectors: Vectors) -> Floats:
        """Return (N, D + 1) whose product with parameters of unit variance is the correction."""
        slopes = (vectors.astype(np.float64) - self.centre) * (np.sqrt(_SLOPE) / self.spread)
        return np.concatenate([slopes, np.full((len(vectors), 1), np.sqrt(_BIAS))], axis=1)

    def parameters(self, head: Head) -> Floats:
        """Return the parameters (D + 1,) that `head` makes a head of."""
        slopes = head.weights * (self.spread / np.sqrt(_SLOPE))
        return np.append(slopes, (head.bias + head.weights @ self.centre) / np.sqrt(_BIAS)).astype(np.float64)

    def head(self, label: str, parameters: Floats, examples: int) -> Head:
        """Return the head of parameters (D + 1,) that belong to `features`."""
        weights = parameters[:-1] * (np.sqrt(_SLOPE) / self.spread)
        level = float(parameters[-1] * np.sqrt(_BIAS))
        bias = level - float(weights @ self.centre)
        return Head(label, weights.astype(np.float32), bias, examples=examples, level=level)


@dataclass(frozen=True, slots=True, eq=False)
class Examples:
    """Photos that a label is learnt from.

    vectors: (N, D) float32, unit rows.   targets: (N,) bool.   offsets: (N,), zero-shot log odds.
    judged: (N,) bool; the others are hints, which count `HINT_WEIGHT`.
    rest: photos that nobody judged, taken evenly from the library, and their zero-shot log odds.
    """

    vectors: Vectors
    targets: Flags
    offsets: npt.NDArray[np.floating]
    judged: Flags
    rest: tuple[Vectors, npt.NDArray[np.floating]] | None = None

    @classmethod
    def of(cls, vectors: Vectors, targets: Flags, offsets: npt.NDArray[np.floating]) -> Examples:
        """Take verdicts alone."""
        return cls(vectors, targets, offsets, np.ones(len(targets), bool))

    def __len__(self) -> int:
        return int(self.judged.sum())

    @property
    def accepted(self) -> int:
        return int((self.targets & self.judged).sum())

    @property
    def balance(self) -> float:
        """How near the verdicts are to as many accepted as rejected: from 0, all of one kind, to 1."""
        return 2 * min(self.accepted, len(self) - self.accepted) / max(1, len(self))

    @property
    def weights(self) -> Floats:
        """What each counts, (N,)."""
        return np.where(self.judged, 1.0, HINT_WEIGHT)

    @property
    def one_sided(self) -> float:
        """How many more photos were accepted, by a rule or not, than say no, hints among them."""
        return max(0.0, float(2 * self.targets.sum() - len(self.targets)))

    @property
    def tell_enough(self) -> bool:
        """Whether there are enough of both kinds to hold some back."""
        return min(self.accepted, len(self) - self.accepted) >= _LEAST_OF_EACH


@dataclass(frozen=True, slots=True)
class Gain:
    """What verdicts brought to a label: average precision among the photos judged, by text alone and with its head.

    Each photo is scored by a head that did not see it. The photos are those that were asked, the doubtful ones: on all
    photos both are higher.   before, after: None where there are too few examples to tell.
    """

    label: str
    examples: int
    accepted: int
    before: float | None = None
    after: float | None = None


@dataclass(frozen=True, slots=True)
class Cut:
    """A probability above which a label is right as often as asked for.

    precision: as estimated.   photos: of those looked at that lie above.   examples: that the estimate rests on, as
    many as would be worth the same had they been drawn by chance.
    """

    threshold: float
    precision: float
    photos: int
    examples: float


def _are_labels(names: object) -> bool:
    """Whether these are labels, at least one."""
    if not (isinstance(names, tuple) and names and all(isinstance(name, str) for name in names)):
        return False
    return len(set(names)) == len(names) and all(name and name == legible(name) for name in names)


def train(label: str, examples: Examples, space: Space, *, before: Head | None = None) -> Head:
    """Learn a label from examples; from none, a correction of 0.

    before: what was learnt from fewer of them, to begin at: the same is found, sooner.
    """
    start = space.parameters(before) if before else None
    return space.head(label, _solve(examples, space, start), len(examples))


def fit(
    vectors: Vectors, targets: Flags, offsets: Floats, space: Space, *, c: float, counts: Floats | None = None
) -> tuple[Vectors, Vectors]:
    """Learn corrections of many labels at once, each by itself: weights (K, D) and biases (K,), float32.

    targets, offsets: (N, K), who has which label, and the log odds to correct.   c: the inverse strength of
    regularisation of weights, in units of the variance that `train` draws them from; biases keep theirs.
    counts: (N,) what each photo counts; None: all the same.
    """
    from scipy.optimize import minimize

    features = Space(space.centre, space.spread / np.sqrt(c)).features(vectors)  # (N, D + 1)
    shape = (features.shape[1], targets.shape[1])
    each = np.ones((len(vectors), 1)) if counts is None else counts[:, None]

    def loss(flat: Floats) -> tuple[float, Floats]:
        parameters = flat.reshape(shape)
        odds = offsets + features @ parameters
        value = (each * (np.logaddexp(0, odds) - targets * odds)).sum() + flat @ flat / 2
        return float(value), (parameters + features.T @ (each * (sigmoid(odds) - targets))).ravel()

    options = {"maxiter": _MANY_ITERATIONS, "ftol": _EXACT, "maxfun": 2 * _MANY_ITERATIONS}
    found = minimize(loss, np.zeros(shape).ravel(), jac=True, method="L-BFGS-B", options=options).x.reshape(shape)
    heads = [Space(space.centre, space.spread / np.sqrt(c)).head("", column, len(vectors)) for column in found.T]
    return np.stack([head.weights for head in heads]), np.array([head.bias for head in heads], np.float32)


def held_out(examples: Examples, space: Space) -> Floats:
    """Return the log odds (N,) of each example by a head that was trained without it, and those of hints as they stand.

    Folds hold the same share of accepted ones; the same examples in the same order give the same folds.
    """
    features = space.features(examples.vectors)
    odds = np.asarray(examples.offsets, np.float64).copy()
    fold = _folds(examples)
    for number in range(_FOLDS):
        left, kept = np.flatnonzero(fold == number), np.flatnonzero(fold != number)
        if len(left):
            odds[left] += features[left] @ _solve(_part(examples, kept), space)
    return odds


def gain(label: str, examples: Examples, odds: Floats) -> Gain:
    """Compare the zero-shot log odds of examples with those of `held_out`."""
    found = Gain(label, len(examples), examples.accepted)
    if not examples.tell_enough:
        return found
    judged = examples.judged
    targets = examples.targets[judged]
    before, after = (average_precision(scores[judged], targets) for scores in (examples.offsets, odds))
    return Gain(label, found.examples, found.accepted, before, after)


def cut(precision: float, examples: Examples, *, odds: Floats, library: npt.NDArray[np.floating]) -> Cut | None:
    """Return the lowest threshold above which a label is right as often as asked for; None if no verdicts show one.

    odds: of `held_out`.   library: (M,), the log odds by the label's head of photos that were not judged.
    The photos judged are not drawn by chance, but which they are depends on their scores alone: each stands for itself
    and for the photos of the library whose scores are nearest to its own. As often as asked for is the lower end of the
    one-sided 95 % interval (E. B. Wilson, 1927), since the lowest of many cuts that seem good would be so by luck: nine
    in ten need 25 right ones without a wrong one, eight in ten eleven.
    """
    order = np.flatnonzero(examples.judged)
    order = order[np.argsort(-odds[order], kind="stable")]
    scores, targets = odds[order], examples.targets[order]
    if not len(scores):
        return None
    between = (scores[:-1] + scores[1:]) / 2
    ordered = np.sort(np.concatenate([library, scores]))
    above = len(ordered) - np.append(np.searchsorted(ordered, between), 0)  # photos at or above each cut
    share = np.diff(above, prepend=0).astype(np.float64)
    total = np.cumsum(share)
    worth = np.divide(total**2, np.cumsum(share**2), out=np.zeros_like(total), where=total > 0)
    right = np.divide(np.cumsum(share * targets), total, out=np.zeros_like(total), where=total > 0)
    bound, _ = wilson(right, np.maximum(worth, _FLAT), _SURE)
    good = np.flatnonzero(bound[:-1] >= precision)  # below the last there are photos like none that was judged
    if not len(good):
        return None
    last = int(good[-1])
    odds_there = float(between[last])
    return Cut(float(sigmoid(odds_there)), float(right[last]), int(above[last]), float(worth[last]))


def _solve(examples: Examples, space: Space, start: Floats | None = None) -> Floats:
    """Return the most probable parameters (D + 1,), as `Space.features` wants them."""
    from scipy.optimize import minimize

    vectors, targets, offsets, weights = _evidence(examples)
    features = space.features(vectors)
    scale = np.ones(features.shape[1])
    scale[-1] = np.sqrt(examples.balance)
    features *= scale
    nothing = np.zeros(features.shape[1])
    if not len(features):
        return nothing

    def loss(parameters: Floats) -> tuple[float, Floats]:
        odds = offsets + features @ parameters
        value = weights @ (np.logaddexp(0, odds) - targets * odds) + parameters @ parameters / 2
        return float(value), parameters + features.T @ (weights * (sigmoid(odds) - targets))

    found: Floats = minimize(
        loss,
        nothing if start is None else np.divide(start, scale, out=nothing, where=scale > 0),
        jac=True,
        method="L-BFGS-B",
        options={"maxiter": _ITERATIONS, "ftol": _ENOUGH},
    ).x
    return found * scale


def _evidence(examples: Examples) -> tuple[Vectors, Floats, Floats, Floats]:
    """Return photos, how likely each has the label, their zero-shot log odds, and what each counts."""
    targets, offsets = examples.targets.astype(np.float64), np.asarray(examples.offsets, np.float64)
    if examples.rest is None or not examples.one_sided or not len(examples.rest[0]):
        return examples.vectors, targets, offsets, examples.weights
    vectors, odds = examples.rest
    each = min(1.0, examples.one_sided / len(vectors))
    return (
        np.concatenate([examples.vectors, vectors]),
        np.concatenate([targets, sigmoid(odds)]),
        np.concatenate([offsets, odds]),
        np.concatenate([examples.weights, np.full(len(vectors), each)]),
    )


def _folds(examples: Examples) -> npt.NDArray[np.int64]:
    """Number the judged examples by fold, accepted and rejected ones each in turn; -1 for hints."""
    fold = np.full(len(examples.targets), -1)
    start = 0
    for kind in (examples.targets, ~examples.targets):
        places = np.flatnonzero(kind & examples.judged)
        fold[places] = (start + np.arange(len(places))) % _FOLDS
        start += len(places)
    return fold


def _part(examples: Examples, places: npt.NDArray[np.int64]) -> Examples:
    return Examples(
        examples.vectors[places],
        examples.targets[places],
        examples.offsets[places],
        examples.judged[places],
        examples.rest,
    )
