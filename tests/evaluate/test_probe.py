"""Probes on clouds of points whose classes are known."""

from __future__ import annotations

import numpy as np
import pytest

from search.errors import UsageError
from search.evaluate import probe
from search.evaluate.probe import Examples, ProbeOptions, evaluate_probe
from search.vectors import normalize

CENTRES = normalize(np.random.default_rng(1).normal(size=(3, 16)).astype(np.float32))


def cloud(each: tuple[int, int, int], *, spread: float = 0.35, seed: int = 2) -> Examples:
    random = np.random.default_rng(seed)
    targets = np.repeat(np.arange(3), each).astype(np.int64)
    noise = random.normal(scale=spread, size=(len(targets), 16))
    return Examples(normalize((CENTRES[targets] + noise).astype(np.float32)), targets)


@pytest.fixture(scope="module")
def found() -> probe.ProbeEvaluation:
    """Words that name the second and third class the wrong way round."""
    return evaluate_probe(
        cloud((30, 60, 90)), CENTRES[[0, 2, 1]], options=ProbeOptions((1, 8, None), seeds=4, test_share=0.5)
    )


def test_every_class_is_split_by_the_same_share(found):
    assert (found.test, found.train + found.validation) == (90, 90)
    assert found.validation == 4 + 8 + 11  # a quarter of 15, 30 and 45
    assert [result.examples for result in found.results] == [3, 24, 90]


def test_probes_overtake_words_that_mislead(found):
    assert found.zero_shot.value < 0.5
    few, _, every = found.results
    assert (found.matching, found.overtaking) == (few, few)
    assert every.accuracy.value > 0.9
    assert every.accuracy.value >= few.accuracy.value
    assert every.against.value == pytest.approx(every.accuracy.value - found.zero_shot.value)


def test_each_seed_draws_other_examples_and_all_are_drawn_once(found):
    few, _, every = found.results
    assert [training.seed for training in few.trainings] == [0, 1, 2, 3]
    assert len({training.acc1 for training in few.trainings}) > 1
    assert len(every.trainings) == 1
    assert few.accuracy.value == pytest.approx(np.mean([training.acc1 for training in few.trainings]))


def test_the_same_again_gives_the_same_figures():
    options = ProbeOptions((2,), seeds=2)
    first, second = (evaluate_probe(cloud((10, 10, 10)), CENTRES, options=options) for _ in range(2))
    assert (first.zero_shot, first.zero_shot_recall) == (second.zero_shot, second.zero_shot_recall)
    for one, other in zip(first.results, second.results, strict=True):
        assert (one.accuracy, one.against) == (other.accuracy, other.against)


def test_where_words_know_everything_no_probe_is_better():
    found = evaluate_probe(cloud((12, 12, 12), spread=0.05), CENTRES, options=ProbeOptions((1, None), seeds=2))
    assert found.zero_shot.value == 1
    assert found.overtaking is None


def test_more_examples_than_a_class_has_are_left_out():
    found = evaluate_probe(cloud((8, 20, 20)), CENTRES, options=ProbeOptions((1, 16, None), seeds=1))
    assert [result.shots for result in found.results] == [1, None]


def test_photos_to_test_with_may_be_given():
    photos, test = cloud((6, 6, 6)), cloud((4, 5, 6), seed=9)
    found = evaluate_probe(photos, CENTRES, test=test, options=ProbeOptions((1,), seeds=1))
    assert found.test == 15
    assert found.train + found.validation == 18


def test_copies_stay_on_one_side():
    """Every photo stands three times; one is in two classes, and never tests."""
    one = cloud((6, 8, 10))
    contents = [str(number) for number in range(24)] * 3
    photos = Examples(np.tile(one.vectors, (3, 1)), np.tile(one.targets, 3), contents)
    photos.targets[48] = 2
    left, aside = probe.split(photos, 0.4, np.random.default_rng(0))
    assert not set(left.contents) & set(aside.contents)
    assert "0" in left.contents
    assert [sum(aside.targets == place) for place in range(3)] == [3 * 2, 3 * 3, 3 * 4]


def test_copies_are_one_photo():
    one = cloud((3, 3, 3))
    photos = Examples(one.vectors, one.targets, ["a", "a", "b", *"cdefgh"])
    with pytest.raises(UsageError, match="a class has 2 photos that are no copies"):
        evaluate_probe(photos, CENTRES)


def test_a_class_of_too_few_photos_is_refused():
    with pytest.raises(UsageError, match="a class has 2 photos"):
        evaluate_probe(cloud((2, 9, 9)), CENTRES)


def test_the_strength_is_sought_from_coarse_to_fine(monkeypatch):
    """A quality with its peak at 10^0.6 is found to an eighth of a decade, in fifteen trainings."""
    tried = []

    def scores(examples, vectors, c):
        tried.append(c)
        return np.float64([np.log10(c)])

    monkeypatch.setattr(probe, "log_probabilities", scores)
    monkeypatch.setattr(probe, "top_k_accuracy", lambda found, targets, k: -abs(float(found[0]) - 0.6))
    assert np.log10(probe._chosen(cloud((1, 1, 1)), cloud((1, 1, 1)))) == pytest.approx(0.625)
    assert sorted(np.log10(tried[:7])) == pytest.approx([-6, -4, -2, 0, 2, 4, 6])
    assert len(tried) == 15


def test_a_probe_is_the_minimum_of_its_loss():
    """The gradient of the regularised loss vanishes at the coefficients found."""
    examples = cloud((10, 10, 10))
    scores = np.exp(probe.log_probabilities(examples, examples.vectors, 3.0))
    residual = scores - np.eye(3)[examples.targets]
    from sklearn.linear_model import LogisticRegression

    coefficients = LogisticRegression(C=3.0, max_iter=1000).fit(examples.vectors, examples.targets).coef_
    gradient = coefficients + 3.0 * residual.T @ examples.vectors
    assert np.abs(gradient).max() < 0.01
    assert np.abs(coefficients).max() > 0.5
