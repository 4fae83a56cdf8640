"""Selections beside an index in memory, which is often empty: the layer above millions of rows in files."""

from __future__ import annotations

from typing import ClassVar

import numpy as np
import pytest

from search.vectors import normalize
from search.vectors.exact import ExactIndex


class Noticed(np.ndarray):
    """Ids that note which of numpy's functions they are given to."""

    given: ClassVar[set[str]] = set()

    def __array_function__(self, function, types, args, kwargs):
        self.given.add(function.__name__)
        return super().__array_function__(function, types, args, kwargs)


@pytest.fixture
def index() -> ExactIndex:
    index = ExactIndex(4)
    index.add(np.array([7, 3, 90]), normalize(np.random.default_rng(0).standard_normal((3, 4))))
    return index


def test_its_size_is_that_of_ids_and_vectors(index):
    assert index.size_bytes == 3 * (8 + 4 * 4)
    assert ExactIndex(4).size_bytes == 0


@pytest.mark.parametrize("order", [slice(None), slice(None, None, -1)])
def test_a_selection_may_be_larger_than_the_index_and_in_any_order(index, order):
    within = np.delete(np.arange(100), 7)[order]
    ids, _ = index.search(np.eye(4, dtype=np.float32)[:1], 5, within=within)
    assert sorted(ids[0].tolist()) == [-1, -1, -1, 3, 90]


@pytest.mark.parametrize("count", [0, 3])
def test_a_selection_of_millions_is_not_taken_apart_for_a_few_rows(index, count):
    layer = index if count else ExactIndex(4)
    Noticed.given.clear()
    layer.search(np.eye(4, dtype=np.float32)[:1], 5, within=np.arange(0, 1000, 10).view(Noticed))
    assert not Noticed.given & {"isin", "unique", "sort"}
