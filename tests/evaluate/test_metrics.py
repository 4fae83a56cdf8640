from __future__ import annotations

import tracemalloc

import numpy as np
import pytest

from search.evaluate import metrics

SEEDS = range(8)


def drawn(seed: int, rows: int, columns: int, levels: int = 7):
    """Scores with many equal ones, which a definition must decide about."""
    random = np.random.default_rng(seed)
    return random, random.integers(0, levels, (rows, columns)).astype(np.float32)


def order(scores) -> list[int]:
    """Places, the highest first, of equal ones the first."""
    return sorted(range(len(scores)), key=lambda place: (-scores[place], place))


@pytest.mark.parametrize("seed", SEEDS)
def test_top_k_accuracy_counts_rows_whose_class_is_among_the_k_best(seed):
    random, scores = drawn(seed, 40, 9)
    targets = random.integers(0, 9, 40)
    for k in (1, 3, 5, 9):
        hits = [target in order(row)[:k] for row, target in zip(scores, targets, strict=True)]
        assert metrics.top_k_accuracy(scores, targets, k) == pytest.approx(np.mean(hits))


def test_top_5_of_four_classes_is_no_number():
    scores = np.eye(4, dtype=np.float32)
    assert np.isnan(metrics.top_k_accuracy(scores, np.arange(4), 5))
    assert metrics.top_k_accuracy(scores, np.arange(4), 4) == 1
    assert np.isnan(metrics.top_k_accuracy(scores[:0], np.arange(0), 1))


def test_the_best_of_equal_scores_is_the_one_that_argmax_takes():
    random, scores = drawn(0, 200, 4, levels=2)
    targets = random.integers(0, 4, 200)
    assert metrics.top_k_accuracy(scores, targets, 1) == (scores.argmax(axis=1) == targets).mean()


@pytest.mark.parametrize("seed", SEEDS)
def test_mean_per_class_recall_is_balanced_accuracy(seed):
    from sklearn.metrics import balanced_accuracy_score

    random = np.random.default_rng(seed)
    targets, predicted = random.integers(0, 5, 60), random.integers(0, 5, 60)
    ours = metrics.mean_per_class_recall(predicted, targets)
    assert ours == pytest.approx(balanced_accuracy_score(targets, predicted), abs=1e-12)


def test_a_class_without_photos_is_none_of_the_mean():
    assert metrics.mean_per_class_recall(np.array([0, 2, 2]), np.array([0, 0, 2])) == pytest.approx(0.75)
    assert np.isnan(metrics.mean_per_class_recall(np.arange(0), np.arange(0)))


def test_confusion_has_the_true_class_in_rows():
    matrix = metrics.confusion_matrix(np.array([1, 1, 0]), np.array([0, 0, 2]), 3)
    assert matrix.tolist() == [[0, 2, 0], [0, 0, 0], [1, 0, 0]]
    assert np.isnan(metrics.per_class_recall(matrix)).tolist() == [False, True, False]


@pytest.mark.parametrize("seed", SEEDS)
def test_average_precision_is_the_mean_precision_at_each_positive(seed):
    random, scores = drawn(seed, 30, 4)
    truth = random.random((30, 4)) < random.random(4)
    expected = []
    for column in range(4):
        right = [bool(truth[row, column]) for row in order(scores[:, column])]
        precisions = [sum(right[: rank + 1]) / (rank + 1) for rank, hit in enumerate(right) if hit]
        expected.append(sum(precisions) / max(1, len(precisions)))
    ours = [metrics.average_precision(scores[:, column], truth[:, column]) for column in range(4)]
    assert ours == pytest.approx(expected, abs=1e-12)
    assert metrics.mean_average_precision(scores, truth) == pytest.approx(np.mean(expected), abs=1e-12)


def test_known_average_precisions():
    scores = np.array([0.9, 0.8, 0.7, 0.6])
    assert metrics.average_precision(scores, np.array([True, False, True, False])) == pytest.approx(
        (1 + 2 / 3) / 2
    )
    assert metrics.average_precision(scores, np.zeros(4, bool)) == 0


@pytest.mark.parametrize("seed", SEEDS)
def test_recall_at_k_is_the_share_of_a_querys_positives(seed):
    random, scores = drawn(seed, 20, 15)
    positives = random.random((20, 15)) < 0.3
    positives[:, 0] |= ~positives.any(axis=1)
    for k in (1, 5, 15):
        expected = [
            len(set(order(row)[:k]) & set(np.flatnonzero(own))) / own.sum()
            for row, own in zip(scores, positives, strict=True)
        ]
        assert metrics.recall_at_k(scores, positives, k) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("block", [1, 64, 2**24])
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_first_positive_ranks_say_what_the_matrix_says(seed, block, monkeypatch):
    monkeypatch.setattr(metrics, "_BLOCK_SCORES", block)
    random = np.random.default_rng(seed)
    queries = random.integers(-2, 3, (23, 4)).astype(
        np.float32
    )  # whole numbers: products are exact, many are equal
    gallery = random.integers(-2, 3, (31, 4)).astype(np.float32)
    owners, of = random.integers(0, 12, 23), random.integers(0, 12, 31)
    scores, positives = queries @ gallery.T, owners[:, None] == of[None, :]
    found = metrics.first_positive_ranks(queries, gallery, owners, of)
    for row in range(23):
        places = [rank for rank, place in enumerate(order(scores[row])) if positives[row, place]]
        assert found[row] == (places[0] if places else 31)


def test_recall_of_many_photos_needs_little_more_than_a_block_of_scores(monkeypatch):
    monkeypatch.setattr(metrics, "_BLOCK_SCORES", 2**16)
    random = np.random.default_rng(0)
    images = random.standard_normal((2000, 8)).astype(np.float32)
    owners = np.arange(10_000) % 2000
    texts = images[owners]
    tracemalloc.start()
    try:
        metrics.first_positive_ranks(texts, images, owners, np.arange(2000))
        _, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert most < 4e6  # the whole matrix takes 80 MB, a block 0.26
