"""An indexed folder that is somewhere else now keeps everything but its place."""

from __future__ import annotations

import pytest


@pytest.fixture
def moved(run, album, tmp_path):
    """A library whose only folder was renamed."""
    assert run("index", album, "--model", "builtin").code == 0
    return album.rename(tmp_path / "pictures")


def test_f30_a_renamed_folder_costs_no_encoding(run, album, moved):
    shown = run("show", "1", "--json").json
    assert run("root", "list", "--json").json == {
        "roots": [{"path": str(album), "state": "offline", "photos": 12}]
    }
    done = run("root", "move", album, moved, "--json")
    assert (done.code, done.json) == (0, {"from": str(album), "to": str(moved), "photos": 12})
    assert run("root", "list", "--json").json == {"roots": [{"path": str(moved), "state": "online", "photos": 12}]}
    report = run("index", moved, "--json").json
    assert (report["unchanged"], report["encoded"], report["moved"], report["gone"]) == (12, 0, 0, 0)
    path = shown["path"].replace(str(album), str(moved))
    assert run("show", "1", "--json").json == {**shown, "path": path, "root": str(moved)}
    assert run("check").code == 0


def test_roots_in_words(run, album, moved):
    assert run("root", "list").stdout.split() == [str(album), "offline", "12"]
    assert run("root", "move", album, moved).stdout == f"12 photos are now below {moved}\n"


def test_f30_a_folder_that_does_not_hold_the_photos_is_refused_unless_forced(run, album, moved):
    photo = moved / "day0" / "photo03.png"
    photo.write_bytes(photo.read_bytes()[:-1] + b"x")  # of the same size
    refused = run("root", "move", album, moved)
    assert refused.code == 1
    assert "1 of 12 photos looked at" in refused.stderr
    assert "day0/photo03.png" in refused.stderr
    assert "--force" in refused.stderr
    assert run("root", "list", "--json").json["roots"][0]["path"] == str(album)
    assert run("root", "move", album, moved, "--force").code == 0
    assert run("root", "list", "--json").json["roots"][0]["path"] == str(moved)


def test_a_large_folder_is_known_by_a_sample(run, tmp_path, make_photo):
    for seed in range(50):
        make_photo(tmp_path / "many" / f"{seed:02}.png", seed, size=(8, 8))
    run("index", tmp_path / "many", "--model", "builtin")
    (tmp_path / "empty").mkdir()
    assert "17 of 17 photos looked at" in run("root", "move", tmp_path / "many", tmp_path / "empty").stderr


def test_only_whole_indexed_folders_move_and_never_onto_one_another(run, album, tmp_path, make_photo):
    make_photo(tmp_path / "other" / "a.png", 99)
    run("index", album, tmp_path / "other", "--model", "builtin")
    for old, new, says in (
        (album / "day0", tmp_path / "other", "only a part of"),
        (tmp_path / "elsewhere", tmp_path / "other", "no indexed folder"),
        (album, tmp_path / "nowhere", "there is no folder"),
        (album, tmp_path / "other", "overlaps with"),
        (album, tmp_path, "overlaps with"),
    ):
        refused = run("root", "move", old, new, "--force")
        assert (refused.code, says in refused.stderr) == (1, True), refused.stderr
    places = [root["path"] for root in run("root", "list", "--json").json["roots"]]
    assert places == [str(album), str(tmp_path / "other")]
