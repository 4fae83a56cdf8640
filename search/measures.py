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


def wilson(share: npt.ArrayLike, count: npt.ArrayLike, deviations: float) -> tuple[Floats, Floats]:
    """Return the bounds of shares of so many independent examples (E. B. Wilson, 1927).

    deviations: how many standard deviations the bounds lie from the middle, 1.96 for 95 % between them.
    """
    seen, examples = np.asarray(share, np.float64), np.asarray(count, np.float64)
    spread = deviations**2 / examples
    half = deviations * np.sqrt(seen * (1 - seen) / examples + spread / (4 * examples))
    middle = seen + spread / 2
    return (middle - half) / (1 + spread), (middle + half) / (1 + spread)
