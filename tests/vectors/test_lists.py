"""Codes in lists: what they find, how many lists that takes, what is taken over, and what they cost when they fail."""

from __future__ import annotations

import made_vectors
import numpy as np
import pytest

from search.vectors import lists as module
from search.vectors import normalize, scan
from search.vectors.lists import Filing, ListBook, ListLayout, Lists, PreviousLists, Trial, lists_for
from search.vectors.mapped import MappedIndex

DIM, COUNT = 32, 12_000


def collection(count: int, seed: int) -> np.ndarray:
    return made_vectors.photos(count, DIM, clusters=200, seed=seed)


def texts(count: int) -> np.ndarray:
    return made_vectors.texts(count, DIM, clusters=200)


@pytest.fixture(scope="module")
def halves() -> np.ndarray:
    return collection(COUNT, 1).astype(np.float16)


@pytest.fixture(scope="module")
def book(halves) -> ListBook:
    return ListBook.learn(halves, lists_for(COUNT))


@pytest.fixture(scope="module")
def filed(halves, book, tmp_path_factory) -> tuple[bytes, int]:
    return file(np.arange(COUNT), halves, book, tmp_path_factory.mktemp("scratch"))


def file(ids, halves, book, folder, previous=None) -> tuple[bytes, int]:
    """The content of a file of lists, and how many of them are to be read."""
    filing = Filing(ids, halves, book, previous)
    return b"".join(filing.parts(folder)), filing.probe


def opened(filed: tuple[bytes, int], count: int = COUNT, dim: int = DIM) -> Lists:
    return Lists(np.frombuffer(filed[0], np.uint8), ListLayout(count, dim, lists_for(count)), filed[1])


@pytest.fixture
def index(halves, filed) -> MappedIndex:
    return MappedIndex(np.arange(COUNT), halves, opened(filed))


@pytest.fixture
def exact(halves) -> MappedIndex:
    return MappedIndex(np.arange(COUNT), halves)


def recall(index: MappedIndex, exact: MappedIndex, queries: np.ndarray, within=None) -> float:
    pairs = zip(*(i.search(queries, 10, within=within)[0] for i in (index, exact)), strict=True)
    return float(np.mean([len(set(a.tolist()) & set(b.tolist())) / 10 for a, b in pairs]))


def test_text_like_queries_find_95_of_100_true_hits_in_a_part_of_the_lists(index, exact, filed):
    assert index.kind == "ivf"
    assert filed[1] < lists_for(COUNT) / 2
    assert recall(index, exact, texts(100)) >= 0.95


def test_a_filter_that_many_pass_leaves_recall_as_it_is(index, exact, monkeypatch):
    monkeypatch.setattr(scan, "FEW", 100)
    monkeypatch.setattr(Lists, "worth", 100)
    within = np.flatnonzero(np.random.default_rng(3).random(COUNT) < 0.3)
    assert recall(index, exact, texts(40), within) >= 0.95


def test_what_is_in_one_corner_is_found_though_no_near_list_has_it(filed, halves):
    codes, query = opened(filed), texts(1)[0]
    far = np.argsort(halves.astype(np.float32) @ query)[:500]
    permitted = np.zeros(COUNT, bool)
    permitted[far] = True
    found = codes.search(query, 400, permitted=np.packbits(permitted, bitorder="little"))
    assert len(found) == 400
    assert set(found.tolist()) <= set(far.tolist())


def test_all_rows_come_where_all_are_wanted(index, exact):
    query = texts(1)
    found, scores = index.search(query, COUNT)
    right, true = exact.search(query, COUNT)
    assert found.tolist() == right.tolist()
    np.testing.assert_array_equal(scores, true)


def test_more_lists_are_read_for_more_hits(index):
    found, _ = index.search(texts(1), 3000)
    assert (found >= 0).all()
    assert len(set(found[0].tolist())) == 3000


def test_queries_farther_off_need_more_lists(halves, book, filed):
    dealt, _ = opened(filed).filed(np.arange(COUNT))
    trial = Trial(halves)
    near = Trial(halves)
    near.queries = halves[:: COUNT // len(trial.queries)].astype(np.float32)[: len(trial.queries)]
    for one in (trial, near):
        for start in range(0, COUNT, 5000):
            one.see(halves[start : start + 5000].astype(np.float32), start)
    assert near.probe(book, dealt) < trial.probe(book, dealt) == filed[1]


def test_each_row_is_in_the_list_of_its_nearest_centre(halves, book, filed):
    rows = (halves.astype(np.float32) - book.code.mean) @ book.code.rotation
    apart = ((book.centres**2).sum(axis=1) - 2 * rows @ book.centres.T).argmin(axis=1)
    dealt, codes = opened(filed).filed(np.arange(COUNT))
    assert np.mean(dealt == apart) > 0.999  # rounding may part two that are as near
    own = book.code.quantizer().compute_codes(rows - book.centres[dealt])
    assert np.mean(own == codes) > 0.999


def test_many_centres_are_looked_at_in_groups(halves, book, monkeypatch):
    rows = (halves[:4000].astype(np.float32) - book.code.mean) @ book.code.rotation
    right = ((book.centres**2).sum(axis=1) - 2 * rows @ book.centres.T).argmin(axis=1)
    monkeypatch.setattr(module, "_FEW", 16)
    dealer = module.Dealer(book.centres)
    assert len(dealer._members) == 16
    assert np.mean(dealer.deal(rows) == right) > 0.9
    monkeypatch.setattr(module, "_LOOKED", 16)
    assert np.mean(dealer.deal(rows) == right) > 0.999


def test_parts_of_any_size_come_to_the_same_file(halves, book, filed, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "_CHUNK", 1000)
    monkeypatch.setattr(module, "_GATHERED", 64)
    made = file(np.arange(COUNT), halves, book, tmp_path)
    assert (len(made[0]), made[1]) == (len(filed[0]), filed[1])
    for one, other in zip(*(opened(some).filed(np.arange(COUNT)) for some in (made, filed)), strict=True):
        assert np.mean(one == other) > 0.999  # the order of sums may part two centres that are as near
    monkeypatch.setattr(module, "_CHUNK", 8192)
    assert file(np.arange(COUNT), halves, book, tmp_path)[0] == filed[0]
    assert list(tmp_path.iterdir()) == []


def test_unchanged_rows_are_dealt_and_coded_once(halves, filed, tmp_path, monkeypatch):
    ids, old = np.arange(COUNT) * 2, opened(filed)
    kept = np.delete(np.arange(COUNT), [0, 5, 7_000])
    now = np.concatenate([halves[kept], collection(40, 9).astype(np.float16)])
    now[100] = halves[0]  # another vector under a known id
    now_ids = np.concatenate([ids[kept], np.arange(10**6, 10**6 + 40)])
    anew, _ = file(now_ids, now, old.book, tmp_path)
    coded = []
    real = module.Codebook.quantizer

    class Counting:
        def __init__(self, quantizer):
            self._quantizer = quantizer

        def compute_codes(self, rows):
            coded.append(len(rows))
            return self._quantizer.compute_codes(rows)

    monkeypatch.setattr(module.Codebook, "quantizer", lambda book: Counting(real(book)))
    found, probe = file(now_ids, now, old.book, tmp_path, PreviousLists(ids, halves, old))
    assert sum(coded) == 41
    assert probe == filed[1]
    count = len(now_ids)
    two = (
        Lists(np.frombuffer(c, np.uint8), ListLayout(count, DIM, lists_for(COUNT)), probe) for c in (anew, found)
    )
    one, other = (some.filed(np.arange(count)) for some in two)
    assert np.mean(one[0] == other[0]) > 0.999
    assert np.mean(one[1] == other[1]) > 0.999


@pytest.mark.parametrize("dim", [3, 8, 20])
def test_any_width_and_lists_that_nothing_is_in_can_be_filed(dim, tmp_path):
    one = normalize(np.random.default_rng(0).standard_normal((3, dim))).astype(np.float16)
    rows = np.tile(one, (200, 1))
    book = ListBook.learn(rows, 16)  # of which three are used
    content, probe = file(np.arange(600), rows, book, tmp_path)
    codes = Lists(np.frombuffer(content, np.uint8), ListLayout(600, dim, 16), probe)
    assert len(content) == ListLayout(600, dim, 16).size_bytes
    index = MappedIndex(np.arange(600), rows, codes)
    assert index.search(normalize(one[[1]]), 3)[0].tolist() == [[1, 4, 7]]
    centres = book.centres[codes.filed(np.arange(600))[0]]
    # Lists that nothing is in begin beside one that has much: which of those two a copy goes to is rounding.
    np.testing.assert_allclose(centres, np.tile(centres[:3], (200, 1)), atol=0.01)
    assert np.abs(centres[:3, None] - centres[None, :3]).max(axis=2)[np.triu_indices(3, 1)].min() > 0.1


@pytest.mark.parametrize("sizes", [{0: -1}, {0: 2**62, 1: -(2**62)}, {0: COUNT + 1}, {3: 0}])
def test_lists_of_an_impossible_size_are_refused(filed, sizes):
    content = np.frombuffer(filed[0], np.uint8).copy()
    layout = ListLayout(COUNT, DIM, lists_for(COUNT))
    table = content[layout.sizes_start : layout.book_start].view("<i8")
    for place, size in sizes.items():
        table[place] = size
    with pytest.raises(ValueError, match="lists"):
        Lists(content, layout, filed[1])
    with pytest.raises(ValueError, match="lists"):
        Lists(np.frombuffer(filed[0], np.uint8), layout, layout.lists + 1)


def test_places_that_are_none_are_left_out(filed):
    content = np.frombuffer(filed[0], np.uint8).copy()
    codes = Lists(content, ListLayout(COUNT, DIM, lists_for(COUNT)), filed[1])
    for places in codes._places():
        places[::2] = COUNT + 7
        places[1::7] = -5
    found = codes.search(texts(1)[0], 200)
    assert len(found)
    assert ((found >= 0) & (found < COUNT)).all()


def test_where_nothing_is_changed_nothing_is_coded_anew(halves, filed, tmp_path, monkeypatch):
    ids, old = np.arange(COUNT), opened(filed)
    monkeypatch.setattr(module.Dealer, "deal", lambda *_: pytest.fail("a row was dealt"))
    assert file(ids, halves, old.book, tmp_path, PreviousLists(ids, halves, old)) == filed


def test_without_anything_to_try_all_lists_are_read(halves, book):
    assert Trial(halves[:2]).probe(book, np.zeros(2, np.int32)) == len(book.centres)


def test_groups_that_no_row_is_near_are_passed_over(book, monkeypatch):
    monkeypatch.setattr(module, "_FEW", 16)
    monkeypatch.setattr(module, "_LOOKED", 1)
    dealer = module.Dealer(book.centres)
    some = [5, 40]
    assert dealer.deal(book.centres[some]).tolist() == some


def test_of_rows_far_from_the_query_some_may_be_removed(index, exact):
    query = texts(1)
    far = np.setdiff1d(np.arange(COUNT), exact.search(query, 6000)[0])[:50]
    found = index.search(query, 10)[0].tolist()
    index.remove(far)
    assert index.search(query, 10)[0].tolist() == found
