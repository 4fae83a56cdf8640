"""The labelling loop at the command line."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from PIL import Image

from search import LabelOptions, Library
from search.cli.completion import completing


@pytest.fixture(scope="module")
def prepared(tmp_path_factory, builtin) -> tuple[Path, Path]:
    """A library of four photos whose labels were written once, and their folder."""
    place, album = tmp_path_factory.mktemp("prepared") / "library", tmp_path_factory.mktemp("album")
    for number in range(4):
        Image.new("RGB", (40, 30), (60 * number, 0, 90)).save(album / f"photo{number}.png")
    with Library.open(place, model="builtin", offline=True) as library:
        library.model.loaded = builtin
        library.index([album])
        done = library.label(["red wall", "blue wall"], options=LabelOptions(multi=True), apply=True)
    assert (done.run, done.applied) == (1, 4)
    return place, album


@pytest.fixture
def album(prepared) -> Path:
    return prepared[1]


@pytest.fixture
def labelled(run, place, prepared):
    """What runs commands on a copy of that library."""
    shutil.copytree(prepared[0], place)
    return run


def test_labels_written_are_a_run(labelled):
    done = labelled("label", "--label", "sky", "--multi", "--threshold", 0, "--apply", "--json")
    assert done.json["run"] == 2
    assert "run 2: labels written for 4 photos; search tags undo 2 takes them back" in done.stderr


def test_the_loop(labelled, album):
    photo = next(album.rglob("*.png"))
    done = labelled("tags", "reject", photo, "--label", "red wall")
    assert "run 2: 1 label rejected on 1 photo; search tags undo 2 takes that back" in done.stderr
    others = sorted(other for other in album.rglob("*.png") if other != photo)
    accepted = labelled("tags", "accept", "--label", "red wall", *others, "--json").json
    assert accepted == {"run": 3, "photos": 3, "labels": 3, "unchanged": 0, "new": []}
    blue, red = labelled("tags", "list", "--json").json["labels"]
    assert (blue["label"], blue["judged"], blue["precision"]) == ("blue wall", 0, None)
    assert (red["photos"], red["proposed"], red["accepted"], red["rejected"]) == (3, 3, 3, 1)
    assert (red["judged"], red["right"], red["precision"]["share"]) == (4, 3, 0.75)
    table = labelled("tags", "list").stdout
    assert "not judged yet" in table
    assert "75% (30% to 95%), 4 judged" in table
    hits = labelled("find", "wall", "--tag", "red wall", "--min-relevance", 0, "--json").json
    assert hits["candidates"] == 3
    assert str(photo) not in {hit["path"] for hit in hits["hits"]}
    undone = labelled("tags", "undo", 2, "--json").json
    assert (undone["kind"], undone["verdicts"], undone["photos"], undone["skipped"]) == ("reject", 1, 1, [])
    assert labelled("find", "wall", "--tag", "red wall", "--json").json["candidates"] == 4


def test_a_photos_labels_tell_their_story(labelled, album):
    photo = next(album.rglob("*.png"))
    labelled("tags", "reject", photo, "--label", "red wall")
    labelled("tags", "accept", photo, "--label", "mine")
    shown = labelled("show", photo, "--json").json
    assert shown["labels"] == ["blue wall", "mine"]
    told = [(r["label"], r["source"], r["run"], r["rejected"]) for r in shown["label_records"]]
    assert told == [
        ("blue wall", "zero-shot", 1, False),
        ("mine", "user", 3, False),
        ("red wall", "zero-shot", 1, True),
        ("red wall", "user", 2, True),
    ]
    text = labelled("show", photo).stdout
    assert "mine, accepted by you in run 3" in text
    assert "red wall, by you in run 2" in text
    assert "blue wall, proposed by builtin at " in text


def test_runs_are_listed_with_what_made_them(labelled):
    labelled("tags", "undo", 1)
    labelled("tags", "accept", 1, "--label", "mine")
    accept, label = labelled("tags", "list", "--runs", "--json").json["runs"]
    assert (accept["run"], accept["kind"], accept["photos"], accept["details"]) == (
        2,
        "accept",
        1,
        {"labels": ["mine"]},
    )
    assert (label["label_set"], label["templates"], label["encoder"]) == ("given", "photo", "builtin")
    assert label["details"]["labels"] == ["red wall", "blue wall"]
    assert label["undone_at"]
    lines = labelled("tags", "list", "--runs").stdout.splitlines()
    assert "accept" in lines[0]
    assert "undone" in lines[1]


def test_photos_of_a_label_are_listed_with_how_they_stand(labelled, album):
    labelled("tags", "reject", 1, "--label", "red wall")
    labelled("tags", "accept", 2, "--label", "red wall")
    listed = labelled("tags", "list", "--photos", "red wall", "--json").json
    states = {photo["id"]: photo["state"] for photo in listed["photos"]}
    assert states == {1: "rejected", 2: "accepted", 3: "proposed", 4: "proposed"}
    assert all(0 <= photo["probability"] <= 1 for photo in listed["photos"])
    assert len(labelled("tags", "list", "--photos", "red wall").stdout.splitlines()) == 4


def test_a_list_is_imported_and_what_could_not_be_is_told(labelled, album, tmp_path):
    listed = tmp_path / "labels.json"
    photos = [{"path": str(album / "photo1.png"), "labels": ["dog"]}, {"path": "gone.png", "labels": ["dog"]}]
    listed.write_text(json.dumps({"photos": photos}))
    done = labelled("tags", "import", listed, "--strict", "--json")
    assert done.code == 3
    assert (done.json["run"], done.json["accepted"], len(done.json["skipped"])) == (2, 1, 1)
    assert "not in the library" in done.stderr
    again = labelled("tags", "import", listed)
    assert again.code == 0
    assert "nothing new to import" in again.stderr
    assert labelled("tags", "undo", 2).code == 0


def test_what_can_not_be_meant_is_told(labelled):
    for arguments, code, said in (
        (["accept", "1"], 2, "--label"),
        (["accept", "--label", "red wall"], 2, "say on which photos"),
        (["accept", "--label", " ", "1"], 2, "is empty"),
        (["reject", "--label", "rad wall", "--below", "1"], 1, "did you mean 'red wall'"),
        (["reject", "--label", "red wall", "99"], 1, "photo 99 is not in the library"),
        (["undo", "7"], 1, "there is no run 7; 'search tags list --runs' shows them"),
        (["undo", "x"], 2, "not a valid integer"),
        (["import"], 2, "either FILE or --from-keywords"),
        (["list", "--runs", "--photos", "red wall"], 2, "two questions"),
    ):
        done = labelled("tags", *arguments)
        assert (done.code, said in done.stderr) == (code, True), done.stderr


def test_a_new_label_like_a_known_one_is_pointed_out(labelled):
    done = labelled("tags", "accept", 1, "--label", "red walls")
    assert "'red walls' is a new label; was 'red wall' meant?" in done.stderr


def test_runs_that_stand_are_completed_the_last_first(labelled, place):
    labelled("tags", "accept", 1, "--label", "mine")
    labelled("tags", "accept", 1, "--label", "wrong")
    labelled("tags", "undo", 3)
    items = completing("bash").get_completions(["--library", str(place), "tags", "undo"], "")
    assert [item.value for item in items] == ["2", "1"]
    assert items[0].help.startswith("accept of ")


WALLS = ("--label", "red wall", "--label", "blue wall", "--label", "green wall")


def test_a_rejected_label_makes_room_for_the_next_best(labelled, album):
    """As it is listed, as it is written, and as it is counted; that the model was wrong is not forgotten."""
    first = {
        row["path"]: row["labels"] for row in labelled("label", *WALLS, "--no-learned", "--json").json["photos"]
    }
    path, (best, second, third) = next(iter(first.items()))
    labelled("label", *WALLS, "--no-learned", "--apply", "--quiet")
    labelled("tags", "reject", path, "--label", best["label"])
    again = {
        row["path"]: row["labels"] for row in labelled("label", *WALLS, "--no-learned", "--json").json["photos"]
    }
    assert {other: again[other] for other in again if other != path} == {
        other: first[other] for other in first if other != path
    }
    rest = 1 - best["probability"]
    assert [row["label"] for row in again[path]] == [second["label"], third["label"]]
    assert [row["probability"] for row in again[path]] == pytest.approx(
        [second["probability"] / rest, third["probability"] / rest], rel=1e-3
    )
    assert [
        row["label"]
        for row in labelled("label", path, *WALLS, "--no-learned", "--json").json["photos"][0]["labels"]
    ] == [
        second["label"],
        third["label"],
    ]
    judged = labelled("tags", "list", "--json").json["labels"]
    assert "labels written for 4 photos" in labelled("label", *WALLS, "--no-learned", "--apply").stderr
    listed = {
        row["path"]: row for row in labelled("tags", "list", "--photos", second["label"], "--json").json["photos"]
    }
    assert listed[path]["state"] == "proposed"
    after = labelled("tags", "list", "--json").json["labels"]
    assert [(one["label"], one["judged"], one["right"]) for one in after if one["judged"]] == [
        (one["label"], one["judged"], one["right"]) for one in judged if one["judged"]
    ]


@pytest.mark.parametrize("options", [(), ("--multi", "--threshold", "0")])
def test_a_photo_without_any_label_left_is_not_counted(labelled, album, options):
    path = next(album.rglob("*.png"))
    labelled("label", *WALLS, "--multi", "--threshold", "0", "--apply", "--quiet")
    labelled("tags", "reject", path, *WALLS)
    told = labelled("label", *WALLS, *options, "--apply")
    assert "labels written for 3 photos; 1 has none" in told.stderr
    assert labelled("tags", "list", "--runs", "--json").json["runs"][0]["photos"] == 3


def test_photos_are_labelled_by_id_and_what_was_written_is_counted_by_label(labelled):
    """A line a photo is of no use where there are many; --verbose has them all the same."""
    second = labelled("show", "2", "--json").json["path"]
    assert [row["path"] for row in labelled("label", "2", *WALLS, "--json").json["photos"]] == [second]
    assert "photo 99 is not in the library" in labelled("label", "99", *WALLS).stderr
    photos = labelled("label", *WALLS, "--no-learned", "--json").json["photos"]
    best = [row["labels"][0]["label"] for row in photos]
    told = labelled("label", *WALLS, "--no-learned", "--apply").stdout
    assert sorted(line.rsplit(None, 1) for line in told.splitlines()) == sorted(
        [label, str(best.count(label))] for label in set(best)
    )
    assert "photo0.png" in labelled("label", *WALLS, "--apply", "--verbose").stdout
