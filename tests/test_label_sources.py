from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from search import LabelOptions
from search.errors import UsageError
from search.labels import Label, LabelSet, built_in, label_set, load_classnames, load_labels, load_templates
from search.library.labelling import provenance

WORD = st.text(st.characters(exclude_characters="|,/#\n", exclude_categories=["C", "Z"]), min_size=1)
NAME = st.lists(WORD, min_size=1, max_size=4).map("/".join)
LEAST = st.none() | st.floats(0, 1)


@given(name=NAME, synonyms=st.lists(WORD, max_size=3, unique=True), least=LEAST)
def test_a_line_gives_back_what_was_written(name, synonyms, least):
    leaf = name.split("/")[-1]
    line = f" {name} | {', '.join(synonyms)} | {'' if least is None else repr(least)} "
    words = (leaf, *(word for word in synonyms if word != leaf))
    assert Label.parse(line) == Label(name, words, least)


@given(name=st.lists(WORD, min_size=2, max_size=4))
def test_parents_are_all_levels_above(name):
    assert Label.parse("/".join(name)).parents == tuple("/".join(name[:depth]) for depth in range(1, len(name)))


@pytest.mark.parametrize(
    "label",
    [
        Label.parse("cat"),
        Label.parse("cardboard box / carton"),
        Label("nearby apple/melon", ("nearby apple/melon",)),
    ],
)
def test_a_name_that_is_its_own_word_has_no_parents(label):
    assert label.parents == ()
    assert label.words == (label.name,)


@pytest.mark.parametrize("line", ["cat | | 1.5", "cat || nan", "cat | kitty | much", "animal/", " / ", "| kitty"])
def test_a_line_that_says_nothing_usable_is_refused(line):
    with pytest.raises(UsageError):
        Label.parse(line)


def test_thresholds_of_lines_and_of_the_call_meet_in_the_set(tmp_path):
    file = tmp_path / "pets.txt"
    file.write_text("cat | kitty | 0.7\ndog || 0.4\nbird\n")
    labels = label_set(str(file), thresholds={"dog": 0.5})
    assert labels.thresholds == {"cat": 0.7, "dog": 0.5}
    assert [len(label.words) for label in labels.labels] == [2, 1, 1]
    with pytest.raises(UsageError, match="none of the labels"):
        label_set(str(file), thresholds={"fish": 0.5})


@pytest.mark.parametrize("templates", [["a photo of a {label}."], ["{0}"], ["a photo.", "a picture."]])
def test_templates_that_no_label_would_fill_are_refused(templates):
    with pytest.raises(UsageError, match=r"write \{\}"):
        LabelSet.of(["cat"], templates)


def test_a_template_without_a_place_may_stand_among_others():
    assert LabelSet.of(["cat"], ["a photo.", "a {c}"]).templates == ("a photo.", "a {c}")


@pytest.mark.parametrize("content", ["", "# only a comment\n\n"])
def test_a_file_that_holds_nothing_is_refused(tmp_path, content):
    file = tmp_path / "none.txt"
    file.write_text(content)
    for load in (load_labels, load_templates):
        with pytest.raises(UsageError, match="holds no"):
            load(str(file))


def write(path, content) -> str:
    path.write_text(json.dumps(content), encoding="utf-8")
    return str(path)


def test_a_name_that_published_classes_share_is_one_label(tmp_path):
    file = write(tmp_path / "en_classnames.json", {"birds": ["crane", "jay", "crane ", ""]})
    assert [label.name for label in load_labels(file)] == ["crane", "jay"]
    assert load_classnames(file) == ["crane", "jay", "crane ", ""]


def test_names_with_the_numbers_of_their_classes_are_read(tmp_path):
    file = write(tmp_path / "babel.json", {"DE": [[3, 7], ["Katze", "Hund"]], "NL": [[3], ["kat"]]})
    assert load_classnames(f"{file}#DE") == ["Katze", "Hund"]
    assert load_classnames(f"{file}#NL") == ["kat"]


def test_sentences_per_class_bring_their_classes_along(tmp_path):
    file = write(tmp_path / "cupl.json", {"pets": {"cat": ["It purrs."], "dog": ["It barks.", "It runs."]}})
    labels = label_set(None, file)
    assert (labels.names, labels.name) == (("cat", "dog"), "cupl.json")
    assert label_set(None, file, names=["dog"]).prompts == {"dog": ("It barks.", "It runs.")}
    assert label_set(None, file, thresholds={"dog": 0.5}).thresholds == {"dog": 0.5}
    with pytest.raises(UsageError, match="no prompts for bird"):
        label_set(None, file, names=["bird"])
    with pytest.raises(UsageError, match="sentences of its own"):
        label_set(None, file, more_templates=["a {}"])


def test_a_class_without_sentences_is_refused(tmp_path):
    with pytest.raises(UsageError, match="no list of texts"):
        label_set(None, write(tmp_path / "x.json", {"pets": {"cat": []}}))


def test_provenance_names_where_labels_and_templates_came_from(tmp_path):
    file = write(tmp_path / "en.json", {"pets": ["cat"], "cars": ["audi"]})
    named = label_set(f"{file}#pets", "food", names=["dog"])
    assert (named.name, named.templates_name) == ("en.json#pets, given", "food")
    plain = LabelSet.of(["cat"])
    assert (plain.name, plain.templates_name) == ("given", "photo")
    assert label_set("everyday", more_templates=["a {}"]).templates_name == "given"


def test_provenance_tells_words_and_thresholds_that_names_do_not():
    labels = LabelSet.of([Label.parse("animal/cat | kitty"), Label.parse("animal/dog || 0.4"), "a/b"], ["a {}"])
    told = provenance(labels, LabelOptions(multi=True))
    assert (told["label_set"], told["templates"]) == ("given", "given")
    details = json.loads(json.dumps(told["details"]))
    assert details["labels"] == ["animal/cat", "animal/dog", "a/b"]
    assert details["words"] == {"animal/cat": ["cat", "kitty"], "a/b": ["a/b"]}
    assert details["thresholds"] == {"animal/dog": 0.4}
    assert details["options"]["multi"] is True
    assert set(provenance(LabelSet.of(["cat"]), LabelOptions())["details"]) == {"labels", "templates", "options"}


@pytest.mark.parametrize("name", built_in("labels"))
def test_built_in_labels_are_words_and_say_their_source(name):
    labels = label_set(name).labels
    assert len(labels) >= 50
    assert not [label for label in labels for word in label.words if "_" in word or word != word.strip()]
    assert _comment("labels", name)


@pytest.mark.parametrize("name", built_in("templates"))
def test_built_in_templates_have_one_place_and_say_their_source(name):
    templates = load_templates(name)
    assert [template.count("{}") for template in templates] == [1] * len(templates)
    assert len(set(templates)) == len(templates)
    assert _comment("templates", name)


def _comment(kind: str, name: str) -> bool:
    from search.resources import data_path

    return data_path(kind, f"{name}.txt").read_text(encoding="utf-8").startswith("# ")


def test_the_published_sets_have_their_published_sizes():
    sizes = {"imagenet1k": 998, "coco80": 80, "places365": 365}
    assert {name: len(load_labels(name)) for name in sizes} == sizes
    assert [len(load_templates(name)) for name in ("imagenet80", "imagenet7", "actions", "photo")] == [
        80,
        7,
        48,
        1,
    ]
    assert set(load_templates("imagenet7")) < set(load_templates("imagenet80"))
