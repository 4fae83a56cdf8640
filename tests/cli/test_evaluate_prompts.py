from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

SUBJECTS = {"cat": "cat", "brick_wall": "brick wall", "rocket": "rocket", "temple": "temple"}


@pytest.fixture(scope="module")
def labelled(photographs, tmp_path_factory) -> Path:
    """Four photographs by class, and one of them again in a wrong folder."""
    folder = tmp_path_factory.mktemp("laboratory") / "labelled"
    for name, subject in SUBJECTS.items():
        (folder / name).mkdir(parents=True)
        (folder / name / photographs[subject].name).write_bytes(photographs[subject].read_bytes())
    (folder / "temple" / "wrong.png").write_bytes(photographs["cat"].read_bytes())
    return folder


@pytest.fixture
def prompts(run, labelled):
    """Run the command; the vectors of the photos are made once for all tests."""

    def prompts_(*arguments):
        cache = ("--cache", labelled.parent / "cache")
        return run("evaluate", "prompts", labelled, "--model", "builtin", *cache, *arguments)

    return prompts_


def test_wordings_are_compared_and_the_winner_told(prompts):
    done = prompts("--template", "{}", "--template", "a photo of a {}.")
    assert done.code == 0, done.stderr
    assert done.stdout.splitlines()[0] == "builtin on labelled: 5 photos, 4 classes"
    assert re.search(r"Best: “.*”\.", done.stdout)
    assert "on 5 photos" in done.stdout
    assert "1 of temple taken for cat" in done.stdout


def test_json_holds_each_wording_in_clip_benchmarks_shape(prompts, tmp_path):
    (tmp_path / "said.tsv").write_text("cat\ta cat\nbrick_wall\tbricks\nrocket\ta rocket\ntemple\ta temple\n")
    found = prompts("--template", "{}", "--captions", tmp_path / "said.tsv", "--add", "garden", "--json").json
    assert [one["wording"] for one in found["results"]] == ["{}", "said"]
    for one in (found, *found["results"]):
        assert {"dataset", "model", "pretrained", "task", "metrics", "language"} <= set(one)
        assert set(one["metrics"]) == {"acc1", "acc5", "mean_per_class_recall"}
        assert one["metrics"]["acc5"] is None  # of four classes
    assert found["metrics"]["acc1"] == max(one["metrics"]["acc1"] for one in found["results"]) == 0.8
    [mistake] = found["mistakes"]
    assert (mistake["class"], mistake["said"]) == ("temple", "cat")
    assert mistake["photos"][0]["path"].endswith("wrong.png")
    [change] = found["changes"]
    assert (change["name"], change["labels"][-1]) == ("with garden", "garden")


def test_the_best_wording_saved_gives_the_same_answers(prompts, run, labelled, tmp_path):
    file = tmp_path / "best.json"
    assert prompts("--template", "a picture of the {}.", "--save", file, "--json").code == 0
    assert prompts("--template", "{}", "--save", file).code == 0  # what was saved before may be replaced
    found = prompts("--template", "{}", "--json").json
    labels = ("--labels", f"{file}#labels", "--templates", f"{file}#templates", "-k", "1")
    photos = run("label", labelled, *labels, "--model", "builtin", "--json").json["photos"]
    said = {photo["path"]: photo["labels"][0]["label"] for photo in photos}
    wrong = {photo["path"]: one["said"] for one in found["mistakes"] for photo in one["photos"]}
    assert wrong
    assert said == {path: wrong.get(path, Path(path).parent.name) for path in said}
    assert len(said) == 5


def test_a_page_shows_plots_and_the_photos_that_were_mistaken(prompts, tmp_path):
    page = tmp_path / "page.html"
    done = prompts("--template", "{}", "--add", "kitten", "--drop", "brick_wall", "--html", page)
    assert done.code == 0, done.stderr
    html = page.read_text(encoding="utf-8")
    assert html.count('<svg viewBox="0 0 ') >= 3
    assert "temple taken for cat: 1" in html
    assert 'title="wrong.png"' in html
    assert "With kitten</h2>" in html
    assert "Without brick_wall</h2>" in html


def test_without_a_wording_the_usual_ones_are_compared(prompts):
    names = [one["wording"] for one in prompts("--json").json["results"]]
    assert names[:2] == ["{}", "a photo of a {}."]


def test_other_names_are_compared_with_the_folders(prompts, tmp_path):
    (tmp_path / "names.txt").write_text("brick_wall\ta violin\ncat\tcat\nrocket\trocket\ntemple\ttemple\n")
    found = prompts("--labels", tmp_path / "names.txt", "--template", "{}", "--json").json
    assert [one["wording"] for one in found["results"]] == ["folder names · {}", "names · {}"]
    assert found["winner"] == "folder names · {}"


@pytest.mark.parametrize(
    "arguments",
    [
        ("--template", "{}", "--split", "cat=kitten"),
        ("--save", "label.txt"),
        ("--template", " "),
    ],
)
def test_what_cant_be_meant_is_wrong_usage(prompts, arguments):
    assert prompts(*arguments).code == 2


def test_a_photo_is_not_overwritten_by_a_label_set(prompts, tmp_path):
    (tmp_path / "mine.json").write_text(json.dumps({"mine": 1}))
    assert prompts("--save", tmp_path / "mine.json").code == 2
    assert json.loads((tmp_path / "mine.json").read_text()) == {"mine": 1}


def test_files_of_one_name_are_told_apart(prompts, tmp_path):
    files = [tmp_path / folder / "said.txt" for folder in ("a", "b")]
    for number, file in enumerate(files):
        file.parent.mkdir()
        file.write_text(f"bricks {number}\na cat\na rocket\na temple\n")
    found = prompts("--captions", files[0], "--captions", files[1], "--json").json
    assert [one["wording"] for one in found["results"]] == [str(file) for file in files]


def test_a_wrong_file_of_words_is_told_before_any_photo_is_read(run, labelled, tmp_path):
    (tmp_path / "said.txt").write_text("one line\n")
    cache = tmp_path / "cache"
    done = run("evaluate", "prompts", labelled, "--captions", tmp_path / "said.txt", "--cache", cache, "--offline")
    assert done.code == 1
    assert "1 lines for 4 classes" in done.stderr
    assert not list(cache.rglob("catalog.db"))


def test_photos_of_one_class_are_nothing_to_compare(run, photographs, tmp_path):
    (tmp_path / "one" / "cat").mkdir(parents=True)
    (tmp_path / "one" / "cat" / "a.png").write_bytes(photographs["cat"].read_bytes())
    done = run("evaluate", "prompts", tmp_path / "one", "--model", "builtin", "--no-cache")
    assert (done.code, "fewer than two classes" in done.stderr) == (1, True)
