"""What every VectorIndex must do, run against each of them."""

from __future__ import annotations

import numpy as np
import pytest

from search.errors import DimensionError, UsageError
from search.vectors import normalize, open_index

DIM = 16


@pytest.fixture(params=["exact:", "faiss:"])
def index(request):
    return open_index(request.param, DIM)


def unit(n: int, seed: int = 0) -> np.ndarray:
    return normalize(np.random.default_rng(seed).standard_normal((n, DIM)))


def filled(index, n: int = 200):
    ids = np.arange(1000, 1000 + n)
    vectors = unit(n)
    index.add(ids, vectors)
    return ids, vectors


def test_a_vector_finds_itself_first_with_cosine_one(index):
    ids, vectors = filled(index)
    found, scores = index.search(vectors, 1)
    assert found[:, 0].tolist() == ids.tolist()
    assert scores[:, 0] == pytest.approx(np.ones(len(ids)), abs=1e-6)  # float32 sums


def test_scores_are_cosines_in_descending_order(index):
    ids, vectors = filled(index)
    query = unit(3, seed=9)
    found, scores = index.search(query, 10)
    cosines = query @ vectors.T
    expected = np.argsort(-cosines, axis=1)[:, :10]
    assert found.tolist() == ids[expected].tolist()
    np.testing.assert_allclose(scores, np.take_along_axis(cosines, expected, axis=1), atol=1e-6)


def test_adding_a_known_id_replaces_its_vector(index):
    ids, vectors = filled(index)
    new = unit(1, seed=5)
    index.add(ids[:1], new)
    assert len(index) == len(ids)
    assert index.search(new, 1)[0][0, 0] == ids[0]
    assert index.search(vectors[:1], 1)[0][0, 0] != ids[0]


def test_removed_ids_are_never_found_and_unknown_ones_are_ignored(index):
    ids, vectors = filled(index)
    index.remove(np.array([ids[3], 77]))
    assert len(index) == len(ids) - 1
    assert ids[3] not in index.search(vectors[3:4], len(ids))[0]


@pytest.mark.parametrize("count", [1, 3, 50, 199])
def test_every_one_of_a_selection_is_returned(index, count):
    ids, _ = filled(index)
    within = np.random.default_rng(count).permutation(ids)[:count]
    found, scores = index.search(unit(2, seed=4), 200, within=within)
    for row in found:
        assert sorted(row[row >= 0].tolist()) == sorted(within.tolist())
    assert (scores[found < 0] == -np.inf).all()


def test_a_selection_far_from_zero_is_honoured(index):
    ids = np.array([7, 10**12, 10**15])
    index.add(ids, unit(3))
    found, _ = index.search(unit(1, seed=2), 3, within=ids[1:])
    assert sorted(found[0].tolist()) == [-1, 10**12, 10**15]


def test_an_empty_selection_returns_no_hits(index):
    filled(index)
    found, scores = index.search(unit(2), 5, within=np.array([], np.int64))
    assert (found == -1).all()
    assert (scores == -np.inf).all()


def test_no_selection_means_all(index):
    ids, _ = filled(index)
    assert sorted(index.search(unit(1), 200)[0][0].tolist()) == ids.tolist()


def test_fewer_than_k_are_padded(index):
    filled(index, 3)
    found, scores = index.search(unit(1), 5)
    assert found.shape == scores.shape == (1, 5)
    assert (found[0, 3:] == -1).all()
    assert (scores[0, 3:] == -np.inf).all()


def test_an_empty_index_finds_nothing(index):
    found, _ = index.search(unit(2), 4)
    assert found.tolist() == [[-1] * 4] * 2


def test_no_queries_give_no_rows(index):
    filled(index)
    assert index.search(unit(0), 4)[0].shape == (0, 4)


def test_another_width_is_refused(index):
    with pytest.raises(DimensionError, match=r"\(N, 16\)"):
        index.add(np.array([1]), np.zeros((1, 8), np.float32))
    with pytest.raises(DimensionError):
        index.search(np.zeros((1, 17), np.float32), 1)


def test_faiss_agrees_with_exact_after_a_history_of_changes():
    exact, flat = open_index("exact:", DIM), open_index("faiss:", DIM)
    random = np.random.default_rng(3)
    for step in range(30):
        ids = random.choice(60, 10, replace=False).astype(np.int64)
        for index in (exact, flat):
            index.add(ids, unit(10, seed=step)) if step % 3 else index.remove(ids)
        assert len(exact) == len(flat)
        within = random.choice(60, 20, replace=False).astype(np.int64) if step % 2 else None
        queries = unit(4, seed=100 + step)
        a, b = exact.search(queries, 8, within=within), flat.search(queries, 8, within=within)
        assert a[0].tolist() == b[0].tolist()
        np.testing.assert_allclose(a[1], b[1], atol=1e-6)


def test_an_unknown_kind_is_refused():
    with pytest.raises(UsageError, match="nope"):
        open_index("nope:", 4)


def test_normalize_keeps_zero_rows_and_float32():
    unit_rows = normalize([[3, 4], [0, 0]])
    assert unit_rows.dtype == np.float32
    assert unit_rows.tolist() == [[np.float32(0.6), np.float32(0.8)], [0, 0]]
