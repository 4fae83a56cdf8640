"""The best by every one of several vectors, against scoring every photo."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from search.errors import IndexUnavailable
from search.vectors import cosines, minimum, normalize
from search.vectors.exact import ExactIndex
from search.vectors.mapped import MappedIndex

DIM = 8


def unit(n: int, draw: np.random.Generator) -> np.ndarray:
    return normalize(draw.standard_normal((n, DIM)))


def filled(kind: str, ids: np.ndarray, vectors: np.ndarray):
    if kind == "mapped":
        return MappedIndex(ids, vectors.astype(np.float16))
    index = ExactIndex(DIM)
    index.add(ids, vectors)
    return index


def brute_force(ids, vectors, queries, standings, k):
    """The k best by their lowest standing over all photos, the lower id first among equals."""
    scores = np.stack([cosines(vectors, query) for query in queries])
    lowest = np.stack([stand(row) for stand, row in zip(standings, scores, strict=True)]).min(axis=0)
    order = np.lexsort((ids, -lowest))[:k]
    return ids[order], scores[:, order]


def scaled(draw: np.random.Generator):
    """A standing as calibration gives it: scores shifted and stretched."""
    middle, spread = np.float32(draw.uniform(-0.5, 0.5)), np.float32(draw.uniform(0.01, 1))
    return lambda scores: (scores - middle) / spread


@pytest.mark.parametrize("kind", ["memory", "mapped"])
@given(
    seed=st.integers(0, 2**32 - 1),
    n=st.integers(0, 600),
    clauses=st.integers(1, 5),
    k=st.integers(1, 12),
    part=st.sampled_from([None, 0.0, 0.05, 0.5, 1.0]),
    different=st.sampled_from([1, 3, 600]),
)
def test_the_best_by_every_vector_are_those_of_scoring_all(kind, seed, n, clauses, k, part, different):
    draw = np.random.default_rng(seed)
    ids = np.sort(draw.choice(5000, n, replace=False)).astype(np.int64)
    kept = unit(different, draw)[draw.integers(0, different, n)].astype(np.float16)
    vectors = normalize(kept)
    index = filled(kind, ids, vectors if kind == "memory" else kept)
    queries, standings = unit(clauses, draw), [scaled(draw) for _ in range(clauses)]
    within = None if part is None else ids[draw.random(n) < part]
    chosen = slice(None) if within is None else np.isin(ids, within)
    expected = brute_force(ids[chosen], vectors[chosen], queries, standings, k)
    found = minimum.search_minimum(index, queries, standings, k, within=within)
    assert found[0].tolist() == expected[0].tolist()
    assert found[1].tolist() == expected[1].tolist()


class Counting(ExactIndex):
    """Notes how deep its lists were read."""

    depths: list[int]

    def search(self, vectors, k, **more):
        self.depths.append(k)
        return super().search(vectors, k, **more)


def test_lists_are_read_no_deeper_than_need_be():
    draw = np.random.default_rng(1)
    index = Counting(DIM)
    index.depths = []
    index.add(np.arange(20_000), unit(20_000, draw))
    one = unit(1, draw)
    alike = normalize(one + 0.05 * unit(3, draw))
    minimum.search_minimum(index, alike, [lambda scores: scores] * 3, 5)
    assert index.depths == [64, index.depths[1]]  # near enough at once, then all that was found is scored
    index.depths.clear()
    minimum.search_minimum(index, unit(3, draw), [lambda scores: scores] * 3, 5)
    assert 64 < max(index.depths[::2]) < 20_000


def test_where_an_index_names_no_more_the_best_of_those_it_named_are_found():
    class Shallow(ExactIndex):
        names = 100

        def search(self, vectors, k, *, within=None, where=None):
            if within is None and k > self.names:
                raise IndexUnavailable("names no more")
            return super().search(vectors, k, within=within, where=where)

    draw = np.random.default_rng(1)
    index = Shallow(DIM)
    index.add(np.arange(20_000), unit(20_000, draw))
    queries, standings = unit(3, draw), [lambda scores: scores] * 3
    ids, scores = minimum.search_minimum(index, queries, standings, 5)
    near = np.unique(index.search(queries, 64)[0])
    assert ids.tolist() == near[np.argsort(-(queries @ index.vectors(near).T).min(axis=0))[:5]].tolist()
    assert scores.shape == (3, 5)
    index.names = 10
    with pytest.raises(IndexUnavailable):
        minimum.search_minimum(index, queries, standings, 5)


def test_a_photo_good_by_all_comes_before_one_that_is_best_by_one():
    axes = np.eye(DIM, dtype=np.float32)
    vectors = normalize(np.stack([axes[0], axes[1], axes[0] + axes[1], axes[2]]))
    index = filled("memory", np.arange(4), vectors)
    ids, scores = minimum.search_minimum(index, axes[:2], [lambda scores: scores] * 2, 2)
    assert ids.tolist() == [2, 0]
    np.testing.assert_allclose(scores, [[2**-0.5, 1], [2**-0.5, 0]], atol=1e-6)


def test_ids_without_vectors_are_no_matter():
    draw = np.random.default_rng(2)
    index = filled("memory", np.arange(3), unit(3, draw))
    ids, scores = minimum.search_minimum(
        index, unit(2, draw), [lambda scores: scores] * 2, 5, within=np.arange(1, 9)
    )
    assert sorted(ids.tolist()) == [1, 2]
    assert scores.shape == (2, 2)
