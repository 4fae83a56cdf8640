"""Heads: what examples teach, what they promise, and that none is none."""

from __future__ import annotations

import numpy as np
import pytest

from search.heads import (
    HINT_WEIGHT,
    Cut,
    Examples,
    Head,
    Space,
    cut,
    fit,
    gain,
    held_out,
    train,
)
from search.measures import average_precision, sigmoid
from search.vectors import normalize

DIM = 24
NONE = np.empty(0)


def photos(count: int, seed: int) -> np.ndarray:
    """Unit rows in a cone, as CLIP's photos are."""
    random = np.random.default_rng(seed)
    return normalize((1.5 + random.standard_normal((count, DIM))).astype(np.float32))


def right(vectors: np.ndarray) -> np.ndarray:
    """What is true of photos: whether they lie on one side of the first two axes."""
    return vectors[:, 0] + vectors[:, 1] > np.median(vectors[:, 0] + vectors[:, 1])


@pytest.fixture(scope="module")
def taught() -> tuple[Examples, Space]:
    vectors = photos(120, seed=1)
    return Examples.of(vectors, right(vectors), np.zeros(120)), Space.of(photos(500, seed=2))


def test_no_examples_correct_nothing():
    vectors = photos(5, seed=3)
    none = Examples.of(np.empty((0, DIM), np.float32), np.empty(0, bool), np.empty(0))
    head = train("cat", none, Space.of(vectors))
    assert head.examples == 0
    assert not head.correction(vectors).any()


def test_a_head_orders_photos_that_it_has_not_seen(taught):
    examples, space = taught
    unseen = photos(300, seed=4)
    head = train("cat", examples, space)
    assert head.examples == 120
    assert average_precision(head.correction(unseen), right(unseen)) > 0.9


def test_the_solution_is_the_most_probable(taught):
    """At the maximum what examples pull, by their errors, is what the prior pulls back."""
    examples, space = taught
    features = space.features(examples.vectors)
    head = train("cat", examples, space)
    errors = examples.targets - sigmoid(examples.offsets + head.correction(examples.vectors))
    parameters = features.T @ errors
    assert np.allclose(features @ parameters, head.correction(examples.vectors), atol=0.02)  # L-BFGS stops before


def test_what_was_learnt_before_is_only_where_to_begin(taught):
    examples, space = taught
    half = Examples.of(examples.vectors[:60], examples.targets[:60], examples.offsets[:60])
    cold = train("cat", examples, space)
    warm = train("cat", examples, space, before=train("cat", half, space))
    assert np.allclose(warm.correction(examples.vectors), cold.correction(examples.vectors), atol=0.02)


def test_an_example_pulls_less_where_the_text_knew_it():
    vectors, space = photos(1, seed=5), Space.of(photos(100, seed=6))
    corrections = [
        train("cat", Examples.of(vectors, np.array([True]), np.array([offset])), space).correction(vectors)[0]
        for offset in (-2.0, 0.0, 4.0)
    ]
    assert corrections[0] > corrections[1] > corrections[2] > 0


def test_a_hint_pulls_less_than_a_verdict():
    vectors, space = photos(1, seed=7), Space.of(photos(100, seed=8))
    said = Examples.of(vectors, np.array([False]), np.zeros(1))
    hint = Examples(said.vectors, said.targets, said.offsets, np.array([False]))
    by_verdict, by_hint = (train("cat", given, space).correction(vectors)[0] for given in (said, hint))
    assert 1.5 * HINT_WEIGHT * by_verdict > by_hint > by_verdict  # both push down
    assert len(hint) == 0


def test_held_out_scores_are_of_heads_that_did_not_see_them():
    """Targets that are chance can't be told of photos held out, however well a head fits those it saw."""
    vectors = photos(40, seed=9)
    chance = np.arange(40) % 2 == 0
    examples, space = Examples.of(vectors, chance, np.zeros(40)), Space.of(vectors)
    seen = train("cat", examples, space).correction(vectors)
    assert average_precision(seen, chance) > 0.8
    assert average_precision(held_out(examples, space), chance) < 0.65


def test_the_gain_is_that_of_photos_held_out(taught):
    examples, space = taught
    found = gain("cat", examples, held_out(examples, space))
    assert (found.examples, found.accepted) == (120, int(examples.targets.sum()))
    assert found.after > 0.9 > found.before


def test_too_few_examples_have_no_gain():
    vectors = photos(12, seed=10)
    examples = Examples.of(vectors, np.arange(12) < 2, np.zeros(12))
    found = gain("cat", examples, held_out(examples, Space.of(vectors)))
    assert (found.before, found.after) == (None, None)


@pytest.mark.parametrize(("accepted", "rejected", "enough"), [(3, 3, True), (2, 9, False), (9, 2, False)])
def test_three_of_each_kind_tell_enough(accepted, rejected, enough):
    targets = np.arange(accepted + rejected) < accepted
    examples = Examples.of(photos(len(targets), seed=10), targets, np.zeros(len(targets)))
    assert examples.tell_enough is enough


def judged(odds, targets) -> Examples:
    vectors = photos(len(odds), seed=11)
    return Examples.of(vectors, np.array(targets, bool), np.array(odds, float))


def test_a_cut_is_the_lowest_where_a_label_is_right_as_often_as_asked_for():
    odds = np.arange(40, 0, -1) / 4.0
    examples = judged(odds, [True] * 20 + [False] * 20)
    found = cut(0.8, examples, odds=odds, library=NONE)
    assert isinstance(found, Cut)
    assert found.photos == 21  # of 20 right ones among 21 at least 0.812 are right by Wilson, among 22 0.759
    assert found.precision == pytest.approx(20 / 21)
    assert found.threshold == pytest.approx(sigmoid(4.875))


def test_few_right_ones_promise_nothing():
    """Eleven are the fewest for eight in ten, 25 for nine in ten."""
    odds = np.arange(40, 0, -1) / 2.0
    for precision, least in ((0.8, 11), (0.9, 25)):
        few, enough = (judged(odds, [True] * n + [False] * (40 - n)) for n in (least - 1, least))
        assert cut(precision, few, odds=odds, library=NONE) is None
        assert cut(precision, enough, odds=odds, library=NONE) is not None


def test_wrong_ones_where_the_librarys_photos_lie_weigh_more():
    """Two of the twenty likely are wrong; if they stand for most photos, the label is mostly wrong."""
    odds = np.arange(25, 0, -1) / 2.0
    targets = [True] * 9 + [False] * 2 + [True] * 9 + [False] * 5
    evenly = cut(0.65, judged(odds, targets), odds=odds, library=NONE)
    crowd = np.concatenate([np.full(200, odds[9]), np.full(200, odds[10])])
    crowded = cut(0.65, judged(odds, targets), odds=odds, library=crowd)
    assert evenly is not None and evenly.photos >= 20
    assert crowded is None or crowded.photos < 10


def test_a_cut_below_every_photo_judged_is_not_promised():
    odds = np.arange(20, 0, -1) / 2.0
    found = cut(0.8, judged(odds, [True] * 20), odds=odds, library=np.full(1000, -5.0))
    assert found is not None and found.photos < 25


def test_average_precision_of_known_orders():
    assert average_precision(np.array([3.0, 2, 1]), np.array([True, False, True])) == pytest.approx(5 / 6)
    assert np.isnan(average_precision(np.array([1.0]), np.array([False])))


def test_a_library_of_one_picture_has_a_space():
    space = Space.of(np.repeat(photos(1, seed=12), 3, axis=0))
    assert np.isfinite(space.features(photos(2, seed=13))).all()
    assert isinstance(space.head("cat", np.zeros(DIM + 1), 0), Head)


def test_examples_of_one_kind_leave_the_mean_where_it_was():
    vectors, library = photos(30, seed=14), photos(500, seed=15)
    space = Space.of(library)
    for accepted in (True, False):
        head = train("cat", Examples.of(vectors, np.full(30, accepted), np.zeros(30)), space)
        assert abs(head.correction(library).mean()) < 1e-4
        assert head.level == 0


def test_one_of_the_other_kind_moves_the_mean_less_than_as_many_would(monkeypatch):
    vectors, space = photos(30, seed=14), Space.of(photos(500, seed=15))
    examples = Examples.of(vectors, np.arange(30) < 1, np.zeros(30))
    level = train("cat", examples, space).level
    monkeypatch.setattr(Examples, "balance", 1.0)
    assert 0.7 * train("cat", examples, space).level < level < 0


def test_photos_that_nobody_judged_hold_a_label_that_was_only_accepted():
    vectors, library = photos(30, seed=14), photos(500, seed=15)
    rest, space = (library, np.zeros(500)), Space.of(library)
    free = Examples.of(vectors, np.full(30, True), np.zeros(30))
    held = Examples(free.vectors, free.targets, free.offsets, free.judged, rest)
    moved = [np.abs(train("cat", given, space).correction(library)).mean() for given in (free, held)]
    assert moved[1] < 0.9 * moved[0]
    rejected = Examples(free.vectors, ~free.targets, free.offsets, free.judged, rest)
    plain = Examples.of(free.vectors, ~free.targets, free.offsets)
    assert np.allclose(*(train("cat", given, space).weights for given in (rejected, plain)))


def test_labels_fitted_together_are_those_of_a_logistic_regression_each():
    from sklearn.linear_model import LogisticRegression

    random = np.random.default_rng(0)
    vectors = random.normal(size=(80, 5)).astype(np.float32)
    targets = vectors @ random.normal(size=(5, 3)) + random.normal(size=(80, 3)) > 0.5
    space = Space.of(vectors)
    weights, biases = fit(vectors, targets, np.zeros((80, 3)), space, c=4.0)
    features = Space(space.centre, space.spread / 2).features(vectors)
    for place in range(3):
        probe = LogisticRegression(C=1.0, fit_intercept=False, tol=1e-8).fit(features, targets[:, place])
        expected = features @ probe.coef_[0]
        np.testing.assert_allclose(
            vectors @ weights[place] + biases[place], expected, atol=0.02
        )  # both stop early


def test_weakly_regularised_labels_are_those_of_newtons_method():
    random = np.random.default_rng(0)
    vectors = random.normal(size=(300, 100)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    targets = vectors @ random.normal(size=(100, 1)) * 1.5 + random.normal(size=(300, 1)) > 0.5
    space = Space.of(vectors)
    weights, biases = fit(vectors, targets, np.zeros((300, 1)), space, c=1e4)
    scaled = Space(space.centre, space.spread / 100)
    features, exact = scaled.features(vectors), scaled.parameters(Head("", weights[0], float(biases[0])))
    for _ in range(50):
        likely = sigmoid(features @ exact)
        slope = exact + features.T @ (likely - targets[:, 0])
        curve = np.eye(101) + (features.T * (likely * (1 - likely))) @ features
        exact -= np.linalg.solve(curve, slope)
    assert np.abs(slope).max() < 1e-6
    np.testing.assert_allclose(vectors @ weights[0] + biases[0], features @ exact, atol=0.05)  # of up to 190


def test_a_photo_that_counts_twice_is_as_good_as_two():
    random = np.random.default_rng(0)
    vectors = random.normal(size=(30, 4)).astype(np.float32)
    targets, offsets = random.random((30, 2)) > 0.5, random.normal(size=(30, 2))
    space, counts = Space.of(vectors), np.where(np.arange(30) < 10, 2.0, 1.0)
    twice = [np.concatenate([values, values[:10]]) for values in (vectors, targets, offsets)]
    for found, expected in zip(
        fit(vectors, targets, offsets, space, c=1.0, counts=counts), fit(*twice, space, c=1.0), strict=True
    ):
        np.testing.assert_allclose(found, expected, atol=1e-4)  # sums in another order


def test_of_the_strongest_regularisation_nothing_is_learnt_but_how_common_labels_are():
    random = np.random.default_rng(0)
    vectors = random.normal(size=(60, 5)).astype(np.float32)
    targets = vectors[:, :2] > 0.8
    weights, biases = fit(vectors, targets, np.zeros((60, 2)), Space.of(vectors), c=1e-6)
    np.testing.assert_allclose(weights, 0, atol=1e-3)
    np.testing.assert_allclose(1 / (1 + np.exp(-biases)), targets.mean(axis=0), atol=0.05)  # the prior of the bias
