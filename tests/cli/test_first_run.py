"""The first minutes: `search` without a command, the first index run, and what may go wrong before there are photos."""

from __future__ import annotations

import shutil
import signal
import socket
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from search import suggestions
from search.catalog.storage import CATALOG_NAME
from search.resources import data_path
from search.suggestions import Kept, Wording, wordings
from search.types import Suggestion


def test_without_a_library_the_first_command_is_told(run, place, monkeypatch):
    monkeypatch.setenv("XDG_PICTURES_DIR", str(Path.home() / "My Pictures"))
    done = run()
    assert (done.code, done.stderr) == (0, "")
    assert f"\n  search -L {place} index ~/'My Pictures'\n" in done.stdout
    assert not place.exists()
    assert run("--json").json == {
        "library": str(place),
        "photos": 0,
        "next": [
            f"search -L {place} index ~/'My Pictures'",
            f'search -L {place} find "a dog on the beach"',
        ],
    }


def test_a_library_that_the_environment_names_is_not_named_in_commands(run, place, monkeypatch):
    monkeypatch.setenv("SEARCH_LIBRARY", str(place))
    assert "\n  search index " in run().stdout


def test_with_a_library_it_is_told_what_there_is_and_what_to_try(run, album, place):
    (album / "empty.jpg").touch()
    assert run("index", album, "--model", "builtin").code == 0
    document = run("--json").json
    assert (document["photos"], document["skipped"], document["job"]["state"]) == (12, 1, "done")
    assert len(document["next"]) == 3
    shutil.move(album, album.with_name("elsewhere"))
    out = run().stdout
    assert out.startswith(f"12 photos in {place}, last indexed ")
    assert f"  {album} is not within reach, with 12 of them\n" in out
    assert "  1 file could not be indexed: `search skipped` says why\n" in out


def test_suggestions_are_shown_again(run, album, place):
    assert run("index", album, "--model", "builtin").code == 0
    suggestions.keep(place, Kept("f" * 64, 12, (Suggestion("a cat", 0.9), Suggestion("snow", 0.8))))
    assert f'Try:\n  search -L {place} find "a cat"\n  search -L {place} find "snow"\n\n' in run().stdout


def test_a_library_without_photos_is_told_how_to_get_some(run, tmp_path):
    (tmp_path / "empty").mkdir()
    assert run("index", tmp_path / "empty", "--model", "builtin").code == 0
    assert "There are no photos to search yet" in run().stdout
    assert run("find", "a cat").stderr.startswith("the library holds no photos yet; 'search index DIR'")


def test_what_is_wrong_with_a_library_is_told(run, place):
    place.mkdir()
    with closing(sqlite3.connect(place / CATALOG_NAME)) as connection:
        connection.executescript(data_path("catalogs", "0001.sql").read_text())
    done = run()
    assert (done.code, "run 'search upgrade'" in done.stdout) == (0, True)
    assert run("--json").json["error"]["type"] == "OldLibrary"


def test_a_place_that_is_no_folder_is_told(run, place):
    place.touch()
    assert "Not a directory" in run().stdout


def test_a_database_server_is_not_asked(run, monkeypatch):
    def refuse(*_: object) -> None:
        pytest.fail("a socket was opened")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    done = run("--library", "postgresql://me:secret@192.0.2.1/photos")
    assert done.code == 0
    assert "search -L 'postgresql://me:***@192.0.2.1/photos' status" in done.stdout
    assert "secret" not in done.stdout


def test_a_description_without_a_command_is_told_which_it_needs(run):
    done = run("a red car")
    assert done.code == 2
    assert done.stderr.endswith("No such command 'a red car'. To find photos: cli find 'a red car'\n")


def test_commands_of_groups_are_missed_as_before(run):
    assert run("tags", "nothing").stderr.endswith("No such command 'nothing'.\n")


# ---- the first index run


def test_the_first_run_tells_what_was_found_once(run, album):
    (album / "clip.mp4").touch()
    (album / ".hidden").mkdir()
    first = run("index", album, "--model", "builtin")
    assert "Found 12 PNG · in 3 folders\nPassed over 1 video · 1 hidden\n" in first.stdout
    assert "Try:" not in first.stdout  # of a dozen photos nobody knows what is usual
    assert "Found" not in run("index", album, "--model", "builtin").stdout


def test_the_first_run_gives_queries_to_try(run, photographs, place, monkeypatch):
    monkeypatch.setattr("search.library.suggesting.LEAST_PHOTOS", 2)
    motorcycles = [photographs["cat"].with_name(f"motorcycle_{side}.png") for side in ("left", "right")]
    done = run("index", *motorcycles, "--model", "builtin")
    assert f'Try:\n  search -L {place} find "a motorcycle"\n' in done.stdout
    assert run("find", "a motorcycle", "--json").json["hits"]


def test_the_first_run_in_json(run, album):
    first = run("index", album, "--model", "builtin", "--json").json
    assert first["found"] == {"formats": {"png": 12}, "years": None, "folders": 3}
    assert (first["suggestions"], first["passed_over"]) == ([], {})
    assert "suggestions" not in run("index", album, "--model", "builtin", "--json").json


def test_a_quiet_first_run_looks_for_nothing(run, album, place):
    assert "Found" not in run("index", album, "--model", "builtin", "--quiet").stdout
    assert suggestions.kept(place) is None


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_while_queries_are_looked_for_takes_nothing_from_the_run(run, album, monkeypatch, number):
    def interrupted() -> list[Wording]:
        signal.raise_signal(number)
        return wordings()

    monkeypatch.setattr("search.library.suggesting.LEAST_PHOTOS", 2)
    monkeypatch.setattr("search.suggestions.wordings", interrupted)
    done = run("index", album, "--model", "builtin", "--json")
    assert (done.code, done.json["photos"], done.json["suggestions"]) == (0, 12, [])
    assert "the photos are indexed" in done.stderr


def test_a_folder_without_photos_is_told_with_what_is_there(run, tmp_path):
    folder = tmp_path / "videos"
    folder.mkdir()
    for name in ("a.mp4", "b.MOV", "notes.txt"):
        (folder / name).touch()
    done = run("index", folder, "--model", "builtin")
    assert done.code == 0
    assert "  no photo was found there; passed over: 2 videos · 1 other file\n" in done.stdout
