"""What `search label` says, beyond what tests/cli/test_commands.py shows."""

from __future__ import annotations

import pytest


@pytest.fixture
def classes(tmp_path, photographs):
    """A folder of class folders; one holds a stranger, one nothing."""
    for folder, subjects in (
        ("brick_wall", ("brick wall", "rocket")),
        ("rocket", ("rocket",)),
        (".hidden", ("cat",)),
    ):
        for subject in subjects:
            photo = photographs[subject]
            place = tmp_path / "classes" / folder / photo.name
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_bytes(photo.read_bytes())
    return tmp_path / "classes"


def test_folders_are_labels_and_agreement_is_counted(run, classes):
    done = run("label", classes, "--labels-from-folders", "--model", "builtin", "--json").json
    assert done["labels"] == ["brick_wall", "rocket"]
    assert done["classes"] == [
        {"label": "brick_wall", "photos": 2, "agree": 1},
        {"label": "rocket", "photos": 1, "agree": 1},
    ]
    told = run("label", classes, "--labels-from-folders", "--model", "builtin").stdout.split()
    assert told == [*("brick_wall", "2", "1", "50%"), *("rocket", "1", "1", "100%"), *("all", "3", "2", "67%")]


def test_labels_come_from_folders_of_one_folder_only(run, classes, photographs):
    for paths in ((), (classes, classes), (photographs["cat"],), (classes / "rocket",)):
        assert run("label", *paths, "--labels-from-folders", "--model", "builtin").code == 2


def test_json_tells_sets_and_shares_of_parents(run, photographs, tmp_path):
    labels = tmp_path / "mine.txt"
    labels.write_text("animal/cat | kitty\nanimal/dog\nrocket | | 0.9\n")
    arguments = ("label", photographs["cat"], "--model", "builtin", "--json")
    done = run(*arguments, "--labels", labels, "--templates", "pets").json
    assert (done["label_set"], done["template_set"], done["run"]) == ("mine.txt", "pets", None)
    [photo] = done["photos"]
    assert [parent["label"] for parent in photo["parents"]] == ["animal"]
    assert photo["parents"][0]["probability"] == pytest.approx(
        sum(x["probability"] for x in photo["labels"]), abs=0.1
    )
    assert {x["label"] for x in photo["labels"]} == {"animal/cat", "animal/dog"}
    assert "parents" not in run(*arguments, "--label", "cat").json["photos"][0]


def test_thresholds_are_for_all_labels_or_for_one(run, photographs):
    arguments = (
        "label",
        photographs["cat"],
        "--label",
        "cat",
        "--label",
        "rocket",
        "--model",
        "builtin",
        "--json",
    )

    def names(*options: str) -> set[str]:
        return {label["label"] for label in run(*arguments, *options).json["photos"][0]["labels"]}

    assert names() == {"cat", "rocket"}
    assert names("--threshold", "0.5") == {"cat"}
    assert names("--threshold", "0.5", "--threshold", "rocket=0") == {"cat", "rocket"}
    assert names("--threshold", "cat=1") == {"rocket"}
    for wrong in ("cat=2", "cat=", "cat", "nan"):
        assert run(*arguments, "--threshold", wrong).code == 2
    assert run(*arguments, "--threshold", "dog=0.5").json["error"]["type"] == "UsageError"


def test_one_by_one_nothing_that_fits_is_told(run, photographs):
    arguments = ("label", photographs["temple"], "--label", "a hamster", "--multi", "--none-of-these")
    done = run(*arguments, "--model", "builtin", "--json").json
    assert [label["label"] for label in done["photos"][0]["labels"]] == ["none of these"]


def test_without_a_library_a_models_bank_is_kept_in_the_users_cache(
    run, tiny_model, make_photo, tmp_path, monkeypatch
):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    photo = make_photo(tmp_path / "photo.png", 1)
    arguments = ("label", photo, "--label", "dog", "--multi", "--threshold", "0", "--model", tiny_model, "--json")
    first, again = run(*arguments), run(*arguments)
    assert ("happens once" in first.stderr, "happens once" in again.stderr) == (True, False)
    assert first.json == again.json
    assert [file.suffix for file in (tmp_path / "cache" / "search" / "banks").iterdir()] == [".npy"]
    assert not (tmp_path / "library").exists()
