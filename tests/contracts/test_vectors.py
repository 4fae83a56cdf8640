"""What every VectorIndex must do, run against each of them."""

from __future__ import annotations

from pathlib import Path
from tempfile import gettempdir

import numpy as np
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule
from vector_stores import Pushed, embedded

from search.errors import DimensionError
from search.vectors import best, cosines, normalize, scan
from search.vectors.coarse import LEAST, Coarse, Codebook, Layout, encode
from search.vectors.exact import ExactIndex
from search.vectors.lists import Filing, ListBook, Lists, lists_for
from search.vectors.mapped import MappedIndex
from search.vectors.stores import open_store

DIM = 16
KINDS = ["memory", "mapped", "scanned", "codes", "lists"]
STORES = ["milvus-lite", "pgvector", pytest.param("milvus", marks=pytest.mark.milvus)]
STRANGERS = np.arange(10_000, 10_300)  # ids of what lies in a base and is gone


@pytest.fixture(params=[*KINDS, *STORES])
def index(request, monkeypatch):
    if request.param in KINDS:
        return make(request.param, monkeypatch)
    return Pushed(request.getfixturevalue(request.param.replace("-", "_")), DIM)


@pytest.fixture(scope="module")
def milvus_lite(tmp_path_factory):
    with embedded(tmp_path_factory.mktemp("milvus")) as store:
        yield store


@pytest.fixture(scope="module")
def pgvector(postgres):
    store = open_store(postgres.uri(postgres.database()))
    yield store
    store.close()


@pytest.fixture(scope="module")
def milvus(milvus_server):
    store = open_store(f"{milvus_server.url}/contract")
    yield store
    store.close()


def make(kind: str, monkeypatch):
    """An index that holds nothing; the mapped ones over a base of which everything was removed."""
    if kind == "memory":
        return ExactIndex(DIM)
    made = over(STRANGERS, unit(len(STRANGERS), seed=77), kind, monkeypatch)
    made.remove(STRANGERS)
    return made


def over(ids: np.ndarray, vectors: np.ndarray, kind: str, monkeypatch) -> MappedIndex:
    """An index whose base holds these vectors, in float16."""
    halves = vectors.astype(np.float16)
    if kind != "mapped":
        monkeypatch.setattr(scan, "FEW", 0)
        monkeypatch.setattr(Coarse, "worth", 30)
        monkeypatch.setattr(Lists, "worth", 30)
    made = {"codes": codes, "lists": lists}.get(kind)
    return MappedIndex(ids, halves, made(ids, halves) if made else None)


def codes(ids: np.ndarray, halves: np.ndarray) -> Coarse:
    content = b"".join(encode(ids, halves, Codebook.learn(halves)))
    return Coarse(np.frombuffer(content, np.uint8), Layout(*halves.shape))


def lists(ids: np.ndarray, halves: np.ndarray) -> Lists:
    filing = Filing(ids, halves, ListBook.learn(halves, lists_for(len(ids))))
    content = b"".join(filing.parts(Path(gettempdir())))
    return Lists(np.frombuffer(content, np.uint8), filing.layout, filing.layout.lists)  # all are read: exact


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


@pytest.mark.parametrize("kind", KINDS[1:])
def test_a_base_is_searched_as_if_it_had_been_added(kind, monkeypatch):
    ids, vectors = np.arange(0, 900, 3), unit(300)
    base, added = over(ids, vectors, kind, monkeypatch), ExactIndex(DIM)
    added.add(ids, normalize(vectors.astype(np.float16)))
    assert (len(base), base.dim) == (300, DIM)
    for within in (None, ids[::2], ids[:5], np.array([1, 2]), np.empty(0, np.int64)):
        mine, expected = (i.search(unit(6, seed=5), 12, within=within) for i in (base, added))
        assert mine[0].tolist() == expected[0].tolist()
        assert mine[1].tolist() == expected[1].tolist()  # to the last bit, whichever part a row is in


def test_equal_scores_come_by_id_wherever_they_lie(monkeypatch):
    one = np.repeat(unit(1), 6, axis=0)
    index = over(np.array([3, 5, 7, 9, 11, 13]), one, "mapped", monkeypatch)
    index.add(np.array([4, 9]), normalize(one[:2].astype(np.float16)))
    assert index.search(one[:1], 8)[0].tolist() == [[3, 4, 5, 7, 9, 11, 13, -1]]


@pytest.mark.parametrize("kind", KINDS[1:])
@pytest.mark.parametrize("different", [1, 2, 300])
def test_rows_that_are_alike_are_all_found(kind, different, monkeypatch):
    ids, vectors = np.arange(300), np.tile(unit(different), (300 // different, 1))
    index = over(ids, vectors, kind, monkeypatch)
    assert set(index.search(-vectors[:1], 300)[0][0].tolist()) == set(ids.tolist())
    assert set(index.search(vectors[:1], 250, within=ids[50:])[0][0].tolist()) == set(ids[50:].tolist())
    index.remove(ids[::2])
    assert set(index.search(vectors[:1], 300)[0][0].tolist()) == {-1, *ids[1::2].tolist()}


@pytest.mark.parametrize("kind", KINDS[1:])
def test_a_sample_of_every_second_photo_is_there_whichever_half_was_removed(kind, monkeypatch):
    for removed in (0, 1):
        index = over(np.arange(300), unit(300), kind, monkeypatch)
        index.remove(np.arange(removed, 300, 2))
        assert len(index.sample(75)[0]) >= 75


@pytest.mark.parametrize("size", [1, 50, 10_000])
def test_a_sample_is_taken_evenly_from_what_is_there(index, size):
    ids, vectors = filled(index)
    index.remove(ids[:20])
    found, rows = index.sample(size)
    assert set(found.tolist()) <= set(ids[20:].tolist())
    assert len(found) == len(set(found.tolist())) >= min(size, 180)
    np.testing.assert_array_equal(rows, vectors[found - ids[0]])


class Histories(RuleBasedStateMachine):
    """Any history of changes and searches, held against a dictionary."""

    kind = "mapped"

    @initialize(count=st.integers(0, 300), step=st.sampled_from([1, 3]), seed=st.integers(0, 9))
    def begin(self, count, step, seed):
        self.patch = pytest.MonkeyPatch()
        ids, vectors = np.arange(5, 5 + count * step, step, dtype=np.int64), unit(count, seed=seed)
        kind = self.kind if count >= LEAST or self.kind != "codes" else "scanned"
        self.index = over(ids, vectors, kind, self.patch)
        self.rows = dict(zip(ids.tolist(), normalize(vectors.astype(np.float16)), strict=True))

    def teardown(self):
        if hasattr(self, "patch"):
            self.patch.undo()

    @rule(ids=st.sets(st.integers(0, 1000), min_size=1, max_size=40), seed=st.integers(0, 99))
    def add(self, ids, seed):
        vectors = unit(len(ids), seed=seed)
        self.index.add(np.array(sorted(ids)), vectors)
        self.rows |= dict(zip(sorted(ids), vectors, strict=True))

    @rule(ids=st.sets(st.integers(0, 1000), max_size=200))
    def remove(self, ids):
        self.index.remove(np.array(sorted(ids), np.int64))
        for id_ in ids:
            self.rows.pop(id_, None)

    @rule(seed=st.integers(0, 99), k=st.integers(1, 40), within=st.none() | st.sets(st.integers(0, 1000)))
    def search(self, seed, k, within):
        query = unit(1, seed=1000 + seed)
        chosen = None if within is None else np.array(sorted(within), np.int64)
        found, scores = self.index.search(query, k, within=chosen)
        ids = np.array(sorted(set(self.rows) if within is None else within & set(self.rows)), np.int64)
        rows = np.array([self.rows[id_] for id_ in ids.tolist()], np.float32).reshape(-1, DIM)
        expected = best(ids, cosines(rows, query[0]), k)
        assert found[0].tolist() == expected[0].tolist()
        assert scores[0].tolist() == expected[1].tolist()
        assert len(self.index) == len(self.rows)


class ScannedHistories(Histories):
    kind = "scanned"


class CodedHistories(Histories):
    kind = "codes"


for histories in (Histories, ScannedHistories, CodedHistories):
    histories.TestCase.settings = settings(max_examples=15, stateful_step_count=15, deadline=None)
TestHistories, TestScanned, TestCoded = Histories.TestCase, ScannedHistories.TestCase, CodedHistories.TestCase


def test_normalize_keeps_zero_rows_and_float32():
    unit_rows = normalize([[3, 4], [0, 0]])
    assert unit_rows.dtype == np.float32
    assert unit_rows.tolist() == [[np.float32(0.6), np.float32(0.8)], [0, 0]]


# ---- many at once


def test_vectors_come_back_in_the_order_asked_and_as_zeros_where_unknown(index):
    ids, vectors = filled(index)
    index.remove(ids[:5])
    index.add(ids[5:6], vectors[:1])
    found = index.vectors(np.array([1050, 999, 1005, 1004, 1199]))
    wanted = np.stack([vectors[50], np.zeros(DIM), vectors[0], np.zeros(DIM), vectors[199]])
    np.testing.assert_allclose(found, wanted, atol=1e-3)  # float16 rows


def test_near_pairs_are_those_that_every_pair_looked_at_gives(index):
    ids, vectors = filled(index)
    gone, scores = set(ids[:20].tolist()), vectors @ vectors.T
    index.remove(ids[:20])
    found = index.near_pairs(200, least=0.5)
    wanted = {
        (int(ids[i]), int(ids[j]))
        for i, j in zip(*np.nonzero(np.triu(scores, 1) >= 0.5), strict=True)
        if not {int(ids[i]), int(ids[j])} & gone
    }
    assert set(zip(found.first.tolist(), found.second.tolist(), strict=True)) == wanted
    np.testing.assert_allclose(found.scores, scores[found.first - 1000, found.second - 1000], atol=1e-3)


def test_near_pairs_within_a_selection_are_of_that_selection(index):
    ids, _ = filled(index)
    every = index.near_pairs(200, least=0.3)
    some = index.near_pairs(200, least=0.3, within=ids[::2])
    inside = np.isin(every.first, ids[::2]) & np.isin(every.second, ids[::2])
    assert set(zip(some.first, some.second, strict=True)) == set(
        zip(every.first[inside], every.second[inside], strict=True)
    )
    assert not len(index.near_pairs(5, least=0.3, within=ids[:0]).first)
