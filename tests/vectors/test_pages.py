"""Parts of a mapped file that are asked for: they come, what lies between does not, and nobody asks for ever."""

from __future__ import annotations

import ctypes
import mmap
import os
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest

from search.vectors import pages
from search.vectors.mapped import MappedIndex
from search.vectors.pages import Pages, runs

PAGE = mmap.PAGESIZE


@pytest.fixture
def cold(tmp_path) -> Iterator[Path]:
    """A file of 16 MB of which nothing is in memory; skipped where the system can't tell or keeps it there."""
    with TemporaryDirectory(dir=Path(__file__).parent) as beside:  # where temporary files stay in memory
        for folder in (tmp_path, Path(beside)):
            path = folder / "large"
            path.write_bytes(bytes(4096 * PAGE))
            with path.open("rb") as file:
                os.fsync(file.fileno())
            forget(path)
            if not in_memory(path):
                yield path
                return
    pytest.skip("files stay in memory here")


def forget(path: Path) -> None:
    if not hasattr(os, "posix_fadvise"):
        pytest.skip("the system can't be asked")
    with path.open("rb") as file:
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def in_memory(path: Path) -> list[int]:
    """The numbers of a file's pages that are in memory."""
    array = np.memmap(path, np.uint8, "r")
    found = np.zeros(-(-len(array) // PAGE), np.uint8)
    try:
        failed = ctypes.CDLL(None).mincore(
            *(ctypes.c_void_p(n) for n in (array.ctypes.data, len(array), found.ctypes.data))
        )
    except (AttributeError, OSError, TypeError):
        failed = True
    if failed:
        pytest.skip("the system does not tell")
    return np.flatnonzero(found & 1).tolist()


def test_what_is_asked_for_is_read_and_nothing_else(cold):
    array, places = np.memmap(cold, np.uint8, "r"), np.arange(5, 4096, 300) * PAGE + 7
    Pages(array).ask(places, 100)
    assert int(array[places].sum()) == 0
    assert in_memory(cold) == (places // PAGE).tolist()


def test_few_rows_of_very_many_cost_a_page_each(cold):
    halves = np.memmap(cold, np.float16, "r", shape=(16_384, PAGE // 8))  # four rows to a page
    index = MappedIndex(np.arange(16_384), halves)
    places = np.array([16_383, 3, 4001, 9000])
    index.vectors(places)
    assert in_memory(cold) == sorted((places // 4).tolist())


def test_nothing_is_asked_for_while_all_is_in_memory_but_now_and_then(cold, monkeypatch):
    monkeypatch.setattr(pages, "_RESTS", 2)
    array, places = np.memmap(cold, np.uint8, "r"), np.arange(100) * 40 * PAGE
    asked = Pages(array)
    for _ in range(2):
        asked.ask(places, 1)
        assert int(array[places].sum()) == 0
    array.base.madvise(mmap.MADV_DONTNEED)  # what is mapped in is not forgotten
    forget(cold)
    for _ in range(2):
        asked.ask(places, 1)
        assert in_memory(cold) == []
    asked.ask(places, 1)
    assert int(array[places].sum()) == 0
    assert in_memory(cold) == (places // PAGE).tolist()


@pytest.mark.parametrize(
    ("starts", "sizes", "found"),
    [
        ([0], 1, [(0, 1)]),
        ([5, 9], 2, [(0, 1)]),
        ([0, PAGE], 10, [(0, 2)]),
        ([0, 2 * PAGE], 10, [(0, 1), (2, 3)]),
        ([PAGE - 1, 5 * PAGE], 2, [(0, 2), (5, 6)]),
        ([0, 4 * PAGE], [3 * PAGE + 1, PAGE], [(0, 5)]),
        ([0, 9 * PAGE], [3 * PAGE, 2 * PAGE], [(0, 3), (9, 11)]),
    ],
)
def test_parts_on_neighbouring_pages_are_asked_for_together(starts, sizes, found):
    told = runs(np.array(starts), np.array(sizes))
    assert list(told) == [(begin * PAGE, end * PAGE) for begin, end in found]


def test_arrays_in_memory_and_no_parts_are_left_alone(tmp_path):
    Pages(np.zeros(100, np.uint8)).ask(np.array([0, 50]), 10)
    path = tmp_path / "small"
    path.write_bytes(b"12345")
    Pages(np.memmap(path, np.uint8, "r")).ask(np.empty(0, np.int64), 1)
    Pages(np.memmap(path, np.uint8, "r")).ask(np.array([0, 4]), 1)


def test_a_system_that_takes_no_advice_is_no_error(tmp_path, monkeypatch):
    path = tmp_path / "small"
    path.write_bytes(bytes(2 * PAGE))
    monkeypatch.setattr(pages, "runs", lambda *_: [(1, 2)])  # begins on no page, which is refused
    Pages(np.memmap(path, np.uint8, "r")).ask(np.array([0]), 1)
