"""Exact tests against enumeration and published values, intervals against formulas, tests and simulated images."""

import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from paired_outcomes import outcomes
from scipy import stats

from verydeep.reproduction.contrasts import Contrasts
from verydeep.statistics import (
    _mcnemar,
    _paired_interval,
    holm_by_family,
    t_interval,
    t_p_below,
    wilson_interval,
)

COUNT = st.integers(0, 80)


# McNemar's test


@settings(max_examples=200)
@given(b=COUNT, c=COUNT)
def test_the_p_value_enumerates_all_ways_the_differing_images_can_fall(b, c):
    n = b + c
    ways = [math.comb(n, k) for k in range(n + 1)]
    assert _mcnemar(b, c) == pytest.approx(float(Fraction(sum(w for w in ways if w <= ways[b]), 2**n)))
    one_sided = stats.binomtest(min(b, c), n, alternative="less").pvalue if n else 1
    assert _mcnemar(b, c) == pytest.approx(min(1, 2 * one_sided))
    assert _mcnemar(c, b) == pytest.approx(_mcnemar(b, c))


@pytest.mark.parametrize(
    ("b", "c", "p"),
    [
        # statsmodels, statsmodels/stats/tests/test_nonparametric.py, test_mcnemar_exact (from VassarStats)
        (121, 59, 0.000004),
        (70, 59, 0.378688),
        (80, 59, 0.089452),
        (30, 60, 0.002060),
        (10, 30, 0.002221),
        (10, 10, 1.0),
        # Cavo et al. 2012 in Fagerland, Lydersen and Laake, Statistical Analysis of Contingency Tables, chapter 8;
        # their R package contingencytables, R/datasets.R and tests/testthat/test-ch8.R
        (6, 16, 0.052479),
    ],
)
def test_published_p_values(b, c, p):
    assert _mcnemar(b, c) == pytest.approx(p, abs=6e-7)


def test_nothing_that_differs_is_no_evidence():
    assert _mcnemar(0, 0) == 1


# intervals


@settings(max_examples=40)
@given(b=COUNT, c=COUNT, others=st.integers(0, 300))
def test_the_interval_is_that_of_images_one_by_one(b, c, others):
    """Of one mean of 1, -1 and 0 for each image, whose squares have two more in their sum."""
    n = b + c + others
    if n < 2:
        return
    images = 100 * np.array([1.0] * b + [-1.0] * c + [0.0] * others)
    variance = images.var(ddof=1) + 2 * 100**2 / (n - 1)
    low, high = stats.t(n - 1, loc=images.mean(), scale=(variance / n) ** 0.5).interval(0.95)
    assert _paired_interval(b, c, n) == pytest.approx((max(-100, low), min(100, high)))


@pytest.mark.parametrize("n", [1, 2, 3])
def test_hardly_any_images_say_hardly_anything(n):
    low, high = _paired_interval(n, 0, n)
    assert low <= 0
    assert high == 100


@pytest.mark.parametrize("n", [20, 50, 359, 4000])
def test_the_interval_does_not_contradict_the_exact_test(n):
    """It leaves 0 out wherever the test has p up to 5%, and nowhere else but for p up to 6.6%."""
    for differing in range(min(n, 120) + 1):
        for c in range(differing // 2 + 1):
            p, low = _mcnemar(differing - c, c), _paired_interval(differing - c, c, n)[0]
            assert low > 0 or p > 0.05, (differing - c, c)
            assert low <= 0 or p < 0.066, (differing - c, c)


@pytest.mark.parametrize(("n", "first", "second"), [(20, 0.1, 0.1), (100, 0.02, 0.001), (300, 0.12, 0.07)])
def test_the_interval_holds_the_true_difference_95_times_of_100_or_more(n, first, second):
    """4,000 data sets: 3,800 are expected at least, with a standard deviation of 14."""
    counts = np.random.default_rng(2).multinomial(n, [first, second, 1 - first - second], size=4000).tolist()
    ends = np.array([_paired_interval(b, c, n) for b, c, _ in counts])
    held = (ends[:, 0] <= 100 * (first - second)) & (100 * (first - second) <= ends[:, 1])
    assert held.sum() >= 3800 - 3 * 14


def test_the_interval_of_many_images_is_scipys_paired_bootstrap():
    wrong, other = outcomes(40, 25, 80, 255)
    low, high = stats.bootstrap(
        (wrong.astype(float), other.astype(float)),
        lambda a, b, axis: 100 * (a.mean(axis=axis) - b.mean(axis=axis)),
        paired=True,
        vectorized=True,
        method="percentile",
        n_resamples=5000,
        random_state=np.random.default_rng(5),
    ).confidence_interval
    assert _paired_interval(40, 25, 400) == pytest.approx((low, high), abs=0.5)


def test_the_interval_is_that_of_a_reports_trained_networks():
    wrong = outcomes(9, 4, 7, 60)
    contrasts = Contrasts(dict(zip(("D-256 dense single", "B-256 dense single"), wrong[:, None], strict=True)))
    found = contrasts.of_trainings({"D-256 dense single": 1.0, "B-256 dense single": -1.0})
    assert _paired_interval(9, 4, 80) == pytest.approx(found.ci95)


@settings(max_examples=100)
@given(n=st.integers(1, 3000), share=st.floats(0, 1))
def test_the_interval_is_wilsons(n, share):
    wrong = round(share * n)
    low, high = wilson_interval(np.arange(n) < wrong)
    z, p = 1.959963984540054, wrong / n
    middle = (p + z**2 / (2 * n)) / (1 + z**2 / n)
    half = z / (1 + z**2 / n) * math.sqrt(p * (1 - p) / n + z**2 / (4 * n**2))
    assert low == pytest.approx(100 * (middle - half), abs=1e-6)
    assert high == pytest.approx(100 * (middle + half), abs=1e-6)
    assert 0 <= low <= 100 * p <= high <= 100


def test_an_interval_known_from_the_literature():
    """Newcombe 1998, table I: 81 of 263 gives 0.2553 to 0.3662, and 0 of 20 gives 0 to 0.1611."""
    assert wilson_interval(np.arange(263) < 81) == pytest.approx((25.53, 36.62), abs=0.005)
    assert wilson_interval(np.arange(20) < 0) == pytest.approx((0, 16.11), abs=0.005)


# Student's t


@pytest.mark.parametrize("freedom", [1, 3.7, 40])
def test_intervals_and_p_values_are_those_of_students_t(freedom):
    ours = stats.t(freedom, loc=-1.2, scale=0.8)
    assert t_interval(-1.2, 0.8, freedom) == pytest.approx(ours.interval(0.95))
    assert t_p_below(-1.2, 0.8, freedom) == pytest.approx(ours.sf(0))
    assert t_p_below(1.2, 0.8, freedom) == pytest.approx(1 - ours.sf(0))


def test_a_t_test_of_pairs_is_that_of_scipy():
    first, second = np.random.default_rng(0).normal([[0.0], [0.4]], size=(2, 12))
    differences = first - second
    mean, error = differences.mean(), differences.std(ddof=1) / 12**0.5
    theirs = stats.ttest_rel(first, second, alternative="less")
    assert t_p_below(mean, error, 11) == pytest.approx(theirs.pvalue)
    assert t_interval(mean, error, 11) == pytest.approx(stats.ttest_rel(first, second).confidence_interval())


# Holm's correction


def test_families_of_one_hypothesis_are_those_of_holm():
    rng = np.random.default_rng(0)
    for count in (1, 2, 5, 9):
        p_values = rng.random(count) ** 5 / 10
        order = np.argsort(p_values)
        corrected = np.maximum.accumulate([(count - rank) * p_values[which] for rank, which in enumerate(order)])
        expected = {str(which) for which, p in zip(order, corrected, strict=True) if p <= 0.04}
        assert holm_by_family([{str(which): p} for which, p in enumerate(p_values)], 0.04) == expected
    assert holm_by_family([], 0.04) == set()


@pytest.mark.parametrize(
    ("families", "rejected"),
    [
        ([{"a": 0.02, "b": 0.02}], "ab"),  # as a whole, each at the level of the family
        ([{"a": 0.019, "b": 0.5}], "a"),  # by itself, at half of it
        ([{"a": 0.021, "b": 0.5}], ""),
        ([{"a": 0.019, "b": 0.5}, {"c": 0.01}], "ac"),  # c is rejected and passes its share on
        ([{"a": 0.019, "b": 0.5}, {"c": 0.03}], ""),
        ([{"a": 0.001, "b": 0.019, "c": 0.5}], "ab"),  # Holm within the family
    ],
)
def test_families_are_rejected_as_a_whole_or_in_part(families, rejected):
    assert holm_by_family(families, 0.04) == set(rejected)


def test_what_is_not_a_number_rejects_nothing():
    for mixed in ({"b": 0.001, "c": math.nan}, {"c": math.nan, "b": 0.001}):
        assert holm_by_family([{"a": math.nan}, mixed, {"d": 0.001}], 0.04) == {"b", "d"}


@settings(max_examples=200)
@given(p_values=st.lists(st.floats(0, 0.06), min_size=1, max_size=5))
def test_within_a_family_no_less_is_rejected_than_by_holm_and_no_more_than_by_hochberg(p_values):
    """As a whole it is rejected where Hochberg's first step does it, which Holm's steps down may not."""
    ranked = sorted(p_values)
    holm = next((rank for rank, p in enumerate(ranked) if p > 0.04 / (len(ranked) - rank)), len(ranked))
    hochberg = max((rank + 1 for rank, p in enumerate(ranked) if p <= 0.04 / (len(ranked) - rank)), default=0)
    rejected = holm_by_family([{str(which): p for which, p in enumerate(p_values)}], 0.04)
    assert holm <= len(rejected) <= hochberg
    assert (len(rejected) == len(p_values)) == (ranked[-1] <= 0.04)
