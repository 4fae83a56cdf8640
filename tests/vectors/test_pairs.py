"""Near pairs among more rows than are looked at pair by pair."""

from __future__ import annotations

import numpy as np
import pytest

from search.vectors import normalize, pairs
from search.vectors.pairs import BITS_RADIUS, firsts, near_bits, near_rows


@pytest.fixture
def planted():
    """Rows of which the last hundred are near one of the first hundred, cosine 0.95."""
    random = np.random.default_rng(0)
    vectors = normalize(random.standard_normal((4000, 32)))
    aside = vectors[-100:] - (vectors[-100:] * vectors[:100]).sum(1, keepdims=True) * vectors[:100]
    vectors[-100:] = 0.95 * vectors[:100] + np.sqrt(1 - 0.95**2) * normalize(aside)
    return vectors


def found(vectors, k, least) -> set[tuple[int, int]]:
    near = near_rows(lambda at: vectors[at], len(vectors), k, least)
    assert (near.first < near.second).all()
    return set(zip(near.first.tolist(), near.second.tolist(), strict=True))


def test_lists_find_nearly_all_that_every_pair_gives(planted, monkeypatch):
    every = found(planted, 16, 0.9)
    assert {(number, 3900 + number) for number in range(100)} <= every
    monkeypatch.setattr(pairs, "_FEW", 0)
    listed = found(planted, 16, 0.9)
    assert listed <= every and len(listed) >= 0.95 * len(every)


def test_no_more_than_k_of_a_row_come_from_a_list(planted):
    crowd = np.tile(planted[:1], (300, 1))
    near = near_rows(lambda at: crowd[at], 300, 4, 0.9)
    assert 300 <= len(near.first) <= 1200


def test_rows_in_blocks_give_what_all_at_once_give(planted, monkeypatch):
    whole = found(planted, 16, 0.5)
    monkeypatch.setattr(pairs, "_SCORES", 100_000)
    assert found(planted, 16, 0.5) == whole


@pytest.mark.parametrize("differ", [0, BITS_RADIUS, 8])
def test_bits_are_found_up_to_the_radius(differ):
    random = np.random.default_rng(1)
    codes = random.integers(0, 256, (2000, 8), np.uint8)
    hits = 0
    for number in range(20):
        bits = np.unpackbits(codes[number])
        bits[random.choice(64, differ, replace=False)] ^= 1
        _, places, distances = near_bits(codes, np.packbits(bits)[None], 4)
        hits += dict(zip(places.tolist(), distances.tolist(), strict=True)).get(number) == differ
    assert hits == (20 if differ <= BITS_RADIUS else 0)


def test_what_hangs_together_by_a_chain_is_one_group_and_its_first_stays():
    angles = np.radians([0, 15, 30, 90, 100, 200])
    rows = np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32)
    assert firsts(rows, 0.94) == [0, 3, 5]
    assert firsts(rows[::-1], 0.94) == [0, 1, 3]
    assert firsts(rows[:0], 0.94) == []


@pytest.mark.parametrize(("codes", "queries"), [(0, 3), (3, 0)])
def test_where_there_are_no_codes_or_no_queries_nothing_is_near(codes, queries):
    found = near_bits(np.zeros((codes, 8), np.uint8), np.zeros((queries, 8), np.uint8), 2)
    assert [len(column) for column in found] == [0, 0, 0]
