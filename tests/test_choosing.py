"""What is shown of what was found, on the built-in model and on numbers."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from search.errors import IndexUnavailable
from search.library.choosing import choose, deepened
from search.query import parse
from search.relevance import DEFAULT_CUT

VECTORS = np.eye(4, dtype=np.float32)
IDS = np.array([7, 3, 9, 4])
SCORES = np.float32([0.4, 0.3, 0.2, 0.1])


def test_what_is_below_the_cut_is_dropped_wherever_it_stands():
    chosen = choose(IDS, SCORES, np.float32([0.9, 0.1, 0.5, 0.2]), VECTORS, k=4, cut=0.3)
    assert (chosen.ids.tolist(), chosen.below) == ([7, 9], 2)
    assert chosen.best == pytest.approx(0.9)
    assert chosen.relevance.tolist() == pytest.approx([0.9, 0.5])


def test_nothing_found_is_nothing_dropped():
    chosen = choose(IDS[:0], SCORES[:0], SCORES[:0], VECTORS[:0], k=4, cut=0.3, diverse=True)
    assert (chosen.ids.tolist(), chosen.below, chosen.best) == ([], 0, None)


def test_what_is_cut_takes_no_place_among_the_diverse():
    relevance = np.float32([0.9, 0.1, 0.5, 0.9])
    chosen = choose(IDS, SCORES, relevance, VECTORS, k=3, cut=0.3, diverse=True)
    assert sorted(chosen.ids.tolist()) == [4, 7, 9]


class Look:
    """Photos of which those at some places reach a cut, and how deep each look at them was."""

    def __init__(self, *reaching: int, photos: int = 10_000, names: int = 10_000) -> None:
        self.names = names
        self.relevance = np.zeros(photos, np.float32)
        self.relevance[list(reaching)] = 1
        self.depths: list[int] = []

    def __call__(self, depth: int) -> Look:
        if depth > self.names:
            raise IndexUnavailable("names no more")
        self.depths.append(depth)
        self.decisive = self.relevance[:depth]
        return self

    def deepened(self, pool: int) -> int:
        return int(deepened(self, pool, len(self.relevance), 0.5).decisive.sum())


@pytest.mark.parametrize(
    ("look", "found", "depths"),
    [
        (Look(0, 1), 2, [2]),  # enough at once
        (Look(0, 100), 2, [2, 128]),
        (Look(0, 100, 400, 2000), 2, [2, 128]),
        (Look(), 0, [2, 128]),  # a deeper look brought no more
        (Look(5, 6, photos=7), 2, [2, 128]),
        (Look(photos=2), 0, [2]),  # there are no more
    ],
)
def test_it_is_looked_further_down_as_long_as_that_brings_more(look, found, depths):
    assert (look.deepened(2), look.depths) == (found, depths)


def test_a_search_for_the_relevant_ends_somewhere():
    look = Look(*range(0, 10_000, 100))
    look.deepened(300)
    assert look.depths == [300, 1200, 4800]


def test_where_an_index_can_tell_no_more_what_was_found_before_is_the_answer():
    look = Look(*range(0, 10_000, 100), names=1000)
    assert (look.deepened(300), look.depths) == (3, [300])
    with pytest.raises(IndexUnavailable):
        Look(names=100).deepened(300)


@pytest.fixture
def twins(library, photographs, tmp_path):
    """Three sizes of the cat, and the other photographs."""
    folder = tmp_path / "twins"
    folder.mkdir()
    with Image.open(photographs["cat"]) as cat:
        for width in (451, 400, 350):
            cat.resize((width, width * 300 // 451)).save(folder / f"cat{width}.png")
    library.index([folder, *(path for name, path in photographs.items() if name != "cat")])
    return library


def names(answer) -> list[str]:
    return [hit.photo.path.rpartition("/")[2].partition(".")[0] for hit in answer.hits]


def test_diverse_shows_near_duplicates_last(twins):
    best, chosen = (twins.answer("a cat", 3, diverse=diverse) for diverse in (False, True))
    assert all(name.startswith("cat") for name in names(best))
    assert [name.startswith("cat") for name in names(chosen)] == [True, False, False]
    assert chosen.hits[0] == best.hits[0]
    assert len(names(twins.answer("a cat", 6, diverse=True))) == 6


def test_nonsense_finds_nothing_and_zero_shows_everything(twins):
    cut = twins.answer("xqzvkj wpfh", 10, min_relevance=None)
    assert (cut.hits, cut.below, cut.cut) == ((), 6, DEFAULT_CUT)
    assert cut.best < DEFAULT_CUT
    every = twins.answer("xqzvkj wpfh", 10, min_relevance=0)
    assert (len(every.hits), every.below, every.best) == (6, 0, pytest.approx(cut.best))


def test_words_for_what_is_there_are_not_cut(twins):
    for words, name in (("a cat", "cat"), ("a rocket", "rocket"), ("a brick wall", "brick")):
        assert names(twins.answer(words, 3, min_relevance=None))[0].startswith(name)


def test_an_image_is_not_cut(twins, photographs):
    answer = twins.answer(parse([], like=[str(photographs["rocket"])]), 10, min_relevance=None)
    assert (len(answer.hits), answer.cut) == (5, 0.0)  # the example itself is left out


def test_relevance_depends_on_the_photo_not_on_how_many_are_asked_for(twins):
    few, many = (twins.answer("a temple", k, min_relevance=0) for k in (1, 6))
    assert few.hits[0] == many.hits[0]
