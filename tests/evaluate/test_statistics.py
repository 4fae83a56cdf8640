"""Intervals and tests against scipy's and against answers that can be computed by hand."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from search.evaluate.statistics import (
    Interval,
    bootstrap,
    crossed,
    holm,
    mcnemar,
    paired,
    photos_needed,
    share,
)


@pytest.fixture
def random() -> np.random.Generator:
    return np.random.default_rng(5)


@pytest.mark.parametrize("right", [3, 50, 180])
def test_a_bootstrap_of_a_share_has_the_binomial_quantiles(right):
    correct = np.arange(200) < right
    found = bootstrap(correct)
    binomial = stats.binom(200, right / 200)
    assert found.value == right / 200
    assert found.low == pytest.approx(binomial.ppf(0.025) / 200, abs=0.006)  # a photo is 0.005
    assert found.high == pytest.approx(binomial.ppf(0.975) / 200, abs=0.006)


def test_a_bootstrap_of_many_values_agrees_with_scipy(random):
    values = random.gamma(2, size=300)
    found = bootstrap(values)
    other = stats.bootstrap((values,), np.mean, n_resamples=10_000, method="percentile", rng=1).confidence_interval
    assert (found.low, found.high) == (pytest.approx(other.low, abs=0.01), pytest.approx(other.high, abs=0.01))


def test_few_and_many_different_values_are_resampled_alike(random):
    """Whole numbers are drawn by how often each occurs, the same with a little noise row by row."""
    values = random.integers(0, 5, 400).astype(float)
    few, many = bootstrap(values), bootstrap(values + random.normal(scale=1e-6, size=400))
    assert (few.low, few.high) == (pytest.approx(many.low, abs=0.01), pytest.approx(many.high, abs=0.01))


def test_strata_are_resampled_within_themselves():
    """What differs between groups alone is certain once each group is drawn by itself."""
    groups = np.repeat([0, 1], [30, 10])
    assert bootstrap(groups, strata=groups) == Interval(0.25, 0.25, 0.25)
    assert bootstrap(groups, strata=groups, equally=True) == Interval(0.5, 0.5, 0.5)
    assert bootstrap(groups).low < 0.2


def test_the_same_seed_gives_the_same_interval(random):
    values = random.normal(size=100)
    assert bootstrap(values, seed=3) == bootstrap(values, seed=3)
    assert bootstrap(values, seed=3) != bootstrap(values, seed=4)


def test_all_right_or_all_wrong_is_no_certainty():
    exact = stats.binomtest(40, 40).proportion_ci(0.95, method="exact")
    whole = share(np.ones(40, bool))
    assert (whole.low, whole.high) == (pytest.approx(exact.low), 1.0)
    none = share(np.zeros(40, bool))
    assert (none.low, none.high) == (0.0, pytest.approx(1 - exact.low))


def test_other_trainings_widen_an_interval(random):
    photos = random.random((1, 400)) < 0.7
    alike, unlike = (
        np.repeat(photos, 5, axis=0),
        photos ^ (random.random((5, 400)) < [[0], [0.1], [0.2], [0.3], [0.4]]),
    )
    one, plain, wide = crossed(photos), bootstrap(photos[0]), crossed(unlike)
    assert (one.low, one.high) == (pytest.approx(plain.low, abs=0.006), pytest.approx(plain.high, abs=0.006))
    assert crossed(alike).high - crossed(alike).low == pytest.approx(one.high - one.low, abs=0.006)
    assert wide.high - wide.low > 1.3 * (one.high - one.low)


@pytest.mark.parametrize(("first", "second"), [(0, 0), (1, 0), (7, 2), (12, 12), (40, 71)])
def test_mcnemars_mid_p_is_the_exact_one_less_half_of_the_observed_point(first, second):
    total = first + second
    exact = stats.binomtest(first, total).pvalue if total else 1.0
    points = 1 if first == second else 0.5  # in the middle the point is counted once, not on both sides
    expected = exact - (0 if first == second else points * 2 * stats.binom.pmf(first, total, 0.5))
    assert mcnemar(first, second) == pytest.approx(expected)
    assert mcnemar(first, second) == mcnemar(second, first)


def test_mcnemar_of_many_photos_is_finite():
    assert 0 < mcnemar(3000, 3300) < 0.001


def test_holms_correction_of_known_values():
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([0.5, 0.9]) == [1.0, 1.0]
    assert holm([]) == []


def test_the_photos_needed_find_the_difference_four_times_in_five(random):
    needed = photos_needed(30, 20, photos=200)
    assert needed
    drawn = random.multinomial(needed, [0.15, 0.1, 0.75], size=1000)
    found = np.mean([mcnemar(int(a), int(b)) < 0.05 for a, b, _ in drawn])
    assert found == pytest.approx(0.8, abs=0.05)
    assert photos_needed(5, 5, photos=200) is None


def test_two_ways_on_the_same_photos_are_compared_photo_by_photo():
    first, second = np.array([1, 1, 1, 0, 0], bool), np.array([0, 0, 1, 1, 0], bool)
    found = paired(first, second)
    assert (found.only_first, found.only_second) == (2, 1)
    assert found.difference.value == pytest.approx(0.2)
    assert found.p == mcnemar(2, 1)
    assert not found.difference.excludes(0)
