"""The codes: what they find, what is taken over from the generation before, and what they cost when they fail."""

from __future__ import annotations

import subprocess
import sys

import made_vectors
import numpy as np
import pytest

from search.vectors import coarse, normalize, scan
from search.vectors.coarse import Coarse, Codebook, Layout, Previous, encode
from search.vectors.mapped import MappedIndex

DIM, COUNT = 64, 24_000


def collection(count: int, seed: int) -> np.ndarray:
    return made_vectors.photos(count, DIM, clusters=400, seed=seed)


def texts(count: int) -> np.ndarray:
    return made_vectors.texts(count, DIM, clusters=400)


@pytest.fixture(scope="module")
def halves() -> np.ndarray:
    return collection(COUNT, 1).astype(np.float16)


@pytest.fixture(scope="module")
def content(halves) -> bytes:
    return b"".join(encode(np.arange(COUNT), halves, Codebook.learn(halves)))


def opened(content: bytes, count: int = COUNT) -> Coarse:
    return Coarse(np.frombuffer(content, np.uint8), Layout(count, DIM))


def recall(index: MappedIndex, exact: MappedIndex, queries: np.ndarray, within=None) -> float:
    pairs = zip(*(i.search(queries, 10, within=within)[0] for i in (index, exact)), strict=True)
    return float(np.mean([len(set(a.tolist()) & set(b.tolist())) / 10 for a, b in pairs]))


def test_text_like_queries_find_99_of_100_true_hits(halves, content):
    ids = np.arange(COUNT)
    index, exact = MappedIndex(ids, halves, opened(content)), MappedIndex(ids, halves)
    assert (index.kind, exact.kind) == ("pq", "exact")
    assert recall(index, exact, texts(60)) >= 0.99
    assert recall(index, exact, texts(60), within=ids[ids % 8 != 0]) >= 0.99


def test_codes_in_memory_find_what_mapped_ones_find(halves, content):
    codes, query = opened(content), texts(1)[0]
    first = codes.search(query, 500)
    for _ in range(coarse._WARM - 1):
        codes.search(query, 500)
    assert "_resident" not in vars(codes)
    last = codes.search(query, 500)
    assert "_resident" in vars(codes)
    assert len(set(first.tolist()) & set(last.tolist())) > 495  # of equal codes either may be the last


def test_only_what_is_permitted_is_found(halves, content):
    permitted = np.random.default_rng(3).random(COUNT) < 0.01
    found = opened(content).search(texts(1)[0], 1000, permitted=np.packbits(permitted, bitorder="little"))
    assert sorted(found.tolist()) == np.flatnonzero(permitted).tolist()


def test_buried_rows_are_no_reason_to_find_fewer(halves, content):
    index = MappedIndex(np.arange(COUNT), halves, opened(content))
    near, _ = MappedIndex(np.arange(COUNT), halves).search(texts(1), 3000)
    index.remove(near[0])
    found, _ = index.search(texts(1), 10)
    assert (found >= 0).all()
    assert not set(found[0].tolist()) & set(near[0].tolist())


def test_what_is_left_after_the_nearest_were_removed_is_found(halves, content):
    ids, found = np.arange(COUNT), []
    for query in texts(20):
        index, exact = MappedIndex(ids, halves, opened(content)), MappedIndex(ids, halves)
        near, _ = exact.search(query[None], 3000)
        for some in (index, exact):
            some.remove(near[0])
        found.append(recall(index, exact, query[None]))
    assert np.mean(found) >= 0.9


def test_codes_of_unchanged_rows_are_taken_over(halves, content, monkeypatch):
    ids = np.arange(COUNT) * 2
    kept = np.delete(np.arange(COUNT), [0, 5, 17_000])
    now = np.concatenate([halves[kept], collection(40, 9).astype(np.float16)])
    now[100] = halves[0]  # another vector under a known id
    now_ids = np.concatenate([ids[kept], np.arange(10**6, 10**6 + 40)])
    old = opened(content)
    anew = b"".join(encode(now_ids, now, old.book))
    coded = []
    real = coarse._coded
    monkeypatch.setattr(coarse, "_coded", lambda rows, *rest: coded.append(len(rows)) or real(rows, *rest))
    assert b"".join(encode(now_ids, now, old.book, previous=Previous(ids, halves, old))) == anew
    assert sum(coded) == 41


@pytest.mark.parametrize("dim", [3, 8, 20])
def test_any_width_can_be_coded(dim):
    rows = normalize(np.random.default_rng(0).standard_normal((1500, dim))).astype(np.float16)
    made = b"".join(encode(np.arange(1500), rows, Codebook.learn(rows)))
    assert len(made) == Layout(1500, dim).size_bytes
    index = MappedIndex(np.arange(1500), rows, Coarse(np.frombuffer(made, np.uint8), Layout(1500, dim)))
    assert index.search(normalize(rows[[7]]), 1)[0].tolist() == [[7]]


@pytest.mark.parametrize("count", [1, 7, 8, 100, 5001])
@pytest.mark.parametrize("threads", [1, 3])
def test_threads_share_a_scan_without_a_gap(count, threads, monkeypatch):
    monkeypatch.setattr(scan, "_WORTH_A_THREAD", 1)
    monkeypatch.setattr(scan, "_MOST_THREADS", threads)
    monkeypatch.setattr("os.cpu_count", lambda: 8)
    rows, query = collection(count, 4).astype(np.float16), texts(1)[0]
    permitted = np.random.default_rng(1).random(count) < 0.5
    scores = np.where(permitted, rows.astype(np.float32) @ query, -np.inf)
    expected = np.argsort(-scores)[: min(10, permitted.sum())]
    found = scan.scanned(rows, query, 10, permitted=np.packbits(permitted, bitorder="little"))
    assert sorted(found.tolist()) == sorted(expected.tolist())


def test_faiss_is_imported_beside_other_work_where_it_is_asked_for():
    script = """
import sys, threading
from search.vectors import scan
assert "faiss" not in sys.modules
scan.prepare()
[thread] = [thread for thread in threading.enumerate() if thread.name == "faiss"]
thread.join()
assert "faiss" in sys.modules
scan.prepare()
assert threading.active_count() == 1
"""
    subprocess.run([sys.executable, "-c", script], check=True, timeout=120)


def test_a_small_library_is_searched_without_importing_faiss():
    script = """
import sys
import subprocess
import sys

import numpy as np
from search.vectors.mapped import MappedIndex
rows = np.eye(64, dtype=np.float16)
assert MappedIndex(np.arange(64), rows).search(rows[[5]].astype(np.float32), 1)[0].tolist() == [[5]]
assert "faiss" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", script], check=True, timeout=120)
