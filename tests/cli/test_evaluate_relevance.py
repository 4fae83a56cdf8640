from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from search.errors import UsageError
from search.evaluate.datasets import Dataset
from search.evaluate.pictures import Pictures
from search.evaluate.relevance import (
    ABSENT,
    LEFT_OUT,
    NONSENSE,
    PRESENT,
    _Asked,
    _evaluated,
    _nonsense,
    evaluate_relevance,
)


def asked(kind: str, relevance: list[float], cosine: list[float], true: list[bool]) -> _Asked:
    return _Asked(kind, np.float32(relevance), np.float32(cosine), np.array(true))


def test_curves_of_known_answers():
    """Of three true photos two have a relevance of 0.5 and more; nonsense reaches 0.4, what is absent 0.6."""
    found = _evaluated(
        [
            asked(PRESENT, [0.9, 0.5, 0.3], [0.3, 0.2, 0.1], [True, True, False]),
            asked(PRESENT, [0.26], [0.3], [True]),
            asked(LEFT_OUT, [0.2, 0.1], [0.4, 0.1], [False, False]),
            asked(ABSENT, [0.6], [0.1], [False]),
            asked(NONSENSE, [0.21, 0.1], [0.25, 0.1], [False, False]),
            asked(NONSENSE, [0.4], [0.1], [False]),
        ],
        "builtin",
        photos=9,
        classes=2,
    )
    assert found.true_photos == 3
    assert found.queries == {PRESENT: 2, LEFT_OUT: 1, ABSENT: 1, NONSENSE: 2}
    cut = found.cut  # 0.22
    assert (cut.kept, cut.nonsense, cut.absent, cut.left_out) == (1.0, 0.5, 0.0, 1.0)
    best = found.best_relevance  # none of three may go
    assert (best.threshold, best.kept, best.nonsense) == (pytest.approx(0.26), 1.0, 0.5)
    assert (found.best_cosine.threshold, found.best_cosine.nonsense) == (pytest.approx(0.2), 0.5)
    kept = [point.kept for point in found.relevance]
    nothing = [point.nonsense for point in found.relevance]
    assert kept == sorted(kept, reverse=True)
    assert nothing == sorted(nothing)


def test_one_true_photo_in_twenty_may_go():
    present = asked(PRESENT, np.linspace(1, 0.05, 20).tolist(), [0.1] * 20, [True] * 20)
    found = _evaluated([present], "builtin", photos=20, classes=2)
    assert found.best_relevance.threshold == pytest.approx(0.1)
    assert found.best_relevance.kept == 0.95


def test_nonsense_has_no_words_and_is_the_same_each_time():
    texts = list(_nonsense(["hat", "lion"]))
    assert texts == list(_nonsense(["hat", "lion"]))
    assert len(set(texts)) > 150
    assert all(texts)


@pytest.fixture
def labelled(photographs, tmp_path) -> Path:
    folder = tmp_path / "labelled"
    for name, path in photographs.items():
        place = folder / name.replace(" ", "_")
        place.mkdir(parents=True)
        (place / path.name).write_bytes(path.read_bytes())
    return folder


def measure(folder: Path, **options):
    dataset = Dataset.by_folder(folder)
    with Pictures("builtin", offline=True) as pictures:
        vectors = pictures.image_vectors(dataset.paths, root=dataset.root).vectors
        return evaluate_relevance(pictures, dataset, vectors, **options)


def test_real_photographs_are_told_from_nonsense(run, labelled):
    found = measure(labelled, absent=["a violin", "a cat"], k=3)
    assert (found.photos, found.classes, found.true_photos) == (4, 4, 4)
    assert found.queries[ABSENT] == 1  # a cat is there
    assert found.cut.kept == 1
    assert found.cut.nonsense > 0.8


def test_one_class_is_nothing_to_measure(run, labelled):
    for name in ("rocket", "temple", "brick_wall"):
        shutil.rmtree(labelled / name)
    with pytest.raises(UsageError, match="one class"):
        measure(labelled)


def test_the_command_prints_a_table_json_and_a_page(run, labelled, tmp_path):
    (tmp_path / "names.tsv").write_text("cat\ta kitten\n")
    page = tmp_path / "page.html"
    arguments = ("evaluate", "relevance", labelled, "--model", "builtin", "--labels", tmp_path / "names.tsv")
    arguments = (*arguments, "--cache", tmp_path / "kept")
    done = run(*arguments, "--html", page)
    assert done.code == 0, done.stderr
    assert "cosine, keeping 95 %" in done.stdout
    assert page.read_text().count("<svg") == 3
    assert "true photos kept" in page.read_text()
    document = run(*arguments, "--json").json
    assert set(document["cut"]) == {"threshold", "kept", "nonsense", "absent", "left_out"}
    assert len(document["relevance"]) > 10
    assert json.dumps(document["cosine"])
    assert not (tmp_path / "library").exists()


def test_a_file_of_names_that_is_none_is_refused(run, labelled, tmp_path):
    (tmp_path / "names.tsv").write_text("cat a kitten\nrocket\ta rocket\n")
    assert run("evaluate", "relevance", labelled, "--labels", tmp_path / "names.tsv").code == 1
