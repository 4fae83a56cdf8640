"""What pictures in class folders teach a library's labels. The folders' names are wrong, so that no text could know."""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing

import numpy as np
import pytest
from PIL import Image

from search import Library

COLOURS = {"blue": (200, 30, 30), "red": (30, 30, 200)}
"""What pictures in a folder of this name show."""


@pytest.fixture(scope="module")
def swapped(tmp_path_factory):
    """Two folders of ten pictures, each called what the other shows."""
    folder = tmp_path_factory.mktemp("swapped") / "swapped"
    random = np.random.default_rng(0)
    for name, colour in COLOURS.items():
        (folder / name).mkdir(parents=True)
        for number in range(10):
            pixels = np.clip(np.array(colour) + random.integers(-30, 30, (8, 8, 3)), 0, 255).astype(np.uint8)
            Image.fromarray(pixels).resize((32, 32)).save(folder / name / f"{number}.png")
    return folder


@pytest.fixture
def indexed(run, swapped):
    """Runs commands on a library of these pictures."""
    assert run("index", swapped, "--model", "builtin").code == 0
    return run


def right(run, swapped, *options):
    """The share of pictures whose label is their folder's name."""
    found = run("label", swapped, "--label", "red", "--label", "blue", "--json", *options).json["photos"]
    return np.mean([one["labels"][0]["label"] == one["path"].split("/")[-2] for one in found])


def test_a_probe_decides_until_it_is_undone(indexed, swapped, place):
    untaught = right(indexed, swapped)
    assert untaught < 0.2
    document = indexed("train", "probe", swapped, "--json").json
    worth = document["worth"]
    assert (worth["train"], worth["validation"], worth["test"]) == (12, 4, 4)
    assert worth["accuracy"]["value"] == 1 > 0.5 > worth["zero_shot"]["value"]
    assert worth["accuracy"]["low"] < 1  # four pictures say little
    assert (document["photos"], document["known"], document["labels"]) == (20, 20, ["blue", "red"])
    assert right(indexed, swapped) == right(indexed, swapped, "--multi") == 1
    assert right(indexed, swapped, "--template", "{}, however worded") == 1
    assert right(indexed, swapped, "--no-learned") == untaught
    with Library.open(place, offline=True) as library:
        asked = library.tags.review(["red"]).queue(20)
    assert {one.photo.path.split("/")[-2] for one in asked if one.probability > 0.5} == {"red"}
    assert len(asked) == 20
    assert "2 taught" in indexed("tags", "list", "--runs").stdout
    assert "weights" not in indexed("tags", "list", "--runs", "--json").json["runs"][0]["details"]
    assert "decided as they were" in indexed("tags", "undo", document["run"]).stderr
    with closing(sqlite3.connect(next(place.glob("*.db")))) as catalog:
        assert "weights" not in catalog.execute("SELECT details FROM runs").fetchone()[0]
    assert right(indexed, swapped) == untaught


def test_verdicts_correct_a_probe_and_of_two_probes_the_last_counts(indexed, swapped, tmp_path):
    out = tmp_path / "made"
    first = indexed("train", "probe", swapped, "--out", out, "--json").json

    def likely(name):
        options = ("--label", "red", "--multi", "--threshold", 0, "--json")
        (photo,) = indexed("label", swapped / name / "0.png", *options).json["photos"]
        return photo["labels"][0]["probability"]

    before = likely("blue")
    assert before < 0.5 < likely("red")
    indexed("tags", "accept", "--label", "red", *(swapped / "blue" / f"{number}.png" for number in range(5)))
    assert likely("blue") > before + 0.1
    assert indexed("tags", "undo", 2).code == 0

    other = tmp_path / "other"  # as the colours are
    for name, folder in (("red", "blue"), ("blue", "red")):
        other.mkdir(exist_ok=True)
        (other / name).symlink_to(swapped / folder)
    second = indexed("train", "probe", other, "--json").json["run"]
    assert likely("blue") > before + 0.2
    indexed("tags", "undo", second)
    assert likely("blue") == pytest.approx(before)
    indexed("tags", "undo", first["run"])
    assert "2 labels taught" in indexed("train", "probe", "--from", out).stdout
    assert likely("blue") == pytest.approx(before)


def test_pictures_outside_the_library_are_encoded_and_nothing_of_them_is_kept(run, swapped, make_photo, tmp_path):
    for number in range(2):
        make_photo(tmp_path / "mine" / f"{number}.png", number)
    run("index", tmp_path / "mine", "--model", "builtin")
    (tmp_path / "cut.csv").write_text(
        "\n".join(f"{path},{path.parent.name}" for path in sorted(swapped.rglob("*.png"))) + "\nnone.png,red"
    )
    done = run("train", "probe", tmp_path / "cut.csv", "--no-cache", "--json")
    assert (done.json["photos"], done.json["known"]) == (20, 0)
    assert [one["path"].rpartition("/")[2] for one in done.json["skipped"]] == ["none.png"]
    assert run("status", "--json").json["photos"] == 2
    assert right(run, swapped) == 1  # files beside the library are labelled by it, too


def test_other_photos_of_the_library_hold_a_probe_back_but_for_those_accepted(
    indexed, swapped, make_photo, tmp_path
):
    def likely():
        found = indexed(
            "label", tmp_path / "mine", "--label", "red", "--label", "blue", "--multi", "--threshold", 0, "--json"
        )
        return np.mean([each["probability"] for one in found.json["photos"] for each in one["labels"]])

    for number in range(12):
        make_photo(tmp_path / "mine" / f"{number}.png", number)
    alone = indexed("train", "probe", swapped, "--json").json
    before = likely()
    indexed("index", tmp_path / "mine")
    indexed("tags", "accept", "--label", "red", tmp_path / "mine" / "0.png")
    held = indexed("train", "probe", swapped, "--json").json
    indexed("tags", "undo", 2)
    assert (alone["others"], held["others"]) == (0, 11)
    assert likely() < before / 2


def test_a_probe_of_another_model_is_refused_and_a_file_that_is_none_is_named(run, swapped, make_photo, tmp_path):
    from search.errors import EncoderMismatch
    from search.heads import Probe
    from search.train.probe import FILE, save_probe

    make_photo(tmp_path / "mine" / "0.png", 0)
    run("index", tmp_path / "mine", "--model", "builtin")
    with Library.open(tmp_path / "library", offline=True) as library:
        dim = library.model.answering().dim
        strange = Probe(("a",), np.zeros((1, dim), np.float32), np.zeros(1, np.float32), "0" * 64)
        with pytest.raises(EncoderMismatch, match="another model"):
            library.tags.teach(strange)
    save_probe(strange, tmp_path / "strange")
    done = run("train", "probe", "--from", tmp_path / "strange")
    assert (done.code, "another model than builtin" in done.stderr) == (1, True)
    whole = (tmp_path / "strange" / FILE).read_bytes()
    (tmp_path / "strange" / FILE).write_bytes(whole[:-1])
    assert "is no probe" in run("train", "probe", "--from", tmp_path / "strange").stderr
    assert "holds no probe" in run("train", "probe", "--from", tmp_path / "mine").stderr
    assert run("tags", "list", "--runs", "--json").json["runs"] == []


@pytest.mark.parametrize(
    ("labels", "tensors", "details", "message"),
    [
        (["a", None], {}, {}, "are no labels"),
        (["a", ""], {}, {}, "are no labels"),
        (["a", "a"], {}, {}, "are no labels"),
        (["a", "b\nc"], {}, {}, "are no labels"),
        ("ab", {}, {}, "are no labels"),
        (["a"], {}, {}, "do not fit"),
        (["a", "b"], {"weights": np.zeros((2, 8), np.int32)}, {}, "no floats"),
        (["a", "b"], {"weights": np.zeros(2, np.float32)}, {}, "do not fit"),
        (["a", "b"], {"biases": np.array([0, np.nan], np.float32)}, {}, "no number"),
        (["a", "b"], {}, ["worth"], "details"),
        (["a", "b"], {}, {"worth": {"accuracy": 1}}, "against"),
        (["a", "b"], {}, {"worth": 1}, "not subscriptable"),
    ],
)
def test_a_file_that_is_not_quite_a_probe_is_none(tmp_path, labels, tensors, details, message):
    from safetensors.numpy import save_file

    from search.errors import ModelError
    from search.train.probe import FILE, load_probe

    whole = {"weights": np.zeros((2, 8), np.float32), "biases": np.zeros(2, np.float32)}
    said = {"fingerprint": "0" * 64, "labels": json.dumps(labels), "details": json.dumps(details)}
    save_file({**whole, **tensors}, tmp_path / FILE, said)
    with pytest.raises(ModelError, match=f"is no probe: .*{message}"):
        load_probe(tmp_path)


def test_labels_that_no_library_keeps_are_in_no_probe():
    from search.errors import UsageError
    from search.heads import Probe

    for labels in (("a", " b"), ("a", "a"), ("a", "\x1b[2J")):
        with pytest.raises(UsageError, match="no labels"):
            Probe(labels, np.zeros((2, 8), np.float32), np.zeros(2, np.float32), "0" * 64)


def test_what_verdicts_taught_is_carried_to_another_library(indexed, swapped, make_photo, tmp_path):
    assert "no label was judged" in indexed("train", "probe", "--out", tmp_path / "made").stderr
    for name in COLOURS:
        indexed("tags", "accept", "--label", name, *sorted((swapped / name).iterdir()))
    here = right(indexed, swapped, "--multi")
    done = indexed("train", "probe", "--out", tmp_path / "made", "--json").json
    assert (done["run"], done["labels"], done["verdicts"]) == (None, ["blue", "red"], {"blue": 10, "red": 10})
    make_photo(tmp_path / "mine" / "0.png", 0)
    other = ("--library", tmp_path / "elsewhere")
    assert indexed(*other, "index", tmp_path / "mine", "--model", "builtin").code == 0
    assert indexed(*other, "train", "probe", "--from", tmp_path / "made").code == 0

    def likely(*library):
        options = ("--label", "red", "--label", "blue", "--multi", "--threshold", 0, "--json")
        found = indexed(*library, "label", swapped, *options).json["photos"]
        return {(one["path"], each["label"]): each["probability"] for one in found for each in one["labels"]}

    assert here == 1
    assert likely(*other) == pytest.approx(likely(), abs=1e-4)  # float32, summed in another order


def test_wrong_usage_is_told(run, swapped, tmp_path):
    assert run("train", "probe").code == 2
    assert run("train", "probe", swapped, "--from", tmp_path).code == 2
    assert run("train", "probe", "--from", tmp_path, "--out", tmp_path).code == 2
    assert "there is no library" in run("train", "probe", swapped).stderr
    for option in (("--template", "{}"), ("--labels", "x"), ("--test-share", "0.25"), ("--no-cache",)):
        for how in ("--from", "--out"):
            done = run("train", "probe", how, tmp_path, *option)
            assert (done.code, f"{option[0]} has no place" in done.stderr) == (2, True)


def test_a_class_of_too_few_photos_is_named(indexed, swapped, tmp_path):
    few = [f"{swapped}/red/{number}.png,red" for number in range(4)]
    (tmp_path / "few.csv").write_text(
        "\n".join([*few, f"{swapped}/blue/0.png,blue", f"{swapped}/blue/1.png,blue"])
    )
    assert "the class blue has 2 photos" in indexed("train", "probe", tmp_path / "few.csv").stderr
