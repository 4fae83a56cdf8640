from __future__ import annotations

import numpy as np
import pytest

from search.relevance import relevance

# 0.1 ± 0.02: for a normal distribution the median absolute deviation is 0.6745 sigma.
USUAL = np.random.default_rng(0).normal(0.1, 0.02, 2000).astype(np.float32)


def test_it_is_the_chance_that_no_unrelated_photo_scores_higher():
    # Φ(3) = 0.99865; of 100 unrelated photos none lies above with 0.99865^100 = 0.8736.
    assert relevance(np.float32([0.16]), USUAL, 100) == [pytest.approx(0.8736, abs=0.03)]  # sampled background


def test_it_rises_with_the_score_and_falls_with_the_library():
    low, middle, high = relevance(np.float32([0.1, 0.15, 0.3]), USUAL, 1000)
    assert 0 <= low < middle < high <= 1
    assert relevance(np.float32([0.16]), USUAL, 10)[0] > relevance(np.float32([0.16]), USUAL, 10_000)[0]


def test_a_standout_is_certain_and_an_average_photo_is_not():
    assert relevance(np.float32([0.4]), USUAL, 1_000_000) == [1.0]
    assert relevance(np.float32([0.1]), USUAL, 1000)[0] < 1e-6


def test_one_photo_alone_is_neither():
    assert relevance(np.float32([0.2]), np.float32([0.2]), 1) == [0.5]


def test_no_background_gives_no_relevance():
    assert relevance(np.float32([0.2]), np.float32([]), 0) == [0.0]
