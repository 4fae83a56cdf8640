"""How sure a figure is, and whether two differ: bootstrap intervals, McNemar's test, Holm's correction."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import numpy.typing as npt

    Values = npt.NDArray[np.float64]

CONFIDENCE = 0.95
RESAMPLES = 10_000
_FEW = 64  # different values, up to which drawing how often each occurs is faster than drawing rows
_DRAWN = 2**20  # rows drawn at a time
_CROSSED_RESAMPLES = 2_000


@dataclass(frozen=True, slots=True)
class Interval:
    """A value and the bounds it lies between with the stated confidence."""

    low: float
    value: float
    high: float

    def excludes(self, value: float) -> bool:
        """Say whether a value lies outside."""
        return not self.low <= value <= self.high


@dataclass(frozen=True, slots=True)
class Paired:
    """Two ways on the same photos.

    only_first, only_second: photos that one alone got right.   difference: of the accuracies, first less second.
    p: McNemar's, mid-p.   needed: photos of this kind at which such a difference would be found four times in five;
    None where there is none.
    """

    only_first: int
    only_second: int
    difference: Interval
    p: float
    needed: int | None


def bootstrap(
    values: npt.NDArray[Any],
    *,
    strata: npt.NDArray[Any] | None = None,
    equally: bool = False,
    resamples: int = RESAMPLES,
    seed: int = 0,
    confidence: float = CONFIDENCE,
) -> Interval:
    """Return the mean of values (N,) between the percentiles of its bootstrap.

    strata: (N,) groups, each resampled within itself.   equally: every group weighs the same, else every value.
    """
    rows = np.asarray(values, np.float64)
    groups = [rows] if strata is None else [rows[strata == group] for group in np.unique(strata)]
    sizes = np.array([len(group) for group in groups], np.float64)
    shares = np.full(len(groups), 1 / len(groups)) if equally else sizes / sizes.sum()
    random = np.random.default_rng(seed)
    means = np.zeros(resamples)
    for share, group in zip(shares, groups, strict=True):
        means += share * _resampled(group, resamples, random)
    return _between(means, float(shares @ [group.mean() for group in groups]), confidence)


def share(correct: npt.NDArray[np.bool_], *, seed: int = 0, confidence: float = CONFIDENCE) -> Interval:
    """Return the share of (N,) that is true, between its bounds.

    Where all or none are, resampling knows no doubt; then the open bound is the exact one of Clopper and Pearson.
    """
    tail = ((1 - confidence) / 2) ** (1 / len(correct))
    if correct.all():
        return Interval(tail, 1.0, 1.0)
    return bootstrap(correct, seed=seed, confidence=confidence) if correct.any() else Interval(0.0, 0.0, 1 - tail)


def crossed(values: npt.NDArray[Any], *, seed: int = 0, confidence: float = CONFIDENCE) -> Interval:
    """Return the mean of values (S, N) when other trainings (rows) and other photos (columns) had been drawn."""
    rows, columns = values.shape
    random = np.random.default_rng(seed)
    trainings = random.multinomial(rows, np.full(rows, 1 / rows), size=_CROSSED_RESAMPLES) @ values / rows
    means = np.empty(_CROSSED_RESAMPLES)
    step = max(1, _DRAWN // columns)
    for start in range(0, _CROSSED_RESAMPLES, step):
        part = trainings[start : start + step]  # (R, N)
        drawn = random.integers(0, columns, part.shape)
        means[start : start + step] = np.take_along_axis(part, drawn, axis=1).mean(axis=1)
    return _between(means, float(values.mean()), confidence)


def _resampled(values: Values, resamples: int, random: np.random.Generator) -> Values:
    """Return the means (R,) of resamples with replacement."""
    different, counts = np.unique(values, return_counts=True)
    size = len(values)
    if len(different) <= _FEW:
        drawn = random.multinomial(size, counts / size, size=resamples)
        means: Values = drawn @ different / size
        return means
    step = max(1, _DRAWN // size)
    chunks = [min(step, resamples - start) for start in range(0, resamples, step)]
    return np.concatenate([values[random.integers(0, size, (chunk, size))].mean(axis=1) for chunk in chunks])


def _between(means: Values, value: float, confidence: float) -> Interval:
    low, high = np.quantile(means, [(1 - confidence) / 2, (1 + confidence) / 2]).tolist()
    return Interval(low, value, high)


def paired(first: npt.NDArray[np.bool_], second: npt.NDArray[np.bool_], *, seed: int = 0) -> Paired:
    """Compare what two ways got right (N,) of the same photos."""
    only_first, only_second = int((first & ~second).sum()), int((second & ~first).sum())
    difference = bootstrap(first.astype(np.int8) - second.astype(np.int8), seed=seed)
    needed = photos_needed(only_first, only_second, photos=len(first))
    return Paired(only_first, only_second, difference, mcnemar(only_first, only_second), needed)


def mcnemar(only_first: int, only_second: int) -> float:
    """Return the two-sided mid-p of McNemar's exact test.

    only_first, only_second: how many photos one of the two ways alone got right. Photos that both or neither got
    right say nothing of their difference. The mid-p (Lancaster) is less conservative than the exact p and keeps its
    level nearly always (Fagerland et al., doi:10.1186/1471-2288-13-91).
    """
    total, few = only_first + only_second, min(only_first, only_second)
    fewer, ways = 0, 1  # ways to share the photos out: all with a smaller part than seen, and just as seen
    for count in range(few):
        fewer += ways
        ways = ways * (total - count) // (count + 1)
    p: float = (2 * fewer + ways) / 2**total
    return min(1.0, p)


def holm(p_values: Sequence[float]) -> list[float]:
    """Return p values corrected for how many there are, in their order (Holm's step-down method)."""
    corrected = [1.0] * len(p_values)
    highest = 0.0
    for rank, place in enumerate(sorted(range(len(p_values)), key=p_values.__getitem__)):
        highest = max(highest, min(1.0, (len(p_values) - rank) * p_values[place]))
        corrected[place] = highest
    return corrected


def photos_needed(
    only_first: int, only_second: int, *, photos: int, power: float = 0.8, confidence: float = CONFIDENCE
) -> int | None:
    """Return how many photos would tell such a difference from chance; None where there is no difference.

    power: how often it would be found.   Connor's formula for paired shares (doi:10.2307/2531961).
    """
    differ = (only_first + only_second) / photos
    gap = abs(only_first - only_second) / photos
    if not gap:
        return None
    z_level, z_power = (NormalDist().inv_cdf(part) for part in ((1 + confidence) / 2, power))
    return math.ceil(((z_level * math.sqrt(differ) + z_power * math.sqrt(max(0.0, differ - gap**2))) / gap) ** 2)
