"""Vectors drawn as those of photos and of texts lie."""

from __future__ import annotations

import numpy as np

from search.vectors import normalize


def photos(count: int, dim: int, *, clusters: int, seed: int) -> np.ndarray:
    """Vectors in clusters, the same for any seed, with a spectrum that decays as that of photos does."""
    spectrum = np.arange(1, dim + 1) ** -0.5
    random = np.random.default_rng(seed)
    centres = np.random.default_rng(0).standard_normal((clusters, dim)) * spectrum
    rows = centres[random.integers(0, clusters, count)] + 0.7 * random.standard_normal((count, dim)) * spectrum
    return normalize(rows + 0.3)


def texts(count: int, dim: int, *, clusters: int) -> np.ndarray:
    """Queries off the data, as texts are off photos: another mean, and noise in every direction."""
    shift = normalize(np.random.default_rng(5).standard_normal(dim))
    noise = np.random.default_rng(6).standard_normal((count, dim)) / dim**0.5
    return normalize(0.6 * photos(count, dim, clusters=clusters, seed=7) + 0.5 * shift + 0.5 * noise)
