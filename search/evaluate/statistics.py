"""How sure a figure is, and whether two differ: Wilson's intervals, McNemar's test, Holm's correction."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import TYPE_CHECKING, Any

import numpy as np

from search import measures

if TYPE_CHECKING:
    import numpy.typing as npt

    Values = npt.NDArray[np.float64]

CONFIDENCE = 0.95
_DRAWN = 2**20  # rows drawn at a time
_CROSSED_RESAMPLES = 2_000
_SMOOTHING = 2.0  # photos as good as the mean that stand beside each class's own where its spread is guessed


@dataclass(frozen=True, slots=True)
class Interval:
    """A value and the bounds it lies between with the stated confidence."""

    low: float
    value: float
    high: float


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


def wilson(value: float, photos: float, *, confidence: float = CONFIDENCE) -> Interval:
    """Return a share of so many independent photos between Wilson's bounds; never without doubt."""
    z = NormalDist().inv_cdf((1 + confidence) / 2)
    low, high = (float(bound) for bound in measures.wilson(value, photos, z))
    return Interval(max(0.0, min(low, value)), value, min(1.0, max(high, value)))


def share(correct: npt.NDArray[np.bool_], *, confidence: float = CONFIDENCE) -> Interval:
    """Return the share of (N,) that is true, between Wilson's bounds."""
    return wilson(float(correct.mean()), len(correct), confidence=confidence)


def mean_share(
    correct: npt.NDArray[np.bool_], classes: npt.NDArray[np.int64], *, confidence: float = CONFIDENCE
) -> Interval:
    """Return the mean over classes of the share of (N,) that is true, between its bounds.

    classes: (N,).   The bounds are Wilson's for as many photos as would leave the same doubt. What a class varies by
    is guessed from its own photos and a few as good as the mean: one of a class alone says nothing of it.
    """
    _, places, sizes = np.unique(classes, return_inverse=True, return_counts=True)
    right = np.bincount(places, weights=correct)
    value = float((right / sizes).mean())
    alike = float((1 / sizes).sum())
    smooth = (right + _SMOOTHING * value) / (sizes + _SMOOTHING)
    spread = float((smooth * (1 - smooth) / sizes).sum())
    doubt = spread / (value * (1 - value)) if 0 < value < 1 else alike
    return wilson(value, len(sizes) ** 2 / doubt, confidence=confidence)


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


def _between(means: Values, value: float, confidence: float) -> Interval:
    low, high = np.quantile(means, [(1 - confidence) / 2, (1 + confidence) / 2]).tolist()
    return Interval(low, value, high)


def paired(first: npt.NDArray[np.bool_], second: npt.NDArray[np.bool_]) -> Paired:
    """Compare what two ways got right (N,) of the same photos."""
    only_first, only_second = int((first & ~second).sum()), int((second & ~first).sum())
    needed = photos_needed(only_first, only_second, photos=len(first))
    return Paired(only_first, only_second, _difference(first, second), mcnemar(only_first, only_second), needed)


def apart(first: Interval, second: Interval, *, alike: float = 0.0) -> Interval:
    """Return how far two shares are apart (Newcombe's hybrid of their own intervals).

    alike: the correlation of what they are shares of; 0 for different photos.
    """
    gap = first.value - second.value
    low = _hybrid(first.value - first.low, second.high - second.value, alike)
    high = _hybrid(first.high - first.value, second.value - second.low, alike)
    return Interval(gap - low, gap, gap + high)


def _hybrid(one: float, other: float, alike: float) -> float:
    return math.sqrt(max(0.0, one**2 - 2 * alike * one * other + other**2))


def _difference(first: npt.NDArray[np.bool_], second: npt.NDArray[np.bool_]) -> Interval:
    """Newcombe's interval of the difference of two shares of the same photos, with his correction for few.

    doi:10.1002/(SICI)1097-0258(19981130)17:22<2635::AID-SIM954>3.0.CO;2-C, method 10.
    """
    photos = len(first)
    both, neither = int((first & second).sum()), int((~first & ~second).sum())
    one, other = int((first & ~second).sum()), int((second & ~first).sum())
    cross = both * neither - one * other
    few = max(cross - photos / 2, 0.0) if cross > 0 else float(cross)
    sums = (both + one) * (other + neither) * (both + other) * (one + neither)
    return apart(share(first), share(second), alike=few / math.sqrt(sums) if sums else 0.0)


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
