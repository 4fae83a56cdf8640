"""The options that say which photos a command is about."""

from __future__ import annotations

from pathlib import Path

import pytest

from search import Filter
from search.errors import UsageError


@pytest.fixture
def indexed(run, album, make_photo, tmp_path):
    make_photo(tmp_path / "elsewhere" / "linked.png", 77, (48, 64))
    (album / "link").symlink_to(tmp_path / "elsewhere")
    assert run("index", album, "--follow-symlinks", "--model", "builtin").code == 0
    return run


def found(done) -> list[str]:
    assert done.code == 0
    answer = done.json
    assert answer["candidates"] == len(answer["hits"])
    return sorted(Path(hit["path"]).stem for hit in answer["hits"])


def test_find_and_similar_look_only_at_photos_that_fulfil_all_conditions(indexed, album):
    day, odd = ("--where", "path:*/day1/*"), ("--where", "name in (photo?1.png, photo?7.png)")
    find = ("find", "a wall", "--min-relevance", "0", "-k", "50", "--json")
    assert found(indexed(*find, *day)) == ["photo01", "photo04", "photo07", "photo10"]
    assert found(indexed(*find, *day, *odd)) == ["photo01", "photo07"]
    assert found(indexed(*find, *odd, "--folder", "album/day1")) == ["photo01", "photo07"]
    assert found(indexed(*find, "--where", "orientation = portrait")) == ["linked"]
    assert found(indexed(*find, "--where", "has date or has gps")) == []
    similar = indexed("similar", album / "day1" / "photo01.png", "--json", *day)
    assert found(similar) == ["photo04", "photo07", "photo10"]


@pytest.mark.parametrize("option", ["--folder", "--camera", "--tag", "--where"])
@pytest.mark.parametrize("empty", ["", " "])
def test_an_empty_value_is_refused_and_never_all_photos(indexed, option, empty):
    for command in (("find", "a wall"), ("similar", "1")):
        done = indexed(*command, option, empty)
        assert (done.code, done.stdout) == (2, "")
        assert f"{option}" in done.stderr
        assert "is empty" in done.stderr


@pytest.mark.parametrize("fields", [{"folder": ""}, {"camera": ""}, {"labels": ("",)}, {"labels": ("cat", " ")}])
def test_a_filter_for_an_empty_text_is_none(fields):
    with pytest.raises(UsageError, match="is empty"):
        Filter(**fields)


def test_similar_photos_can_be_cut_and_diverse(indexed):
    all_of = found(indexed("similar", "1", "--json", "-k", "50"))
    assert len(all_of) == 12
    done = indexed("similar", "1", "--json", "-k", "50", "--min-relevance", "1")
    assert (done.json["cut"], done.json["below"], done.json["hits"]) == (1, 12, [])
    assert "--min-relevance 0 shows everything" in done.stderr
    best = indexed("similar", "1", "--json", "-k", "12").json["hits"]
    diverse = indexed("similar", "1", "--json", "-k", "12", "--diverse").json["hits"]
    assert [hit["id"] for hit in best] != [hit["id"] for hit in diverse]


def test_a_folder_may_be_a_link_that_was_followed(indexed, album):
    find = ("find", "a wall", "--min-relevance", "0", "-k", "50", "--json")
    assert found(indexed(*find, "--folder", album / "link")) == ["linked"]
    assert found(indexed(*find, "--where", f"folder:'{album}/link'")) == ["linked"]
    assert len(found(indexed(*find, "--folder", album))) == 13


def test_a_date_may_have_a_zone(indexed):
    find = ("find", "a wall", "--min-relevance", "0", "-k", "50", "--json")
    assert len(found(indexed(*find, "--after", "2000-01-01T00:00+05:30", "--before", "2999-01Z"))) == 13
    assert found(indexed(*find, "--after", "2999Z")) == []


def test_a_condition_that_cannot_be_read_is_an_error_that_points_at_the_column(indexed):
    done = indexed("find", "a wall", "--where", "has gps and camra:x", "--json")
    assert done.code == 1
    assert done.stderr == "search: column 13 of the condition: 'camra' is not a condition; did you mean camera?\n"
    assert done.json["error"]["type"] == "QueryError"
