"""The laboratory on vectors made by hand, so that every answer is known."""

from __future__ import annotations

import json

import numpy as np
import pytest

from search.errors import UsageError
from search.evaluate.datasets import Dataset
from search.evaluate.naming import called, read_captions, read_names
from search.evaluate.prompts import (
    adding,
    dropping,
    evaluate_changes,
    evaluate_prompts,
    saved,
    splitting,
    wordings_of,
)
from search.labels import Label, LabelSet, load_labels, load_templates

AXES = {
    "cat": (1, 0, 0, 0),
    "dog": (0, 1, 0, 0),
    "big cow": (0, 0, 1, 0),
    "kitten": (0.8, 0, 0, 0.6),
    "puppy": (0, 0.6, 0, 0.8),
    "a cat": (0, 1, 0, 0),  # a wording that takes cats for dogs
    "a dog": (1, 0, 0, 0),
    "a big cow": (0, 0, 1, 0),
}


class Words:
    """A text half whose vectors stand in a table."""

    context_length = 77
    english_only = True
    logit_scale = 5.0
    logit_bias = None

    def encode_texts(self, texts):
        return np.array([AXES[text] for text in texts], np.float32)

    def count_tokens(self, texts):
        return [80 if text == "puppy" else 5 for text in texts]


@pytest.fixture
def dataset() -> Dataset:
    """Two cats, three dogs, a cow."""
    folders = ("big_cow", "cat", "dog")
    names = tuple(folder.replace("_", " ") for folder in folders)
    targets = np.array([1, 1, 2, 2, 2, 0], np.int64)
    return Dataset("zoo", names, tuple(f"/zoo/{n}.png" for n in range(6)), targets, folders)


@pytest.fixture
def vectors() -> np.ndarray:
    """A cat, a cat like a kitten, two dogs, one like a puppy, the cow."""
    names = ("cat", "kitten", "dog", "dog", "puppy", "big cow")
    return np.array([AXES[name] for name in names], np.float32)


def evaluated(dataset, vectors, **more):
    wordings = wordings_of(dataset, templates={"bare": ("{}",), "a": ("a {}",)}, **more)
    return evaluate_prompts(dataset, vectors, wordings, encoder=Words())


def test_each_wording_is_measured_and_the_best_compared_with_the_others(dataset, vectors):
    found = evaluated(dataset, vectors)
    bare, other = found.results
    assert (found.winner, bare.wording.name, bare.accuracy.value) == (0, "bare", 1.0)
    assert other.accuracy.value == pytest.approx(1 / 6)
    assert [one.value for one in other.recalls] == [1.0, 0.0, 0.0]
    assert other.confusion.tolist() == [[1, 0, 0], [0, 0, 2], [0, 3, 0]]
    assert other.mean_per_class_recall.value == pytest.approx(1 / 3)
    [comparison] = found.comparisons
    assert (comparison.other, comparison.paired.only_first, comparison.paired.only_second) == (1, 5, 0)
    assert comparison.p == comparison.paired.p == pytest.approx(1 / 32)
    assert comparison.is_sure


def test_p_is_corrected_for_all_pairs_of_wordings(dataset, vectors):
    templates = {"bare": ("{}",), "a": ("a {}",), "again": ("a {}",)}
    found = evaluate_prompts(dataset, vectors, wordings_of(dataset, templates=templates), encoder=Words())
    assert [one.p for one in found.comparisons] == pytest.approx([3 / 32, 3 / 32])
    assert not found.comparisons[0].is_sure


def test_the_worst_mistakes_are_the_frequent_confusions_the_surest_first(dataset, vectors):
    found = evaluated(dataset, vectors)
    dogs, cats = found.mistakes(found.results[1])
    assert (dogs.true, dogs.said, dogs.count) == (2, 1, 3)
    assert dogs.rows == (2, 3, 4)  # the one like a puppy is least sure
    assert (cats.true, cats.said, cats.rows) == (1, 2, (0, 1))
    assert found.mistakes(found.best) == []


def test_texts_beyond_what_the_model_reads_are_counted(dataset, vectors):
    names = {"young": (Label("big_cow", ("big cow",)), Label("cat", ("kitten",)), Label("dog", ("puppy",)))}
    wordings = wordings_of(dataset, templates={"bare": ("{}",)}, names=names)
    [found] = evaluate_prompts(dataset, vectors, wordings, encoder=Words()).results
    assert (found.wording.name, found.truncated_tokens) == ("young · bare", 3)


def test_an_added_label_takes_photos_from_the_others(dataset, vectors):
    found = evaluated(dataset, vectors)
    change = adding(found.best.wording, "kitten")
    [one] = evaluate_changes(dataset, vectors, found.best, [change], encoder=Words())
    assert one.confusion.tolist() == [[1, 0, 0, 0], [0, 1, 0, 1], [0, 0, 3, 0]]
    assert one.moved.tolist() == [1]
    assert (one.paired.only_first, one.paired.only_second) == (0, 1)
    assert one.counted.all()


def test_photos_of_a_class_that_is_gone_have_no_right_answer(dataset, vectors):
    found = evaluated(dataset, vectors)
    [one] = evaluate_changes(
        dataset, vectors, found.best, [dropping(found.best.wording, "big_cow")], encoder=Words()
    )
    assert one.counted.tolist() == [True] * 5 + [False]
    assert one.paired.difference.value == 0
    assert one.confusion[1:].tolist() == [[2, 0], [0, 3]]


def test_photos_of_a_split_class_are_right_as_any_of_its_parts(dataset, vectors):
    found = evaluated(dataset, vectors)
    change = splitting(found.best.wording, "dog", ["kitten", "puppy"])
    assert change.owners == (0, 1, 2, 2)
    [one] = evaluate_changes(dataset, vectors, found.best, [change], encoder=Words())
    assert one.right_after.tolist() == [True, False, True, True, True, True]  # the kitten is a dog now
    assert one.moved.tolist() == [1]


@pytest.mark.parametrize(
    "change",
    [
        lambda wording: adding(wording, "cat"),
        lambda wording: dropping(wording, "cow"),
        lambda wording: splitting(wording, "cow", ["a", "b"]),
    ],
)
def test_a_change_of_what_is_not_there_is_refused(dataset, change):
    [wording] = wordings_of(dataset, templates={"bare": ("{}",)})
    with pytest.raises(UsageError):
        change(wording)


def test_a_label_added_to_sentences_brings_its_own(dataset):
    captions = {"told": {"big_cow": ("big cow",), "cat": ("cat", "kitten"), "dog": ("dog",)}}
    [wording] = wordings_of(dataset, templates={}, captions=captions)
    changed = adding(wording, "young dog", ["puppy"]).label_set
    assert [changed.sentences(label) for label in changed.labels] == [
        ["big cow"],
        ["cat", "kitten"],
        ["dog"],
        ["puppy"],
    ]


def test_captions_stand_in_the_order_of_classes_or_beside_their_names(dataset, tmp_path):
    file = tmp_path / "captions.txt"
    file.write_text("# three\nmoo\nmiaow\n\nwoof\n", encoding="utf-8")
    assert read_captions(str(file), dataset) == {"big_cow": ("moo",), "cat": ("miaow",), "dog": ("woof",)}
    file.write_text("dog\twoof\ncat\tmiaow\nbig cow\tmoo\ndog\tgrr\n", encoding="utf-8")
    assert read_captions(str(file), dataset)["dog"] == ("woof", "grr")


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("moo\nmiaow\n", "2 lines for 3 classes"),
        ("dog\twoof\ncat\tmiaow\n", "big_cow"),
        ("dog\twoof\ncat\tmiaow\ncow\tmoo\nbig_cow\tmoo\n", "cow is no class"),
        ("dog\twoof\nmiaow\n", "not FOLDER, a tab"),
    ],
)
def test_captions_that_do_not_fit_the_classes_are_refused(dataset, tmp_path, text, told):
    (tmp_path / "captions.txt").write_text(text, encoding="utf-8")
    with pytest.raises(UsageError, match=told):
        read_captions(str(tmp_path / "captions.txt"), dataset)


@pytest.mark.parametrize(
    "text",
    [
        "dog\tpuppy | hound\nbig_cow\tox\ncat\tkitten\n",
        "ox\nkitten\npuppy | hound\n",
    ],
)
def test_names_stand_beside_the_folders_or_in_their_order(dataset, tmp_path, text):
    (tmp_path / "names.txt").write_text(text, encoding="utf-8")
    found = read_names(str(tmp_path / "names.txt"), dataset)
    assert [label.name for label in found] == ["big_cow", "cat", "dog"]
    assert [label.words for label in found] == [("ox",), ("kitten",), ("puppy", "hound")]


def test_labels_named_as_the_folders_are_matched_whatever_their_order(dataset, tmp_path):
    (tmp_path / "names.txt").write_text("Dog | hound\ncat\nbig cow\n", encoding="utf-8")
    found = read_names(str(tmp_path / "names.txt"), dataset)
    assert [label.words for label in found] == [("big cow",), ("cat",), ("Dog", "hound")]


def test_published_names_keep_their_order_and_those_that_stand_there_twice(dataset, tmp_path):
    (tmp_path / "names.json").write_text('{"zoo": ["crane", "crane", "dog"]}', encoding="utf-8")
    found = read_names(str(tmp_path / "names.json"), dataset)
    assert [(label.name, *label.words) for label in found] == [
        ("big_cow", "crane"),
        ("cat", "crane"),
        ("dog", "dog"),
    ]


@pytest.mark.parametrize("told", ["templates", "captions", "spoken"])
def test_a_saved_wording_has_the_same_sentences(dataset, tmp_path, told):
    captions = {"big_cow": ("big cow",), "cat": ("cat", "kitten"), "dog": ("dog",)}
    wordings = wordings_of(dataset, templates={"a": ("a {}", "{}")}, captions={"told": captions})
    label_set = {
        "templates": LabelSet.of(["cat", "dog"], ["a {}", "the {}"]),
        "captions": wordings[1].label_set,
        "spoken": wordings[0].label_set,
    }[told]
    file = tmp_path / "saved.json"
    file.write_text(json.dumps(saved(label_set)), encoding="utf-8")
    labels, templates = load_labels(f"{file}#labels"), load_templates(f"{file}#templates")
    again = (
        LabelSet.described(labels, templates) if isinstance(templates, dict) else LabelSet.of(labels, templates)
    )
    assert isinstance(templates, dict) == (told != "templates")
    assert again.names == label_set.names
    assert [again.sentences(one) for one in again.labels] == [label_set.sentences(one) for one in label_set.labels]


@pytest.fixture
def roses() -> Dataset:
    """Folders that differ in case alone, and one whose name begins as a comment does."""
    folders = ("#tulips", "Rose", "rose")
    return Dataset("roses", folders, ("/1.png", "/2.png", "/3.png"), np.arange(3), folders)


def test_lines_in_order_are_of_the_classes_in_their_order(roses, tmp_path):
    file = tmp_path / "said.txt"
    file.write_text("tulips\nbig\nsmall\n")
    assert read_captions(str(file), roses) == {"#tulips": ("tulips",), "Rose": ("big",), "rose": ("small",)}
    assert [label.words for label in read_names(str(file), roses)] == [("tulips",), ("big",), ("small",)]


def test_a_name_is_that_of_the_folder_called_just_so(roses, tmp_path):
    file = tmp_path / "said.txt"
    file.write_text("# a comment\nrose\tsmall\n#tulips\ttulips\nRose\tbig\n")
    assert read_captions(str(file), roses) == {"#tulips": ("tulips",), "Rose": ("big",), "rose": ("small",)}
    assert [label.words for label in read_names(str(file), roses)] == [("tulips",), ("big",), ("small",)]
    file.write_text("ROSE\tbig\n")
    with pytest.raises(UsageError, match="ROSE may be any of Rose, rose"):
        read_names(str(file), roses)


def test_classes_that_are_not_named_keep_their_names(dataset, tmp_path):
    (tmp_path / "names.txt").write_text("# one\ncat\tkitten | kitty, pussy\n")
    found = read_names(str(tmp_path / "names.txt"), dataset)
    assert [called(label) for label in found] == ["big cow", "kitten | kitty, pussy", "dog"]


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (b"cat\ta\ncat\tb\n", "names cat twice"),
        (b"cow\ta\n", "cow is no class of zoo"),
        (b"a\nb\n", "2 labels for 3 classes"),
        (b"cat\tcaf\xe9\n", "not in UTF-8"),
        (b"cat\ta\tb\n", "not FOLDER, a tab"),
    ],
)
def test_names_that_do_not_fit_the_classes_are_refused(dataset, tmp_path, text, told):
    (tmp_path / "names.txt").write_bytes(text)
    with pytest.raises(UsageError, match=told):
        read_names(str(tmp_path / "names.txt"), dataset)


def test_a_file_of_names_that_is_not_there_is_told(dataset, tmp_path):
    for read in (read_names, read_captions):
        with pytest.raises(UsageError, match="can't read"):
            read(str(tmp_path / "none.txt"), dataset)


def test_a_wording_of_all_folders_serves_those_with_photos(dataset):
    captions = {"big_cow": ("big cow",), "cat": ("cat", "kitten"), "dog": ("dog",)}
    for wording in wordings_of(dataset, templates={"a": ("a {}",)}, captions={"told": captions}):
        few = wording.only(("dog", "cat")).label_set
        assert few.names == ("dog", "cat")
        all_of = wording.label_set
        assert few.sentences(few.labels[1]) == all_of.sentences(all_of.labels[1])
