"""evaluate zero-shot, retrieval and robustness on a handful of real photographs, by the built-in model."""

from __future__ import annotations

import os

import pytest
from PIL import Image, ImageOps

NAMES = {"brick wall": "brick_wall", "cat": "cat", "rocket": "rocket", "temple": "temple"}


@pytest.fixture(scope="module")
def here(tmp_path_factory, photographs):
    """styles/photos/CLASS and styles/mirrored/CLASS of four photographs, one of them also where it does not belong."""
    folder = tmp_path_factory.mktemp("labelled")
    for name, path in photographs.items():
        with Image.open(path) as image:
            small = image.convert("RGB").resize((160, 120))
        for style, made in (("photos", small), ("mirrored", ImageOps.mirror(small))):
            place = folder / "styles" / style / NAMES[name]
            place.mkdir(parents=True, exist_ok=True)
            made.save(place / "1.png")
            if name == "cat":
                (place.parent / "rocket").mkdir(parents=True, exist_ok=True)
                made.save(place.parent / "rocket" / "cat.png")
    return folder


@pytest.fixture
def evaluate(run, here):
    return lambda kind, *arguments: run(
        "evaluate", kind, *arguments, "--model", "builtin", "--cache", here / "kept"
    )


def test_zero_shot_tells_figures_and_the_worst_class_first(evaluate, here, place):
    outcome = evaluate("zero-shot", here / "styles" / "photos")
    assert outcome.code == 0, outcome.stderr
    lines = outcome.stdout.splitlines()
    assert lines[0] == "builtin on photos: 5 photos, 4 classes"
    assert lines[1].split() == ["figure", "value", "(95", "%)"]
    assert lines[2].split()[:2] == ["accuracy", "80.0%"]
    assert not any("five" in line for line in lines)
    assert lines[5].split() == ["class", "photos", "said", "right", "taken", "for"], "a pipe has it too"
    assert lines[6].split()[:3] == ["rocket", "2", "50.0%"]
    assert not place.exists(), "the user's own library is none of it"


def test_zero_shot_as_json_has_clip_benchmarks_shape(evaluate, here):
    document = evaluate("zero-shot", here / "styles" / "photos", "--json").json
    assert list(document)[:6] == ["dataset", "model", "pretrained", "task", "metrics", "language"]
    assert document["task"] == "zeroshot_classification"
    assert document["metrics"] == {"acc1": 0.8, "mean_per_class_recall": 0.875, "acc5": None}
    assert document["intervals"]["acc1"][0] < 0.8 < document["intervals"]["acc1"][1]
    assert document["classnames"] == ["brick wall", "cat", "rocket", "temple"]
    assert document["folders"] == ["brick_wall", "cat", "rocket", "temple"]
    assert document["templates"] == ["a photo of a {}."]
    assert [sum(row) for row in document["confusion"]] == [1, 1, 2, 1]
    assert document["per_class"][0]["class"] == "rocket"
    assert document["per_class"][0]["confused"] == [{"class": "cat", "photos": 1}]


@pytest.mark.parametrize("lines", ["temple\ta Chinese palace\n", "a wall\na cat\na rocket\na Chinese palace\n"])
def test_other_words_for_a_class_change_what_is_said(evaluate, here, tmp_path, lines):
    (tmp_path / "names.txt").write_text(lines, encoding="utf-8")
    document = evaluate("zero-shot", here / "styles" / "photos", "--labels", tmp_path / "names.txt", "--json").json
    assert document["classnames"][3] == "a Chinese palace"
    assert document["folders"][3] == "temple"


def test_class_names_and_sentences_in_clip_benchmarks_files(evaluate, here, tmp_path):
    (tmp_path / "names.json").write_text('{"mine": ["brick", "pet", "pet", "palace"]}')
    (tmp_path / "prompts.json").write_text(
        '{"mine": {"brick": ["bricks"], "pet": ["a cat", "a dog"], "palace": ["a palace"]}}'
    )
    arguments = ("--labels", tmp_path / "names.json", "--templates", tmp_path / "prompts.json")
    document = evaluate("zero-shot", here / "styles" / "photos", *arguments, "--json").json
    assert document["classnames"] == ["brick", "pet", "pet", "palace"]
    both = evaluate("zero-shot", here / "styles" / "photos", *arguments, "--template", "{}")
    assert (both.code, "whole sentences" in both.stderr) == (2, True)


def test_labels_of_classes_that_are_not_there_are_refused(evaluate, here, tmp_path):
    (tmp_path / "names.txt").write_text("dog\ta dog\n")
    outcome = evaluate("zero-shot", here / "styles" / "photos", "--labels", tmp_path / "names.txt")
    assert (outcome.code, "dog is no class of photos" in outcome.stderr) == (1, True)


def test_several_labels_of_a_photo_are_measured_by_average_precision(evaluate, here, tmp_path):
    photos = here / "styles" / "photos"
    (tmp_path / "set.csv").write_text(
        f"{photos}/cat/1.png,cat;animal\n{photos}/rocket/1.png,rocket\nnone.png,cat\n"
    )
    outcome = evaluate("zero-shot", tmp_path / "set.csv", "--json")
    assert list(outcome.json["metrics"]) == ["mean_average_precision"]
    assert outcome.json["photos"] == 2
    assert [os.path.basename(skip["path"]) for skip in outcome.json["skipped"]] == ["none.png"]
    assert "there is no such file" in outcome.stderr


def test_a_page_is_written_with_plots(evaluate, here, tmp_path):
    for kind, source in (("zero-shot", here / "styles" / "photos"), ("robustness", here / "styles")):
        page = tmp_path / f"{kind}.html"
        assert evaluate(kind, source, "--html", page).code == 0
        assert page.read_text(encoding="utf-8").count("<svg") >= 1


@pytest.fixture
def captions(here, tmp_path):
    table = tmp_path / "captions.tsv"
    said = {
        "cat": ["a cat", "a close-up of a ginger cat that looks into the camera"],
        "rocket": ["a rocket " * 60],
    }
    rows = [f"{here}/styles/photos/{name}/1.png\t{text}\n" for name, texts in said.items() for text in texts]
    table.write_text("image\tcaption\n" + "".join(rows), encoding="utf-8")
    return table


def test_retrieval_as_json_has_clip_benchmarks_keys(evaluate, captions):
    outcome = evaluate("retrieval", captions, "--recall-k", "1,2", "--edges", "6", "--json")
    document = outcome.json
    assert document["task"] == "zeroshot_retrieval"
    assert document["metrics"] == {
        "image_retrieval_recall@1": 1.0,
        "text_retrieval_recall@1": 1.0,
        "image_retrieval_recall@2": 1.0,
        "text_retrieval_recall@2": 1.0,
    }
    assert (document["photos"], document["captions"]) == (2, 3)
    assert [(one["tokens"][0], one["captions"]) for one in document["by_length"]] == [(4, 1), (15, 2)]
    assert (document["truncated"], document["truncated_tokens"]) == (1, 122 - 77)
    assert "1 caption is longer than builtin reads" in outcome.stderr


def test_retrieval_goes_by_the_column_asked_for_and_tells_lines_without_a_caption(evaluate, captions):
    path, _, said = captions.read_text(encoding="utf-8").splitlines()[1].partition("\t")
    captions.write_text(f"image\tcaption\tshort\n{path}\t{said}\tcat\n{path}\tkitten\t\n", encoding="utf-8")
    for options, count in (((), 2), (("--column", "Short"), 1)):
        document = evaluate("retrieval", captions, "--recall-k", "1", "--json", *options).json
        assert (document["captions"], len(document["skipped"])) == (count, 2 - count)
    assert document["skipped"][0]["reason"] == "empty"
    assert "none called shirt" in evaluate("retrieval", captions, "--column", "shirt").stderr


def test_retrieval_tells_recall_by_length(evaluate, captions, tmp_path):
    outcome = evaluate("retrieval", captions, "--html", tmp_path / "page.html")
    assert outcome.stdout.splitlines()[0] == "builtin on captions: 2 photos, 3 captions"
    assert any(line.startswith("recall@10") for line in outcome.stdout.splitlines())
    assert "<svg" in (tmp_path / "page.html").read_text(encoding="utf-8")
    assert evaluate("retrieval", captions, "--recall-k", "0").code == 2


def test_models_stand_beside_one_another_by_the_same_lengths(evaluate, captions, long_model, tmp_path):
    page = tmp_path / "page.html"
    arguments = ("retrieval", captions, "--model", long_model, "--recall-k", "1,2", "--edges", "6")
    outcome = evaluate(*arguments, "--html", page)
    lines = [line.split() for line in outcome.stdout.splitlines()]
    assert lines[0] == ["captions:", "2", "photos,", "3", "captions"]
    assert [line[0] for line in lines if line] == [
        *("captions:", "captions", long_model, "builtin"),
        *("recall@1", long_model, "builtin"),
    ]
    assert "caption is longer than builtin reads" in outcome.stderr
    assert page.read_text(encoding="utf-8").count("<svg") == 2, "a plot for each k"
    models = evaluate(*arguments, "--json").json["models"]
    assert [one["model"] for one in models] == [long_model, "builtin"]
    assert models[0]["by_length"] != models[1]["by_length"]
    assert [[bin["tokens"] for bin in one["by_length"]] for one in models] == [[[4, 4], [15, 122]]] * 2
    assert [one["truncated"] for one in models] == [0, 1]


def test_a_folder_of_styles_is_compared_with_its_first(evaluate, here):
    outcome = evaluate("robustness", here / "styles", "--reference", "photos", "--json")
    document = outcome.json
    assert [row["dataset"] for row in document["results"]] == ["photos", "mirrored"]
    assert document["results"][0]["drop"] == 0
    assert document["metrics"]["acc1"] == document["results"][0]["metrics"]["acc1"] == 0.8
    assert document["corruptions"] == []
    assert "styles: photos, mirrored" in outcome.stderr
    assert evaluate("robustness", here / "styles", "--reference", "sketch").code == 1


def test_corruptions_spoil_the_photos_at_five_strengths(evaluate, here):
    document = evaluate("robustness", here / "styles" / "photos", "--corruptions", "contrast", "--json").json
    assert [(row["corruption"], row["strength"]) for row in document["corruptions"]] == [
        ("contrast", strength) for strength in range(1, 6)
    ]
    accuracies = [row["metrics"]["acc1"] for row in document["corruptions"]]
    assert document["metrics"]["mean_corruption_acc1"] == pytest.approx(sum(accuracies) / 5)
    told = evaluate("robustness", here / "styles" / "photos", "--corruptions", "contrast").stdout
    assert any(line.startswith("contrast") for line in told.splitlines())
    assert evaluate("robustness", here / "styles" / "photos", "--corruptions", "fog").code == 1


def test_classes_that_not_all_styles_have_are_left_out_and_told(evaluate, here, tmp_path, make_photo):
    make_photo(tmp_path / "other" / "cat" / "1.png", 1)
    make_photo(tmp_path / "other" / "rocket" / "1.png", 2)
    (tmp_path / "names.txt").write_text("cat\ta tabby\ntemple\ta palace\n")
    arguments = (here / "styles" / "photos", tmp_path / "other", "--labels", tmp_path / "names.txt")
    outcome = evaluate("robustness", *arguments, "--json")
    assert outcome.json["classnames"] == ["a tabby", "rocket"]
    assert outcome.json["folders"] == ["cat", "rocket"]
    assert outcome.json["left_out"] == {"photos": ["brick_wall", "temple"]}
    assert "not all have them: brick_wall, temple" in outcome.stderr


def test_the_model_is_that_of_ones_library(run, here, make_photo, tmp_path):
    make_photo(tmp_path / "own" / "1.png", 1)
    assert run("index", tmp_path / "own", "--model", "builtin").code == 0
    outcome = run("evaluate", "zero-shot", here / "styles" / "photos", "--cache", here / "kept", "--json")
    assert outcome.json["model"] == "builtin"
    assert "recommended" not in outcome.stderr
    assert run("status", "--json").json["photos"] == 1
    clash = run("evaluate", "zero-shot", here / "styles" / "photos", "--no-cache", "--cache", tmp_path)
    assert clash.code == 2


def test_one_class_is_nothing_to_tell_apart(evaluate, tmp_path, make_photo):
    make_photo(tmp_path / "set" / "cat" / "1.png", 1)
    outcome = evaluate("zero-shot", tmp_path / "set")
    assert (outcome.code, "photos of one class" in outcome.stderr) == (1, True)


def test_a_folder_whose_photos_cannot_be_read_is_an_error(evaluate, tmp_path):
    for name in ("cat", "dog"):
        (tmp_path / "bad" / name).mkdir(parents=True)
        (tmp_path / "bad" / name / "1.jpg").write_bytes(b"\xff\xd8\xff\xe0 no more")
    outcome = evaluate("zero-shot", tmp_path / "bad")
    assert (outcome.code, "no photo of" in outcome.stderr) == (1, True)
    assert "1.jpg: decode_error" in outcome.stderr


@pytest.fixture
def unreadable(here, tmp_path):
    """Photos of three classes, and two folders that stand between them: one holds what can't be read, one nothing."""
    folder = tmp_path / "some"
    for name in ("brick_wall", "cat", "rocket"):
        (folder / name).mkdir(parents=True)
        (folder / name / "1.png").write_bytes((here / "styles" / "photos" / name / "1.png").read_bytes())
    for name in ("board", "cup"):
        (folder / name).mkdir()
    (folder / "board" / "x.png").write_bytes(b"no picture")
    return folder


@pytest.mark.parametrize("kind", ["zero-shot", "robustness", "prompts", "relevance"])
def test_lines_in_order_are_counted_by_folders_whatever_can_be_read(evaluate, unreadable, tmp_path, kind):
    (tmp_path / "names.txt").write_text("a board\na wall\na cat\na cup\na rocket\n")
    options = {"robustness": ("--corruptions", "none"), "prompts": ("--template", "{}")}.get(kind, ())
    source = unreadable
    if kind == "relevance":  # which takes folders with photos alone
        (tmp_path / "names.txt").write_text("a board\na wall\na cat\na rocket\n")
    outcome = evaluate(kind, source, "--labels", tmp_path / "names.txt", *options, "--json")
    assert outcome.code == 0, outcome.stderr
    assert "no photo that can be read is of board" in outcome.stderr
    if kind != "relevance":
        document = outcome.json["results"][-1] if kind == "prompts" else outcome.json
        assert document["classnames"] == ["a wall", "a cat", "a rocket"]
        assert outcome.json["folders"] == ["brick_wall", "cat", "rocket"]
    else:
        assert outcome.json["classes"] == 3


@pytest.mark.parametrize("kind", ["zero-shot", "robustness", "relevance"])
def test_texts_that_are_cut_are_told(evaluate, unreadable, tmp_path, kind):
    (tmp_path / "names.txt").write_text("cat\t" + "a cat " * 100)
    options = ("--corruptions", "none") if kind == "robustness" else ()
    outcome = evaluate(kind, unreadable, "--labels", tmp_path / "names.txt", *options, "--json")
    assert outcome.json["truncated_tokens"] > 100
    assert f"{outcome.json['truncated_tokens']} tokens" in outcome.stderr
