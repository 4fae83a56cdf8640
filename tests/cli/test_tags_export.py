"""`search tags export`: its JSON, its lists, its exit codes."""

from __future__ import annotations

import csv
import io
import json
import os
from pathlib import Path

import pytest

from search import files


@pytest.fixture
def labelled(run, tmp_path: Path, make_photo):
    """A folder of three photos with a label each; the run it was given in."""
    for number, name in enumerate(("a.png", "b.png", "=c.png")):
        make_photo(tmp_path / "album" / name, number)
    run("index", tmp_path / "album", "--model", "builtin")
    done = run("label", "--label", "=noise", "--label", "a cat", "--apply", "--json")
    assert done.code == 0
    return tmp_path / "album"


def test_an_export_is_told_in_json_and_taken_back(run, labelled):
    dry = run("tags", "export", "--dry-run", "--json")
    assert [(Path(one["path"]).name, one["action"]) for one in dry.json["changes"]] == [
        ("=c.png.xmp", "create"),
        ("a.png.xmp", "create"),
        ("b.png.xmp", "create"),
    ]
    assert not list(labelled.glob("*.xmp"))
    done = run("tags", "export", "--json")
    assert done.code == 0
    assert {name: done.json[name] for name in ("run", "written", "unchanged", "removed", "skipped")} == {
        "run": 2,
        "written": 3,
        "unchanged": 0,
        "removed": 0,
        "skipped": [],
    }
    assert "Done: written 0 · unchanged 3 · removed 0 · skipped 0" in run("tags", "export").stdout
    assert run("tags", "undo", 2, "--json").json["sidecars"] == 3
    assert not list(labelled.glob("*.xmp"))


def test_what_is_skipped_is_told_and_fails_under_strict(run, labelled):
    (labelled / "a.png.xmp").write_text("mine")
    done = run("tags", "export", "--strict", "--json")
    assert done.code == 3
    (skip,) = done.json["skipped"]
    assert (skip["path"], skip["reason"]) == (str(labelled / "a.png"), "not_xmp")
    shown = run("tags", "export")
    assert (shown.code, "not_xmp" in shown.stdout) == (0, True)
    assert (labelled / "a.png.xmp").read_text() == "mine"


def test_a_full_disk_is_told_with_its_exit_code(run, labelled, monkeypatch):
    def full(*_: object) -> None:
        raise OSError(28, os.strerror(28))

    monkeypatch.setattr(files.Path, "replace", full)
    done = run("tags", "export", "--json")
    assert done.code == 4
    assert done.json["error"]["type"] == "StorageError"


@pytest.mark.parametrize("form", ["csv", "json"])
def test_a_list_of_labels_can_be_taken_in_again(run, labelled, tmp_path: Path, form):
    assert run("tags", "accept", labelled / "=c.png", "--label", "=noise").code == 0
    run("tags", "reject", labelled / "a.png", "--label", "a cat")
    file = tmp_path / f"labels.{form}"
    assert run("tags", "export", "--output", file).code == 0
    assert run("tags", "export", "--format", form).stdout.encode() == file.read_bytes()
    if form == "csv":
        rows = list(csv.DictReader(io.StringIO(file.read_text())))
        assert list(rows[0])[:9] == [
            *("path", "label", "state", "probability", "score", "source", "encoder", "label_set", "run"),
        ]
        assert all(row["label"][0] != "=" for row in rows)  # no formula
    else:
        rows = [label for photo in json.loads(file.read_text())["photos"] for label in photo["labels"]]
    states = sorted(row["state"] for row in rows)
    assert set(states) <= {"proposed", "accepted", "rejected"}
    assert "accepted" in states
    before = run("tags", "list", "--json").json
    run("tags", "undo", 2)
    assert run("tags", "import", file, "--json").code == 0
    after = run("tags", "list", "--json").json
    named = {one["label"]: one["imported"] + one["accepted"] for one in after["labels"]}
    assert named["=noise"] == {one["label"]: one["accepted"] for one in before["labels"]}["=noise"] == 1


def test_options_that_do_not_go_together_are_refused(run, labelled, tmp_path: Path):
    for wrong in (
        ("--format", "xmp", "--output", tmp_path / "x.csv"),
        ("--format", "csv", "--output", tmp_path / "x.json"),
        ("--output", tmp_path / "x.jpg"),
        ("--format", "csv", "--dry-run"),
        ("--sidecar-style", "other"),
    ):
        assert run("tags", "export", *wrong).code == 2, wrong
    (tmp_path / "mine.csv").write_text("a,b\n1,2\n")
    refused = run("tags", "export", "--output", tmp_path / "mine.csv")
    assert (refused.code, "it stays" in refused.stderr) == (2, True)
    assert run("tags", "export", "--label", "nowhere").code == 1


def test_a_library_without_labels_makes_empty_lists(run, tmp_path: Path, make_photo):
    make_photo(tmp_path / "album" / "a.png", 1)
    run("index", tmp_path / "album", "--model", "builtin")
    assert run("tags", "export", "--format", "json").json == {"photos": []}
    assert run("tags", "export", "--format", "csv").stdout.startswith("path,label,state,")
    assert run("tags", "export", "--json").json["run"] is None
