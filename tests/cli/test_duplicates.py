"""search duplicates, as it is typed."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from scenes import burst_exif, scaled, scene, stood


@pytest.fixture
def album(tmp_path: Path, run) -> Path:
    """An indexed folder: a photo with a copy and a smaller version, and two shots of a burst."""
    folder = tmp_path / "album"
    (folder / "old").mkdir(parents=True)
    scene(1).save(folder / "first.jpg", quality=95)
    shutil.copyfile(folder / "first.jpg", folder / "second.jpg")
    scaled(scene(1), 0.5).save(folder / "old" / "small.jpg")
    for second, shift in enumerate((0, 0.03)):
        stood(scene(2), shift).save(folder / f"shot{second}.jpg", quality=95, exif=burst_exif(second))
    assert run("index", folder, "--model", "builtin").code == 0
    return folder


def test_duplicates_are_told_as_the_contract_says(album, run):
    done = run("duplicates", "--json", "--threshold", "1")  # to the model all made pictures are alike
    assert done.code == 0
    groups = {group["kind"]: group for group in done.json["groups"]}
    assert list(groups) == ["exact", "same-picture", "same-moment"]
    exact = groups["exact"]
    assert exact["keep"] == str(album / "first.jpg") and exact["reason"] == "the same bytes"
    assert [(photo["path"], photo["score"]) for photo in exact["photos"]] == [
        (str(album / "first.jpg"), 1.0),
        (str(album / "second.jpg"), 1.0),
    ]
    small = groups["same-picture"]["photos"][1]
    assert (small["path"], small["why"]) == (str(album / "old" / "small.jpg"), "160x120 against 320x240")
    assert {Path(photo["path"]).name for photo in groups["same-moment"]["photos"]} == {"shot0.jpg", "shot1.jpg"}


def test_the_table_marks_what_is_kept_and_says_why(album, run):
    lines = run("duplicates", "--threshold", "1").stdout.splitlines()
    assert lines[0] == "exact: the same bytes"
    assert lines[1].split() == ["keep", "album/first.jpg"]
    assert any("album/old/small.jpg" in line and "160x120 against 320x240" in line for line in lines)
    assert lines[-1] == "3 photos could go in 3 groups; nothing was changed"


def test_only_copies_and_same_pictures_could_go_unless_a_kind_is_named(album, run):
    assert set(run("duplicates", "--list").stdout.splitlines()) == {
        str(album / "second.jpg"),
        str(album / "old" / "small.jpg"),
    }
    assert run("duplicates", "--kind", "exact", "--print0").stdout == f"{album / 'second.jpg'}\0"
    shots = run("duplicates", "--kind", "same-moment", "--list").stdout.splitlines()
    assert len(shots) == 1 and "shot" in shots[0]


def test_a_folder_narrows_the_look(album, run):
    assert run("duplicates", album / "old", "--json").json["groups"] == []
    assert run("duplicates", album / "nowhere").code == 1


def test_what_could_go_is_moved_where_it_had_been(album, run, tmp_path):
    done = run("duplicates", "--move-to", tmp_path / "aside", "--json")
    assert done.code == 0 and done.json["not_moved"] == []
    assert {moved["to"] for moved in done.json["moved"]} == {
        str(tmp_path / "aside" / "second.jpg"),
        str(tmp_path / "aside" / "old" / "small.jpg"),
    }
    assert {path.name for path in album.rglob("*.jpg")} == {"first.jpg", "shot0.jpg", "shot1.jpg"}
    assert Path(done.json["undo"]).is_file()
    assert run("status", "--json").json["photos"] == 3


def test_moving_into_the_indexed_folder_is_refused(album, run):
    done = run("duplicates", "--move-to", album / "aside", "--json")
    assert (done.code, done.json["error"]["type"]) == (1, "UsageError")
    assert not (album / "aside").exists()


def test_moving_and_listing_at_once_is_wrong_usage(run):
    assert run("duplicates", "--move-to", "x", "--list").code == 2
    assert run("duplicates", "--threshold", "2").code == 2


def test_a_library_without_duplicates_says_so(run, tmp_path):
    (tmp_path / "album").mkdir()
    scene(3).save(tmp_path / "album" / "one.jpg")
    run("index", tmp_path / "album", "--model", "builtin")
    assert run("duplicates").stdout == "no duplicates\n"
    assert run("duplicates", "--json").json["groups"] == []
    assert (
        run("duplicates", "--move-to", tmp_path / "aside").stdout == "0 files moved\n"
    )  # no list of them is there


def test_what_was_moved_is_moved_back(album, run, tmp_path):
    before = sorted(album.rglob("*.jpg"))
    run("duplicates", "--move-to", tmp_path / "aside")
    done = run("duplicates", "--undo", tmp_path / "aside", "--json")
    assert done.code == 0 and len(done.json["moved"]) == 2 and done.json["not_moved"] == []
    assert sorted(album.rglob("*.jpg")) == before and run("status", "--json").json["photos"] == 5
    assert run("duplicates", "--undo", tmp_path / "aside").stdout.startswith("0 files moved back")
    assert run("duplicates", "--undo", tmp_path / "aside", "--list").code == 2
