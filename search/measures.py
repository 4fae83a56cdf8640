"""Formulas that labelling, learning and measuring share."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import numpy.typing as npt

    Floats = npt.NDArray[np.float64]


def sigmoid(logits: npt.ArrayLike) -> Floats:
    """Return 1 / (1 + e^-x) without overflow."""
    probabilities: Floats = (1 + np.tanh(np.asarray(logits, np.float64) / 2)) / 2
    return probabilities


def average_precision(scores: npt.NDArray[np.floating], targets: npt.NDArray[np.bool_]) -> float:
    """Return the mean precision at the rank of each right one, best first; nan if there is none.

    scores, targets: (N,); of equal scores the first counts as better.
    """
    right = targets[np.argsort(-scores, kind="stable")]
    precision = np.cumsum(right) / np.arange(1, len(right) + 1)
    return float(precision[right].mean()) if right.any() else float("nan")


def wilson(share: npt.ArrayLike, count: npt.ArrayLike, deviations: float) -> tuple[Floats, Floats]:
    """Return the bounds of shares of so many independent examples (E. B. Wilson, 1927).

    deviations: how many standard deviations the bounds lie from the middle, 1.96 for 95 % between them.
    """
    seen, examples = np.asarray(share, np.float64), np.asarray(count, np.float64)
    spread = deviations**2 / examples
    half = deviations * np.sqrt(seen * (1 - seen) / examples + spread / (4 * examples))
    middle = seen + spread / 2
    return (middle - half) / (1 + spread), (middle + half) / (1 + spread)
