from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

from search import LabelOptions, LabelSet
from search.errors import UsageError
from search.labels import NONE_OF_THESE, Classifier, Label, load_labels, load_templates, sigmoid


def test_a_line_holds_parents_name_and_synonyms():
    assert Label.parse("animal/cat | kitty, feline") == Label("animal/cat", ("cat", "kitty", "feline"))
    assert Label.parse("cat") == Label("cat", ("cat",))


def test_sentences_are_every_word_in_every_template():
    labels = LabelSet.of([Label.parse("animal/cat | kitty")], ["a photo of a {}.", "a {c} close up"])
    assert labels.sentences(labels.labels[0]) == [
        "a photo of a cat.",
        "a cat close up",
        "a photo of a kitty.",
        "a kitty close up",
    ]


def test_the_default_template_is_clips():
    labels = LabelSet.of(["cat"])
    assert labels.sentences(labels.labels[0]) == ["a photo of a cat."]


@pytest.mark.parametrize("labels", [[], ["", "  "], ["a", "b", "a"]])
def test_no_labels_or_twice_the_same_are_refused(labels):
    with pytest.raises(UsageError):
        LabelSet.of(labels)


def test_weights_are_the_renormalised_mean_of_unit_prompts(builtin):
    labels = LabelSet.of([Label.parse("cat | kitty"), "dog"], ["a {}", "the {}"])
    prompts = builtin.encode_texts(["a cat", "the cat", "a kitty", "the kitty"])
    mean = prompts.mean(axis=0)
    weights = labels.weights(builtin)
    np.testing.assert_allclose(weights[0], mean / np.linalg.norm(mean), atol=1e-5)  # fp32, another batch
    np.testing.assert_allclose(np.linalg.norm(weights, axis=1), 1, atol=1e-6)


USUAL = np.array([[0.1, 0.2, 0.3]], np.float32)


def classifier(options: LabelOptions, *, bias: float | None = None) -> Classifier:
    return Classifier(("x", "y", "z"), np.eye(3, dtype=np.float32), lambda: USUAL, 10.0, bias, options)


PHOTO = np.array([[0.8, 0.6, 0.0]], np.float32)


def test_single_labels_are_a_softmax_of_scaled_cosines():
    [labels] = classifier(LabelOptions()).label(PHOTO)
    assert [label.label for label in labels] == ["x", "y", "z"]
    powers = np.exp([8.0, 6.0, 0.0])
    assert [label.probability for label in labels] == pytest.approx(powers / powers.sum())
    assert [label.score for label in labels] == pytest.approx([0.8, 0.6, 0.0])


def test_sigmoid_models_use_their_own_scale_and_bias():
    [labels] = classifier(LabelOptions(multi=True), bias=-7.0).label(PHOTO)
    assert [label.probability for label in labels] == pytest.approx([1 / (1 + np.exp(-x)) for x in (1, -1, -7)])


def test_softmax_models_hold_each_label_against_unrelated_prompts():
    alone = classifier(LabelOptions(multi=True))
    [labels] = alone.label(PHOTO)
    logits = [0.3 * 10 * (score - 0.2) - 2.2 for score in (0.8, 0.6, 0.0)]
    np.testing.assert_allclose(alone.log_odds(PHOTO), [logits], atol=1e-6)  # fp32
    assert [label.probability for label in labels] == pytest.approx(
        [1 / (1 + np.exp(-x)) for x in logits], abs=1e-6
    )


def test_k_and_threshold_limit_the_list():
    assert [x.label for x in classifier(LabelOptions(k=1)).label(PHOTO)[0]] == ["x"]
    assert [x.label for x in classifier(LabelOptions(threshold=0.5)).label(PHOTO)[0]] == ["x"]
    assert classifier(LabelOptions(threshold=0.99)).label(PHOTO) == [()]


def test_no_photos_give_no_labels():
    assert classifier(LabelOptions()).label(np.empty((0, 3), np.float32)) == []


def test_none_of_these_is_a_class_of_its_own(builtin):
    built = Classifier.build(LabelSet.of(["cat", "dog"]), builtin, LabelOptions(none_of_these=True))
    assert built.names == ("cat", "dog", NONE_OF_THESE)
    cat, nothing = built.weights[:1], -built.weights[:1]
    assert [labels[0].label for labels in built.label(np.concatenate([cat, nothing]))] == ["cat", NONE_OF_THESE]


def test_probabilities_survive_large_logits():
    huge = replace(classifier(LabelOptions()), logit_scale=1e6)
    assert [label.probability for label in huge.label(PHOTO)[0]] == [1.0, 0.0, 0.0]
    assert sigmoid(np.array([-1000.0, 0.0, 1000.0])).tolist() == [0.0, 0.5, 1.0]


def test_labels_are_read_from_lines(tmp_path):
    file = tmp_path / "labels.txt"
    file.write_text("\ufeff# animals\nanimal/cat | kitty\n\n dog \n", encoding="utf-8")
    assert load_labels(str(file)) == [Label("animal/cat", ("cat", "kitty")), Label("dog", ("dog",))]


def test_a_line_without_a_name_is_refused(tmp_path):
    file = tmp_path / "labels.txt"
    file.write_text("cat\n | kitty\n")
    with pytest.raises(UsageError, match="names no label"):
        load_labels(str(file))


def test_names_that_are_given_stand_as_they_are():
    name = "Ram C/V Cargo Van | Minivan, 2012"
    labels = LabelSet.of([name])
    assert labels.names == (name,)
    assert labels.sentences(labels.labels[0]) == [f"a photo of a {name}."]


def test_clip_benchmarks_files_are_read_unchanged(tmp_path):
    names, templates = tmp_path / "en_classnames.json", tmp_path / "templates.json"
    names.write_text(json.dumps({"pets": ["cat", "dog"], "cars": ["audi"]}))
    templates.write_text(json.dumps({"pets": ["a photo of a {c}."]}))
    assert [label.name for label in load_labels(f"{names}#pets")] == ["cat", "dog"]
    assert load_templates(str(templates)) == ["a photo of a {c}."]
    with pytest.raises(UsageError, match="#NAME"):
        load_labels(str(names))


def test_sentences_of_a_class_of_its_own_take_the_place_of_templates(tmp_path):
    file = tmp_path / "cupl.json"
    file.write_text(json.dumps({"pets": {"cat": ["A cat purrs."], "dog": ["A dog barks.", "A dog runs."]}}))
    prompts = load_templates(str(file))
    labels = LabelSet.described(["cat", "dog"], prompts)
    assert [labels.sentences(label) for label in labels.labels] == [
        ["A cat purrs."],
        ["A dog barks.", "A dog runs."],
    ]
    with pytest.raises(UsageError, match="bird"):
        LabelSet.described(["cat", "bird"], prompts)


@pytest.mark.parametrize("content", ['{"a": 5}', '{"a": {"cat": 5}}', '{"a": "a photo"}', '{"a": [1]}', "5", "{"])
def test_json_of_another_shape_is_refused(tmp_path, content):
    file = tmp_path / "x.json"
    file.write_text(content)
    with pytest.raises(UsageError):
        load_templates(str(file))
    with pytest.raises(UsageError):
        load_labels(str(file))


def test_a_plain_list_is_read(tmp_path):
    file = tmp_path / "x.json"
    file.write_text('["cat", "and/or"]')
    assert [label.name for label in load_labels(str(file))] == ["cat", "and/or"]


@pytest.mark.parametrize("threshold", [-0.1, 1.1, float("nan")])
def test_a_threshold_is_a_probability(threshold):
    with pytest.raises(UsageError):
        LabelOptions(threshold=threshold)


def test_a_missing_file_names_the_built_in_sets():
    with pytest.raises(UsageError, match="everyday"):
        load_labels("nothing")


def test_the_built_in_set_is_usable():
    labels = LabelSet.of(load_labels("everyday"))
    assert len(labels.labels) > 40
    assert "cat" in labels.names
