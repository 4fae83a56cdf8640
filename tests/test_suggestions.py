"""Queries worth trying: which are chosen, how they are kept, and that `find` answers them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageOps

from search import Library, suggestions
from search.catalog.storage import CATALOG_NAME
from search.errors import EncoderMismatch
from search.relevance import Bank
from search.suggestions import Kept, Wording, ranked, wordings
from search.types import Suggestion

FLAT = Bank(np.zeros(4), np.eye(4), np.zeros(4), 0.0)
"""What is left of a standing above it is the score itself, of unit vectors."""


def unit(*rows: tuple[float, ...]) -> np.ndarray:
    wide = np.array(rows, np.float32)
    return wide / np.linalg.norm(wide, axis=1, keepdims=True)


def chosen(asked: list[Wording], texts: np.ndarray, photos: np.ndarray) -> list[str]:
    return [one.query for one in ranked(asked, texts, photos, bank=FLAT)]


def test_the_list_has_each_query_once_and_in_a_group():
    queries = [one.query for one in wordings()]
    assert len(queries) == len(set(queries)) > 100
    assert all(one.group and one.words for one in wordings())


def test_the_query_whose_best_photos_stand_highest_comes_first():
    asked = [Wording("plant", "a flower"), Wording("animal", "a cat")]
    texts = unit((1, 0, 0, 0), (0, 1, 0, 0))
    photos = unit((0.6, 0, 0, 0.8), (0.6, 0, 0, 0.8), (0, 1, 0, 0), (0, 1, 0, 0))
    assert chosen(asked, texts, photos) == ["a cat", "a flower"]


def test_a_query_that_fits_one_photo_alone_is_none():
    asked = [Wording("plant", "a flower"), Wording("animal", "a cat")]
    texts = unit((1, 0, 0, 0), (0, 1, 0, 0))
    photos = unit((1, 0, 0, 0), (0, 1, 0, 0), (0.3, 0.9, 0, 0))  # the second best flower is rather a cat
    assert chosen(asked, texts, photos) == ["a cat"]


def test_each_group_gives_one_before_any_gives_two():
    asked = [Wording("animal", "a cat"), Wording("animal", "a dog"), Wording("plant", "a flower")]
    photos = unit(
        *[(1, 0, 0, 0)] * 2,
        *[(0, 1, 0, 0.1)] * 2,
        *[(0, 0, 1, 0.9)] * 2,
    )
    assert chosen(asked, unit((1, 0, 0, 0), (0, 1, 0, 0), (0, 0, 1, 0)), photos) == ["a cat", "a flower", "a dog"]


def test_queries_that_share_a_word_are_not_both_chosen():
    asked = [Wording("plant", "a flower"), Wording("animal", "a bee on a flower"), Wording("animal", "the sea")]
    photos = unit(*[(1, 0, 0, 0)] * 2, *[(0, 1, 0, 0.1)] * 2, *[(0, 0, 1, 0.2)] * 2)
    texts = unit((1, 0, 0, 0), (0, 1, 0, 0), (0, 0, 1, 0))
    assert chosen(asked, texts, photos) == ["a flower", "the sea"]


def test_what_is_kept_is_read_again(tmp_path):
    kept = Kept("f" * 64, 30, (Suggestion("a cat", 0.5),))
    suggestions.keep(tmp_path, kept)
    assert suggestions.kept(tmp_path) == kept


@pytest.mark.parametrize("content", [b"", b"[]", b'{"encoder": "x"}', b'{"suggestions": [1]}', b"\xff"])
def test_a_file_that_is_damaged_is_as_none(tmp_path, content):
    (tmp_path / "suggestions.json").write_bytes(content)
    assert suggestions.kept(tmp_path) is None


def test_of_few_photos_nothing_is_suggested_until_there_are_more(library, album, make_photo):
    library.index([album])
    assert library.known_suggestions is None
    assert library.suggest_queries() == ()
    assert library.known_suggestions == ()
    for number in range(20, 32):
        make_photo(album / f"more{number}.png", number)
    library.index([album])
    assert library.known_suggestions is None  # twice as many


def test_suggestions_of_another_model_are_none(library, album):
    library.index([album])
    suggestions.keep(library.catalog.folder, Kept("0" * 64, 12, (Suggestion("a cat", 0.9),) * 3))
    assert library.known_suggestions is None


def test_where_another_model_is_asked_for_nothing_is_known_instead_of_an_error(library, album):
    library.index([album])
    row, place = library.catalog.encoder(), library.catalog.folder
    suggestions.keep(place, Kept(row.fingerprint, 12, (Suggestion("a cat", 0.9),) * 3))
    assert library.known_suggestions
    with Library.open(place, model="ViT-B-32/openai", offline=True) as other:
        assert other.known_suggestions is None
        with pytest.raises(EncoderMismatch):
            other.suggest_queries()


def test_suggestions_are_known_without_the_catalog(library, album):
    library.index([album])
    library.rebuild()
    suggested = (Suggestion("a cat", 0.9),) * 3
    suggestions.keep(library.catalog.folder, Kept(library.catalog.encoder().fingerprint, 12, suggested))
    library.close()
    (library.catalog.folder / CATALOG_NAME).unlink()
    assert library.known_suggestions == suggested


def test_suggestions_are_answered_each_by_other_photos_and_looked_for_once(
    library, photographs, tmp_path, monkeypatch
):
    folder = tmp_path / "photographs"
    folder.mkdir()
    for subject in ("cat", "brick wall"):
        with Image.open(photographs[subject]) as photo:
            photo.convert("RGB").save(folder / f"{subject}.png")
            ImageOps.mirror(photo.convert("RGB")).save(folder / f"{subject} mirrored.png")
    library.index([folder])
    monkeypatch.setattr("search.library.suggesting.LEAST_PHOTOS", 4)
    found = library.suggest_queries(2)
    hits = [library.search(one.query, 1, min_relevance=None)[0] for one in found]
    assert {Path(hit.photo.path).name.split(" ")[0].split(".")[0] for hit in hits} == {"cat", "brick"}
    # a text embedded alone is not quite what it is among others
    assert [one.relevance for one in found] == pytest.approx([hit.relevance for hit in hits], abs=1e-3)
    monkeypatch.setattr("search.suggestions.wordings", list)
    assert library.suggest_queries(2) == found
    assert library.suggest_queries(1) == found[:1]


def test_suggestions_for_the_demos_photographs(library, photographs):
    """Two photographs of a motorcycle, one of a page among others with text: what the demo shows."""
    library.index({path.parent for path in photographs.values()})
    assert [one.query for one in library.suggest_queries(2)] == ["a page of text", "a motorcycle"]
