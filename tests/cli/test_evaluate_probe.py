from __future__ import annotations

import numpy as np
import pytest
from PIL import Image


@pytest.fixture(scope="module")
def colours(tmp_path_factory):
    """Two folders of pictures of one colour each, with some noise."""
    folder = tmp_path_factory.mktemp("colours")
    random = np.random.default_rng(0)
    for name, colour in {"red": (200, 30, 30), "blue": (30, 30, 200)}.items():
        (folder / name).mkdir()
        for number in range(8):
            pixels = np.clip(np.array(colour) + random.integers(-30, 30, (16, 16, 3)), 0, 255).astype(np.uint8)
            Image.fromarray(pixels).resize((64, 64)).save(folder / name / f"{number}.png")
    return folder


@pytest.fixture(scope="module")
def others(colours, tmp_path_factory):
    """The same, mirrored; one picture is a copy."""
    folder = tmp_path_factory.mktemp("others")
    for name in ("red", "blue"):
        (folder / name).mkdir()
        for number in range(8):
            with Image.open(colours / name / f"{number}.png") as image:
                image.transpose(Image.Transpose.ROTATE_90).save(folder / name / f"{number}.png")
    (folder / "red" / "again.png").write_bytes((colours / "red" / "3.png").read_bytes())
    return folder


@pytest.fixture
def probe(run, colours):
    def probe_(*arguments):
        cache = ("--cache", colours.parent / f"{colours.name}-cache")
        return run("evaluate", "probe", colours, "--model", "builtin", *cache, "--seeds", "2", *arguments)

    return probe_


def test_a_table_says_what_examples_are_worth(probe, tmp_path):
    page = tmp_path / "page.html"
    done = probe("--shots", "1,2,9,all", "--html", page)
    assert done.code == 0, done.stderr
    assert "left out: 9" in done.stderr
    assert [line.split()[0] for line in done.stdout.splitlines()[2:6]] == ["zero-shot", "1", "2", "all"]
    html = page.read_text(encoding="utf-8")
    assert "labelled examples per class" in html
    assert html.count("<svg viewBox") == 1


def test_json_has_clip_benchmarks_keys(probe, others):
    done = probe("--shots", "1,all", "--test", others, "--json")
    found = done.json
    assert "1 photo to test with is among those to train with; left out" in done.stderr
    assert found["photos"]["left_out"] == 1
    assert {"lp_acc1", "lp_acc5", "lp_mean_per_class_recall", "fewshot_k"} <= set(found["metrics"])
    assert found["task"] == "linear_probe"
    keys = [(one["metrics"]["fewshot_k"], one["metrics"]["seed"]) for one in found["results"]]
    assert keys == [(1, 0), (1, 1), (-1, 0)]
    assert found["photos"]["test"] == 16
    assert found["metrics"]["lp_acc1"] == 1.0
    assert found["metrics"]["lp_acc5"] is None


def test_photos_to_train_with_are_none_to_test_with(probe, colours):
    done = probe("--shots", "1", "--test", colours)
    assert (done.code, "all photos to test with" in done.stderr) == (1, True)


@pytest.mark.parametrize("shots", ["0", "two", "1,,2"])
def test_shots_that_are_no_numbers_are_wrong_usage(probe, shots):
    assert probe("--shots", shots).code == 2


def test_photos_to_test_with_must_be_of_the_same_classes(probe, make_photo, tmp_path):
    for name in ("red", "green"):
        make_photo(tmp_path / "other" / name / "a.png", 1)
    done = probe("--test", tmp_path / "other")
    assert done.code == 1
    assert "other classes" in done.stderr


def test_without_scikit_learn_it_is_refused_before_the_work(probe, monkeypatch):
    from search.evaluate import probe as module

    monkeypatch.setattr(module, "find_spec", lambda name: None)
    done = probe()
    assert done.code == 1
    assert "search[evaluate]" in done.stderr
