"""A label set under one encoder: how photos are scored, and what of it is listed.

One label of many is decided by a softmax of the logits, as the model was trained. Where each label is decided by
itself a logit says nothing, since a cosine's usual height differs between models and between photos: a photo's cosine
with a label is held against its mean cosine with the unrelated prompts of the model's bank, and a logistic function of
the difference, in units of the model's logit_scale, gives the probability. Its two numbers were fitted on photos whose
labels are known; docs/how-to/labels.md has the experiment. A sigmoid model's own scale and bias say the same for it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from itertools import repeat
from typing import TYPE_CHECKING, Protocol

import numpy as np

from search.encoders import TextTower
from search.errors import UsageError
from search.labels.sets import NONE_OF_THESE
from search.measures import sigmoid
from search.types import LabelScore, LabelShare

if TYPE_CHECKING:
    import numpy.typing as npt

    from search.labels.sets import Label, LabelSet, Remember
    from search.relevance import Bank
    from search.types import Vectors

DEFAULT_MULTI_THRESHOLD = 0.2
"""The least probability of labels that are decided one by one: about the best F1 of a model that is often unsure."""

_STEEPNESS, _INTERCEPT = 0.35, -3.2  # of the log odds, in the model's own units: bench/label_calibration.py
_FLOOR = 2.5  # how far above unrelated prompts the best label must lie lest none fit, in the same units
_PRODUCT_SCORES = 2**22  # (photos, labels) of one matrix product; of small ones the threads wait for each other
_CACHED_SCORES = 2**18  # looked at together: 1 MiB, which stays in the processor's cache
_PICKED = 32  # labels a photo, up to which picking one after the other is faster than sorting all
_NEVER = np.float32(-1e30)  # the logit of a label that a photo does not have
_ROUNDING = 1e-3  # of logits in float32, on the safe side


class LabelEncoder(TextTower, Protocol):
    """What labels need of an encoder."""

    @property
    def fingerprint(self) -> str:
        """Which weights it has."""

    @property
    def logit_scale(self) -> float:
        """Inverse temperature, as `Encoder` has it."""

    @property
    def logit_bias(self) -> float | None:
        """What sigmoid-trained models add to the logits."""


class Correction(Protocol):
    """What was learnt of a label from the user's verdicts."""

    @property
    def threshold(self) -> float | None:
        """Least probability of this label where it is decided by itself."""

    @property
    def level(self) -> float:
        """Mean correction over the library."""

    def correction(self, vectors: Vectors) -> npt.NDArray[np.floating]:
        """Return (N,), added to the label's log odds.   vectors: (N, D)."""


@dataclass(frozen=True, slots=True)
class LabelOptions:
    """How to decide.

    multi: each label on its own.   threshold: least probability of a label that is listed.
    otherwise: the least one where there is no `threshold`, and with `multi` of labels whose verdicts taught none.
    none_of_these: say of photos that no label fits, where none does.   k: how many labels a photo lists at most.
    learned: let what the user's verdicts taught of labels count; otherwise texts alone decide.
    """

    multi: bool = False
    threshold: float | None = None
    none_of_these: bool = False
    k: int | None = None
    learned: bool = True
    otherwise: float = 0.0

    def __post_init__(self) -> None:
        if not 0 <= self.least <= 1:
            raise UsageError(f"a threshold of {self.least} is no probability")

    @property
    def least(self) -> float:
        """The least probability of labels that have none of their own."""
        return self.otherwise if self.threshold is None else self.threshold

    def to_apply(self, labels: tuple[LabelScore, ...]) -> tuple[LabelScore, ...]:
        """Return the labels of a photo that are worth writing: the best, or all listed if `multi` or `k` asks so."""
        chosen = labels if self.multi or self.k else labels[:1]
        return tuple(label for label in chosen if label.label != NONE_OF_THESE)


@dataclass(frozen=True, slots=True, eq=False)
class Classifier:
    """A label set under one encoder, ready to score photos.

    usual: returns (1, D), whose product with a photo is its mean cosine with unrelated prompts; called where needed.
    thresholds: one per name, where they are not all `options.least`.
    parents: the labels above others, and the places of those at or below each.
    """

    names: tuple[str, ...]  # none of these comes last
    weights: Vectors  # (C, D), in the order of names
    usual: Callable[[], Vectors]
    logit_scale: float
    logit_bias: float | None
    options: LabelOptions
    truncated_tokens: int = 0  # of the prompts, beyond what the encoder reads
    heads: Mapping[int, Correction] = field(default_factory=dict)  # by place
    thresholds: npt.NDArray[np.float64] | None = None
    parents: Mapping[str, Sequence[int]] = field(default_factory=dict)

    @classmethod
    def build(
        cls,
        labels: LabelSet,
        encoder: LabelEncoder,
        options: LabelOptions,
        *,
        bank: Callable[[], Bank] | None = None,
        heads: Mapping[str, Correction] | None = None,
        remember: Remember | None = None,
    ) -> Classifier:
        """Embed a label set's prompts.

        bank: gives the model's bank; None takes the one that ships, else makes it: some thousand texts to embed.
        heads: what was learnt of labels, by name.   remember: what knows prompts' embeddings from before.
        """
        names, (weights, beyond) = labels.names, labels.embed(encoder, remember)
        learnt = {place: heads[name] for place, name in enumerate(names) if heads and name in heads}
        usual = _usual(bank or (lambda: _bank(encoder)))
        if options.none_of_these:
            names, weights = (*names, NONE_OF_THESE), np.concatenate([weights, usual()])
        return cls(
            names,
            weights,
            usual,
            encoder.logit_scale,
            encoder.logit_bias,
            options,
            beyond,
            learnt,
            _thresholds(names, labels.thresholds, learnt, options),
            {} if options.multi else _parents(labels.labels),
        )

    def log_odds(self, vectors: Vectors) -> npt.NDArray[np.float32]:
        """Return how likely each label is by itself, (N, C): 0 is as likely as not. `NONE_OF_THESE` has no column.

        vectors: (N, D) float32, unit rows.
        """
        return self._alone(vectors @ self.weights[: self._labels].T, vectors)

    def label(self, vectors: Vectors) -> list[tuple[LabelScore, ...]]:
        """Return the labels of each photo, best first.   vectors: (N, D) float32, unit rows."""
        return [labels for labels, _ in self.classify(vectors)]

    def classify(
        self, vectors: Vectors, without: npt.NDArray[np.bool_] | None = None
    ) -> list[tuple[tuple[LabelScore, ...], tuple[LabelShare, ...]]]:
        """Return the labels of each photo, best first, and the shares of the labels above them.

        vectors: (N, D) float32, unit rows.   without: (N, C), which labels each photo is known not to have: they are
        not listed, and of labels that share a probability the others have theirs.
        """
        found: list[tuple[tuple[LabelScore, ...], tuple[LabelShare, ...]]] = []
        many, few = (max(1, size // len(self.names)) for size in (_PRODUCT_SCORES, _CACHED_SCORES))
        for start in range(0, len(vectors), many):
            part = vectors[start : start + many]
            scores = part @ self.weights.T  # (N, C)
            if self.options.none_of_these:
                scores[:, -1] += np.float32(_FLOOR / self.logit_scale)
            for low in range(0, len(part), few):
                place = slice(start + low, min(start + low + few, start + len(part)))
                barred = None if without is None else without[place]
                found += self._classify(scores[low : low + few], part[low : low + few], barred)
        return found

    def _classify(
        self, scores: npt.NDArray[np.float32], vectors: Vectors, without: npt.NDArray[np.bool_] | None
    ) -> Iterator[tuple[tuple[LabelScore, ...], tuple[LabelShare, ...]]]:
        logits = self._logits(scores, vectors, without)
        plain = self._is_plain and without is None
        ranked = logits if plain else np.where(self._listed(logits), logits, -np.inf)
        best = _best(ranked, self._most(ranked, plain=plain))  # (N, K)
        probabilities = self._probabilities(logits, best)
        if plain:
            kept = (probabilities >= self.options.least).sum(axis=1).tolist()
        else:
            kept = np.minimum((ranked > -np.inf).sum(axis=1), best.shape[1]).tolist()
        shares = self._shares(logits)
        found = (kept, best.tolist(), probabilities.tolist(), np.take_along_axis(scores, best, axis=1).tolist())
        for count, places, likely, cosines, above in zip(*found, shares, strict=True):
            rows = zip(places[:count], likely, cosines, strict=False)
            yield tuple([LabelScore(self.names[place], share, cosine) for place, share, cosine in rows]), above

    @property
    def _labels(self) -> int:
        return len(self.names) - self.options.none_of_these

    @property
    def _is_plain(self) -> bool:
        """Whether one threshold decides of all labels, so that those that pass are the first in order."""
        return self.thresholds is None and not (self.options.multi and self.options.none_of_these)

    def _logits(
        self, scores: npt.NDArray[np.float32], vectors: Vectors, without: npt.NDArray[np.bool_] | None = None
    ) -> npt.NDArray[np.float32]:
        """What decides, (N, C): with `multi` log odds of each label alone, of none the best one's turned round."""
        if not self.options.multi:
            found = self._corrected(scores * np.float32(self.logit_scale), vectors, level=self._all_taught)
            return _barred(found, without)
        alone = _barred(self._alone(scores[:, : self._labels], vectors), without)
        if not self.options.none_of_these:
            return alone
        return np.concatenate([alone, -alone.max(axis=1, keepdims=True)], axis=1)

    def _alone(self, scores: npt.NDArray[np.float32], vectors: Vectors) -> npt.NDArray[np.float32]:
        if self.logit_bias is not None:
            return self._corrected(scores * np.float32(self.logit_scale) + np.float32(self.logit_bias), vectors)
        scale = np.float32(_STEEPNESS * self.logit_scale)
        return self._corrected(scale * (scores - vectors @ self.usual().T) + np.float32(_INTERCEPT), vectors)

    @property
    def _all_taught(self) -> bool:
        return len(self.heads) == len(self.names)

    def _corrected(
        self, logits: npt.NDArray[np.float32], vectors: Vectors, *, level: bool = True
    ) -> npt.NDArray[np.float32]:
        """Add in place what was learnt of labels.

        level: how common labels are, too. Where labels compete of which some were not judged, that would favour or
        hinder those that were.
        """
        for place, head in self.heads.items():
            logits[:, place] += head.correction(vectors)
            if not level:
                logits[:, place] -= np.float32(head.level)
        return logits

    def _listed(self, logits: npt.NDArray[np.float32]) -> npt.NDArray[np.bool_]:
        """Tell which labels pass their thresholds, (N, C); with `multi` none passes only where no other does."""
        least = np.full(len(self.names), self.options.least) if self.thresholds is None else self.thresholds
        with np.errstate(divide="ignore"):
            odds = np.log(least) - (np.log1p(-least) if self.options.multi else 0)
        listed: npt.NDArray[np.bool_] = logits > _NEVER
        if not self.options.multi:
            return listed & (logits - _log_sum_exp(logits) >= odds)
        listed &= logits >= odds
        if self.options.none_of_these:
            listed[:, -1] = ~listed[:, :-1].any(axis=1)
        return listed

    def _most(self, logits: npt.NDArray[np.float32], *, plain: bool) -> int:
        """How many labels a photo can list: where few can pass the threshold, the others need no order."""
        most = min(self.options.k or len(self.names), len(self.names))
        if not len(logits):
            return most
        if not plain:
            return min(most, int((logits > -np.inf).sum(axis=1).max()))
        threshold = self.options.least
        if threshold == 0:
            return most
        if not self.options.multi:
            return min(most, int(1 / threshold) + 1)  # probabilities sum to 1
        least = np.log(threshold) - np.log1p(-threshold) - _ROUNDING if threshold < 1 else -np.inf
        return min(most, int((logits >= least).sum(axis=1).max()))

    def _probabilities(
        self, logits: npt.NDArray[np.float32], best: npt.NDArray[np.int64]
    ) -> npt.NDArray[np.float64]:
        """Return (N, K) for the labels chosen of (N, C); of all others no more than their sum is needed."""
        chosen = np.take_along_axis(logits, best, axis=1)
        if self.options.multi:
            return sigmoid(chosen)
        highest = logits.max(axis=1, keepdims=True)
        powers = np.exp(logits - highest)
        shares: npt.NDArray[np.float64] = np.exp(np.float64(chosen - highest))
        shares /= powers.sum(axis=1, keepdims=True)
        return shares

    def _shares(self, logits: npt.NDArray[np.float32]) -> Iterable[tuple[LabelShare, ...]]:
        """Return the shares of the labels above others, of each photo, the largest first: the sums of those below."""
        if not self.parents:
            return repeat((), len(logits))
        powers = np.exp(logits - _log_sum_exp(logits)) * (logits > _NEVER)
        sums = np.stack([powers[:, places].sum(axis=1) for places in self.parents.values()], axis=1)  # (N, P)
        order = np.argsort(-sums, axis=1, kind="stable")[:, : self.options.k]
        names = list(self.parents)  # a product with who is below whom is slower: of small ones the threads wait
        rows = zip(order.tolist(), np.take_along_axis(sums, order, axis=1).tolist(), strict=True)
        return (tuple(LabelShare(names[place], share) for place, share in zip(*row, strict=True)) for row in rows)


def _barred(logits: npt.NDArray[np.float32], without: npt.NDArray[np.bool_] | None) -> npt.NDArray[np.float32]:
    """Mark in place the labels that photos do not have; `NONE_OF_THESE`, which comes last, is none of those."""
    if without is not None:
        logits[:, : without.shape[1]][without] = _NEVER
    return logits


def _best(logits: npt.NDArray[np.float32], most: int) -> npt.NDArray[np.int64]:
    """Return the places of the highest (N, K) of each row (N, C), highest first, of equal ones the first."""
    if most > _PICKED:
        return np.argsort(-logits, axis=1, kind="stable")[:, :most]
    left, rows = logits.copy(), np.arange(len(logits))
    best = np.empty((len(logits), most), dtype=np.int64)
    for rank in range(most):
        best[:, rank] = left.argmax(axis=1)
        left[rows, best[:, rank]] = -np.inf
    return best


def _log_sum_exp(logits: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    highest = logits.max(axis=1, keepdims=True)
    found: npt.NDArray[np.float32] = highest + np.log(np.exp(logits - highest).sum(axis=1, keepdims=True))
    return found


def _usual(bank: Callable[[], Bank]) -> Callable[[], Vectors]:
    """Return what gives the middle of a bank's prompts, as the row (1, D) of a product, asked for once."""
    return cache(lambda: bank().mean.astype(np.float32)[None])


def _bank(encoder: LabelEncoder) -> Bank:
    from search import banks

    return banks.load(None, encoder.fingerprint) or banks.make(encoder)


def _thresholds(
    names: Sequence[str], given: Mapping[str, float], heads: Mapping[int, Correction], options: LabelOptions
) -> npt.NDArray[np.float64] | None:
    """Return the least probability of each label: the given, else the learnt where it holds; None if all are one."""
    learnt = heads.items() if options.multi and options.threshold is None else ()
    own = {names[place]: head.threshold for place, head in learnt if head.threshold is not None}
    own |= given
    return np.array([own.get(name, options.least) for name in names]) if own else None


def _parents(labels: Sequence[Label]) -> dict[str, list[int]]:
    """Return the places of the labels at or below each label that is above another."""
    below: dict[str, list[int]] = {}
    for place, label in enumerate(labels):
        for parent in label.parents:
            below.setdefault(parent, []).append(place)
    for place, label in enumerate(labels):
        if label.name in below:
            below[label.name].append(place)
    return below
