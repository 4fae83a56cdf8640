from __future__ import annotations

import numpy as np

from search.diversity import TWIN, diverse, pool_size
from search.vectors import normalize

EAST, NORTH, BETWEEN = np.float32([1, 0]), np.float32([0, 1]), np.float32([0.8, 0.6])


def test_the_best_comes_first_and_the_next_is_unlike_it():
    vectors = np.stack([EAST, BETWEEN, NORTH])
    # Scores to [0, 1]: 1, 0.8, 0.6 -> 1, 0.5, 0. Second: 0.7 · 0.5 - 0.3 · 0.8 = 0.11 against 0 - 0 = 0.
    assert diverse(vectors, np.float32([1, 0.8, 0.6]), 3) == [0, 1, 2]
    # 1, 0.7, 0.65, 0.6 -> …, 0.25, 0.125, 0: 0.175 - 0.24 < 0.0875 - 0.
    four = np.stack([EAST, BETWEEN, NORTH, BETWEEN])
    assert diverse(four, np.float32([1, 0.7, 0.65, 0.6]), 2) == [0, 2]


def test_near_duplicates_come_only_where_nothing_else_is_left():
    twin = normalize(np.float32([1, 0.1]))
    assert twin @ EAST > TWIN
    vectors = np.stack([EAST, twin, EAST, NORTH])
    scores = np.float32([0.9, 0.89, 0.88, 0.1])
    assert diverse(vectors, scores, 2) == [0, 3]
    assert diverse(vectors, scores, 4)[:2] == [0, 3]
    assert sorted(diverse(vectors, scores, 4)) == [0, 1, 2, 3]


def test_as_many_as_there_are_and_no_more():
    vectors = normalize(np.random.default_rng(0).normal(size=(40, 8)))
    scores = np.sort(np.random.default_rng(1).random(40).astype(np.float32))[::-1]
    assert len(set(diverse(vectors, scores, 10))) == 10
    assert sorted(diverse(vectors, scores, 100)) == list(range(40))
    assert diverse(vectors[:0], scores[:0], 5) == []


def test_equal_scores_are_told_apart_by_likeness_alone():
    assert diverse(np.stack([EAST, BETWEEN, NORTH]), np.float32([0.3, 0.3, 0.3]), 2) == [0, 2]


def test_the_pool_grows_with_what_is_asked_for():
    assert (pool_size(1), pool_size(10), pool_size(50)) == (100, 100, 500)
