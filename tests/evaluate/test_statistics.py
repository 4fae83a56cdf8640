"""Intervals and tests against scipy's and against answers that can be computed by hand."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from scipy import stats

from search.evaluate.statistics import (
    apart,
    crossed,
    holm,
    mcnemar,
    mean_share,
    paired,
    photos_needed,
    share,
    wilson,
)


@pytest.fixture
def random() -> np.random.Generator:
    return np.random.default_rng(5)


@pytest.mark.parametrize("right", [0, 3, 50, 199, 200])
def test_a_share_has_wilsons_bounds(right):
    found = share(np.arange(200) < right)
    other = stats.binomtest(right, 200).proportion_ci(0.95, method="wilson")
    assert found.value == right / 200
    assert (found.low, found.high) == (pytest.approx(other.low), pytest.approx(other.high))


def test_more_right_answers_never_lower_a_bound():
    bounds = [wilson(right / 20, 20) for right in range(21)]
    assert all(a.low < b.low and a.high < b.high for a, b in pairwise(bounds))


@pytest.mark.parametrize("photos", [1, 2, 5, 20])
@pytest.mark.parametrize("recalls", [[0.5], [0.95], [0.2, 0.6, 1.0]])
def test_a_mean_over_classes_lies_in_its_bounds_however_few_photos_a_class_has(random, photos, recalls):
    true = np.resize(recalls, 30)
    classes = np.repeat(np.arange(30), photos)
    found = [mean_share(random.random(len(classes)) < true[classes], classes) for _ in range(300)]
    covered = np.mean([one.low <= true.mean() <= one.high for one in found])
    assert covered > 0.89
    if photos == 20:  # and they are no wider than need be
        exact = 2 * 1.96 * np.sqrt((true * (1 - true)).mean() / len(classes))
        assert np.mean([one.high - one.low for one in found]) == pytest.approx(exact, rel=0.2)


def test_one_photo_a_class_is_as_sure_as_so_many_photos():
    right = np.arange(40) < 40
    assert mean_share(right, np.arange(40)).low == pytest.approx(share(right).low)


def test_a_mean_over_one_class_is_its_share(random):
    right = random.random(100) < 0.7
    one, plain = mean_share(right, np.zeros(100, np.int64)), share(right)
    assert (one.low, one.value, one.high) == pytest.approx((plain.low, plain.value, plain.high))


def test_other_trainings_widen_an_interval(random):
    photos = random.random((1, 400)) < 0.7
    alike, unlike = (
        np.repeat(photos, 5, axis=0),
        photos ^ (random.random((5, 400)) < [[0], [0.1], [0.2], [0.3], [0.4]]),
    )
    one, plain, wide = crossed(photos), share(photos[0]), crossed(unlike)
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
    assert found.difference.low < 0 < found.difference.high


def test_the_interval_of_a_paired_difference_is_newcombes():
    """An example of his paper (doi:10.1002/(SICI)1097-0258(19981130)17:22<2635::AID-SIM954>3.0.CO;2-C), method 10."""
    first = np.repeat([True, True, False, False], [36, 12, 2, 0])
    second = np.repeat([True, False, True, False], [36, 12, 2, 0])
    found = paired(first, second).difference
    assert (found.low, found.value, found.high) == pytest.approx((0.0569, 0.2, 0.3404), abs=2e-4)


def test_two_ways_that_agree_on_all_photos_may_still_differ():
    right = np.arange(40) < 30
    found = paired(right, right).difference
    assert -0.1 < found.low < 0 < found.high < 0.1
    assert paired(np.ones(8, bool), np.ones(8, bool)).difference.low < -0.2


def test_shares_of_different_photos_are_further_from_each_other_than_of_the_same(random):
    right = random.random(100) < 0.7
    other = right ^ (random.random(100) < 0.1)
    same, unlike = paired(right, other).difference, apart(share(right), share(other))
    assert same.value == pytest.approx(unlike.value)
    assert same.high - same.low < 0.7 * (unlike.high - unlike.low)
