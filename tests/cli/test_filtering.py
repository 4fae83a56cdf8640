"""The options that say which photos a command is about."""

from __future__ import annotations

from pathlib import Path

import pytest


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
    find = ("find", "a wall", "-k", "50", "--json")
    assert found(indexed(*find, *day)) == ["photo01", "photo04", "photo07", "photo10"]
    assert found(indexed(*find, *day, *odd)) == ["photo01", "photo07"]
    assert found(indexed(*find, *odd, "--folder", "album/day1")) == ["photo01", "photo07"]
    assert found(indexed(*find, "--where", "orientation = portrait")) == ["linked"]
    assert found(indexed(*find, "--where", "has date or has gps")) == []
    similar = indexed("similar", album / "day1" / "photo01.png", "--json", *day)
    assert found(similar) == ["photo04", "photo07", "photo10"]


def test_a_folder_may_be_a_link_that_was_followed(indexed, album):
    find = ("find", "a wall", "-k", "50", "--json")
    assert found(indexed(*find, "--folder", album / "link")) == ["linked"]
    assert found(indexed(*find, "--where", f"folder:'{album}/link'")) == ["linked"]
    assert len(found(indexed(*find, "--folder", album))) == 13


def test_a_date_may_have_a_zone(indexed):
    find = ("find", "a wall", "-k", "50", "--json")
    assert len(found(indexed(*find, "--after", "2000-01-01T00:00+05:30", "--before", "2999-01Z"))) == 13
    assert found(indexed(*find, "--after", "2999Z")) == []


def test_a_condition_that_cannot_be_read_is_an_error_that_points_at_the_column(indexed):
    done = indexed("find", "a wall", "--where", "has gps and camra:x", "--json")
    assert done.code == 1
    assert done.stderr == "search: column 13 of the condition: 'camra' is not a condition; did you mean camera?\n"
    assert done.json["error"]["type"] == "QueryError"
