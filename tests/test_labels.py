from __future__ import annotations

import json
from dataclasses import dataclass, replace

import numpy as np
import pytest

from search import LabelOptions, LabelSet
from search.errors import UsageError
from search.labels import (
    NONE_OF_THESE,
    Classifier,
    Label,
    label_photos,
    load_labels,
    load_templates,
    sigmoid,
)
from search.relevance import Bank
from search.types import LabelScore


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
    logits = [0.35 * 10 * (score - 0.2) - 3.2 for score in (0.8, 0.6, 0.0)]
    np.testing.assert_allclose(alone.log_odds(PHOTO), [logits], atol=1e-6)  # fp32
    assert [label.probability for label in labels] == pytest.approx(
        [1 / (1 + np.exp(-x)) for x in logits], abs=1e-6
    )


def test_k_and_threshold_limit_the_list():
    assert [x.label for x in classifier(LabelOptions(k=1)).label(PHOTO)[0]] == ["x"]
    assert [x.label for x in classifier(LabelOptions(threshold=0.5)).label(PHOTO)[0]] == ["x"]
    assert classifier(LabelOptions(threshold=0.99)).label(PHOTO) == [()]


PHOTOS = np.array([[0.8, 0.6, 0.0], [0.0, 0.6, 0.8], [0.6, 0.0, -0.8]], np.float32)


def built(labels, options, *, heads=None, encoder=None) -> Classifier:
    """x, y and z lie on the axes; the bank in the middle of nothing."""

    class Axes:
        fingerprint, context_length, logit_scale, logit_bias = "axes", 77, 10.0, None

        def encode_texts(self, texts):
            return np.stack([np.eye(3, dtype=np.float32)["xyz".index(text)] for text in texts])

        def count_tokens(self, texts):
            return [3] * len(texts)

    bank = Bank(np.zeros(3), np.eye(3), np.zeros(3), 0.0)
    return Classifier.build(
        LabelSet.of(labels, ["{}"]), encoder or Axes(), options, bank=lambda: bank, heads=heads
    )


def listed(classifier: Classifier) -> list[str]:
    return ["".join(label.label[-1] for label in labels) for labels in classifier.label(PHOTOS)]


@pytest.mark.parametrize("multi", [False, True])
def test_thresholds_of_labels_take_the_place_of_the_one_for_all(multi):
    likely = [
        {x.label: x.probability for x in labels} for labels in built("xyz", LabelOptions(multi)).label(PHOTOS)
    ]
    least = {"x": 0.3, "z": 0.9}
    labels = [Label(name, (name,), least.get(name)) for name in "xyz"]
    wanted = [
        [
            name
            for name in sorted(found, key=found.__getitem__, reverse=True)
            if found[name] >= least.get(name, 0.05)
        ]
        for found in likely
    ]
    assert listed(built(labels, LabelOptions(multi, threshold=0.05))) == ["".join(names) for names in wanted]
    assert listed(built(labels, LabelOptions(multi, threshold=0.05, k=1))) == ["".join(n[:1]) for n in wanted]
    assert len({tuple(names) for names in wanted}) > 1


def test_log_odds_are_those_of_labels_decided_one_by_one_whatever_the_options():
    alone = built("xyz", LabelOptions(multi=True, none_of_these=True))
    odds = alone.log_odds(PHOTOS)
    np.testing.assert_allclose(odds, 3.5 * PHOTOS - 3.2, atol=1e-5)  # fp32
    np.testing.assert_array_equal(built("xyz", LabelOptions()).log_odds(PHOTOS), odds)
    every = built("xyz", LabelOptions(multi=True)).label(PHOTOS)
    for row, labels in zip(sigmoid(odds), every, strict=True):
        assert {x.label: x.probability for x in labels} == pytest.approx(dict(zip("xyz", row, strict=True)))


def test_none_of_these_one_by_one_is_listed_where_no_label_is():
    options = LabelOptions(multi=True, threshold=0.35, none_of_these=True)
    found = built("xyz", options).label(PHOTOS * np.float32([[1], [1], [0.5]]))
    assert [[x.label for x in labels] for labels in found] == [["x"], ["z"], [NONE_OF_THESE]]
    assert found[2][0].probability == pytest.approx(1 - sigmoid(np.float64(3.5 * 0.3 - 3.2)))


def test_none_of_these_stands_a_step_above_unrelated_prompts():
    labels = built("xyz", LabelOptions(none_of_these=True)).label(np.float32([[0.26, 0, 0], [0.24, 0, 0]]))
    assert [found[0].label for found in labels] == ["x", NONE_OF_THESE]
    assert sum(x.probability for x in labels[0]) == pytest.approx(1)


@pytest.mark.parametrize(
    ("options", "worth"),
    [
        (LabelOptions(), ["x"]),
        (LabelOptions(multi=True), ["x", "y"]),
        (LabelOptions(k=3), ["x", "y"]),
    ],
)
def test_what_is_written_is_the_best_label_or_all_that_were_asked_for_but_none_of_these(options, worth):
    listed = tuple(LabelScore(name, 0.3, 0.4) for name in ("x", NONE_OF_THESE, "y"))
    assert [one.label for one in options.to_apply(listed)] == worth
    assert options.to_apply(listed[1:]) == (() if worth == ["x"] else listed[2:])
    assert options.to_apply(()) == ()


@dataclass(frozen=True)
class Learnt:
    """A head that knows the third axis."""

    threshold: float | None
    level = 1.0

    def correction(self, vectors):
        return 4 * vectors[:, 2] + 1


@pytest.mark.parametrize("multi", [False, True])
def test_what_was_learnt_of_how_common_a_label_is_counts_against_untaught_ones_no_more_than_before(multi):
    every = built("xyz", LabelOptions(multi), heads=dict.fromkeys("xyz", Learnt(None)))
    one = built("xyz", LabelOptions(multi), heads={"y": Learnt(None)})
    difference = every._logits(PHOTOS, PHOTOS)[:, 1] - one._logits(PHOTOS, PHOTOS)[:, 1]
    np.testing.assert_allclose(difference, 0 if multi else 1, atol=1e-5)  # fp32


@pytest.mark.parametrize("multi", [False, True])
def test_what_was_learnt_of_a_label_is_added_to_it_alone(multi):
    plain, learnt = (built("xyz", LabelOptions(multi), heads=heads) for heads in (None, {"y": Learnt(None)}))
    difference = learnt._logits(PHOTOS, PHOTOS) - plain._logits(PHOTOS, PHOTOS)
    np.testing.assert_allclose(difference[:, 1], 4 * PHOTOS[:, 2] + multi, atol=1e-5)  # fp32
    assert not difference[:, [0, 2]].any()
    odds = learnt.log_odds(PHOTOS) - plain.log_odds(PHOTOS)
    np.testing.assert_allclose(odds[:, 1], 4 * PHOTOS[:, 2] + 1, atol=1e-5)


def test_a_learnt_threshold_counts_one_by_one_and_the_users_more():
    options = LabelOptions(multi=True, otherwise=0.2)
    assert listed(built("xyz", options, heads={"x": Learnt(None)})) == ["xy", "xzy", ""]
    assert listed(built("xyz", options, heads={"x": Learnt(0.9)})) == ["y", "zy", ""]
    said = LabelOptions(multi=True, threshold=0.2)
    assert listed(built("xyz", said, heads={"x": Learnt(0.9)})) == ["xy", "xzy", ""]
    given = [Label("x", ("x",), 0.2), "y", "z"]
    assert listed(built(given, options, heads={"x": Learnt(0.9)})) == ["xy", "xzy", ""]
    assert listed(built("xyz", LabelOptions(threshold=0.2), heads={"x": Learnt(1.0)}))[0][0] == "x"


def test_a_labels_share_goes_to_all_above_it():
    labels = [Label.parse(name) for name in ("a/b/x", "a/y", "z")]
    found = built(labels, LabelOptions()).classify(PHOTOS)
    for best, above in found:
        likely = {x.label: x.probability for x in best}
        shares = {share.label: share.probability for share in above}
        assert shares == pytest.approx({"a": likely["a/b/x"] + likely["a/y"], "a/b": likely["a/b/x"]}, abs=1e-6)
        assert [share.probability for share in above] == sorted(shares.values(), reverse=True)
    assert built("xyz", LabelOptions()).classify(PHOTOS)[0][1] == ()
    assert built(labels, LabelOptions(multi=True)).classify(PHOTOS)[0][1] == ()


def test_a_label_that_others_stand_below_is_part_of_its_own_share():
    labels = [Label.parse("x"), Label.parse("x/y"), Label.parse("z")]
    [(best, [share]), *_] = built(labels, LabelOptions()).classify(PHOTOS)
    assert share.label == "x"
    assert share.probability == pytest.approx(sum(x.probability for x in best if x.label != "z"), abs=1e-6)


def test_a_photo_of_a_cat_is_likelier_a_cat_than_not_so_a_rocket(builtin, photographs):
    paths = [str(photographs[name]) for name in ("cat", "rocket")]
    classifier = Classifier.build(LabelSet.of(["cat", "rocket"]), builtin, LabelOptions(multi=True))
    labelled, _ = label_photos(paths, classifier, encoder=builtin)
    cat, rocket = ({x.label: x.probability for x in photo.labels} for photo in labelled)
    assert cat["cat"] > 3 * cat["rocket"]
    assert rocket["rocket"] > 3 * rocket["cat"]
    assert all(0 < found < 0.9 for found in (*cat.values(), *rocket.values()))


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
