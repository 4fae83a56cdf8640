"""`search tags review`: answers as lines, what is printed, and being cut short."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

from search import Library
from search.cli import cli


@pytest.fixture(scope="module")
def prepared(tmp_path_factory, builtin) -> Path:
    """A library of five photos with labels proposed."""
    folder = tmp_path_factory.mktemp("prepared")
    (folder / "album").mkdir()
    for number in range(5):
        noise = np.random.default_rng(number).integers(0, 256, (6, 8, 3), np.uint8)
        Image.fromarray(noise).resize((64, 48)).save(folder / "album" / f"{number}.png")
    with Library.open(folder / "library", model="builtin", offline=True) as library:
        library.model.loaded = builtin
        library.index([folder / "album"])
        library.label(["stripes", "a cat"], apply=True)
    return folder / "library"


@pytest.fixture
def answer(run, place, prepared):
    """Run `tags review` with these lines as answers, on a copy of that library."""
    shutil.copytree(prepared, place)

    def answer_(*lines: str, options=()):
        given = "".join(f"{line}\n" for line in lines)
        return CliRunner().invoke(cli, ["-L", str(place), "tags", "review", *options], input=given)

    return answer_


def verdicts(place: Path) -> list[tuple[str, bool]]:
    with Library.open(place, model="builtin", offline=True) as library:
        return [(verdict.label, verdict.accepted) for verdict in library.catalog.verdicts()]


def test_lines_are_answers_and_the_outcome_is_told(answer, place):
    told = answer("y", "n", "s", "c a dog", "q", options=["--label", "stripes"])
    assert told.exit_code == 0
    assert sorted(verdicts(place)) == [("a dog", True), ("stripes", False), ("stripes", False), ("stripes", True)]
    assert "1 accepted, 1 rejected, 1 corrected" in told.stderr
    assert "search tags undo 2" in told.stderr
    assert [line.split("  ")[0] for line in told.stdout.splitlines()] == ["stripes", "a dog"]
    assert "not enough examples yet" in told.stdout


def test_questions_name_photo_label_and_probability(answer):
    told = answer("s", options=["--label", "stripes"])
    first, second = told.stderr.splitlines()[:2]
    assert first.startswith("1/5  ") and "stripes? 0." in first and "/album/" in first
    assert second.startswith("2/5  ")
    assert "nothing was judged" in told.stderr


def test_undo_asks_again(answer, place):
    told = answer("y", "u", "n", options=["--label", "stripes"])
    questions = [line for line in told.stderr.splitlines() if "stripes?" in line]
    assert questions[0] == questions[2]
    assert verdicts(place) == [("stripes", False)]


def test_what_is_no_answer_is_refused_and_asked_again(answer, place):
    told = answer("maybe", "c", "c stripes", "u", "", "y", options=["--label", "stripes", "-k", "1"])
    assert told.exit_code == 0
    assert "'maybe' is no answer" in told.stderr and "there is nothing to undo" in told.stderr
    assert verdicts(place) == [("stripes", True)]


def test_json_without_answers_is_the_queue(answer, place):
    items = json.loads(answer(options=["--json", "-k", "3"]).stdout)["items"]
    assert len(items) == 3
    assert {"path", "id", "label", "probability", "uncertainty"} <= set(items[0])
    assert not verdicts(place)


def test_json_after_answers_is_what_was_gained(answer):
    found = json.loads(answer("y", "n", options=["--json", "--label", "stripes", "--precision", "0.9"]).stdout)
    assert (found["accepted"], found["rejected"], found["corrected"]) == (1, 1, 0)
    (gain,) = found["gain"]
    assert (gain["label"], gain["examples"], gain["precision"]) == ("stripes", 2, 0.9)
    assert gain["threshold"] is None and gain["average_precision"] is None


def test_k_bounds_the_questions(answer, place):
    answer("y", "y", "y", options=["-k", "2"])
    assert len(verdicts(place)) == 2


def test_an_empty_queue_says_what_to_do(answer, run):
    run("tags", "undo", "1")
    told = run("tags", "review", "--json")
    assert (told.code, told.json) == (0, {"items": []})
    assert "search label --labels everyday --apply" in told.stderr


def test_learned_labels_can_be_left_out(answer, run):
    given = ("label", "--label", "stripes", "--label", "a cat", "--multi", "--threshold", "0", "--json")
    before = probabilities(run(*given))
    answer("n", "n", options=["--label", "stripes"])
    learned, by_text = probabilities(run(*given)), probabilities(run(*given, "--no-learned"))
    assert len(before) - len(learned) == len(before) - len(by_text) == 2  # what was rejected is not listed
    assert by_text == pytest.approx({which: before[which] for which in by_text}, abs=1e-6)  # float32
    assert max(abs(learned[which] - before[which]) for which in learned) > 0.001


def probabilities(done):
    photos = done.json["photos"]
    return {(photo["path"], found["label"]): found["probability"] for photo in photos for found in photo["labels"]}


@pytest.mark.skipif(sys.platform == "win32", reason="SIGINT can't be sent to one process there")
def test_ctrl_c_keeps_what_was_judged(answer, place):
    command = [sys.executable, "-m", "search", "-L", str(place), "tags", "review", "--label", "stripes"]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe, text=True) as process:
        process.stdin.write("y\n")
        process.stdin.flush()
        while not process.stderr.readline().startswith("2/5"):
            assert process.poll() is None
        process.send_signal(signal.SIGINT)
        _, told = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "1 accepted" in told
    assert verdicts(place) == [("stripes", True)]
