"""Exact tests against enumeration and published values, intervals against other ways to resample."""

import json
import math
import random
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from verydeep.evaluation.paired import RESAMPLES, bootstrap_interval, mcnemar, paired_comparison

COUNT = st.integers(0, 80)


def outcomes(only_first, only_second, both, neither):
    """Which images two results got wrong, in a shuffled order."""
    pairs = [(True, False)] * only_first + [(False, True)] * only_second + [(True, True)] * both
    pairs += [(False, False)] * neither
    random.Random(0).shuffle(pairs)
    return np.array(pairs, dtype=bool).reshape(-1, 2).T


# the test


@settings(max_examples=200, deadline=None)
@given(b=COUNT, c=COUNT)
def test_the_p_value_enumerates_all_ways_the_differing_images_can_fall(b, c):
    n = b + c
    ways = [math.comb(n, k) for k in range(n + 1)]
    assert mcnemar(b, c) == pytest.approx(float(Fraction(sum(w for w in ways if w <= ways[b]), 2**n)))
    one_sided = stats.binomtest(min(b, c), n, alternative="less").pvalue if n else 1
    assert mcnemar(b, c) == pytest.approx(min(1, 2 * one_sided))
    assert mcnemar(c, b) == pytest.approx(mcnemar(b, c))


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
    assert mcnemar(b, c) == pytest.approx(p, abs=6e-7)


def test_nothing_that_differs_is_no_evidence():
    wrong, _ = outcomes(0, 0, 3, 4)
    found = paired_comparison("a", "b", wrong, wrong.copy())
    assert (found.only_first_wrong, found.only_second_wrong) == (0, 0)
    assert (found.p_value, found.difference, found.difference_ci95) == (1, 0, (0, 0))


# the interval


@settings(max_examples=40, deadline=None)
@given(b=COUNT, c=COUNT, others=st.integers(0, 300))
def test_the_ends_cut_off_a_fortieth_of_what_resampling_can_give(b, c, others):
    """Each drawn image adds 1, -1 or 0: the distribution of their sum is a convolution. `few` is 5 standard errors."""
    n = b + c + others
    if not n:
        return
    sums = np.ones(1)
    for _ in range(n):
        sums = np.convolve(sums, [c / n, others / n, b / n])
    differences, below = 100 * np.arange(-n, n + 1) / n, np.concatenate([[0], sums.cumsum()])
    few, half_a_step = 5 * math.sqrt(0.025 * 0.975 / RESAMPLES), 50 / n
    for end, share in zip(bootstrap_interval(b, c, n), (0.025, 0.975), strict=True):
        assert below[(differences < end - half_a_step).sum()] <= share + few
        assert below[(differences <= end + half_a_step).sum()] >= share - few


def test_the_interval_is_that_of_drawing_images_in_a_loop():
    """Within 4 standard errors of quantiles from 10,000 and 3,000 drawings, and a step of 100 / n."""
    wrong, other = outcomes(40, 25, 80, 255)
    pairs, draws, n = list(zip(wrong.tolist(), other.tolist(), strict=True)), random.Random(1), 400
    found = sorted(100 * sum(w - o for w, o in draws.choices(pairs, k=n)) / n for _ in range(3000))
    deviation = 100 * math.sqrt((65 / n - (15 / n) ** 2) / n)
    within = 4 * math.sqrt(0.025 * 0.975 * (1 / 10_000 + 1 / 3000)) / stats.norm.pdf(1.96) * deviation + 100 / n
    assert bootstrap_interval(40, 25, n) == pytest.approx((found[75], found[2925]), abs=within)
    unpaired = 1.96 * 100 * math.sqrt((0.3 * 0.7 + 0.2625 * 0.7375) / n)
    assert unpaired - 1.96 * deviation > 2 * within  # which the test tells apart


def test_the_interval_is_scipys_paired_bootstrap():
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
    found = paired_comparison("a", "b", wrong, other)
    assert found.difference_ci95 == pytest.approx((low, high), abs=0.5)


def test_the_interval_holds_the_true_difference_95_times_of_100():
    """400 data sets of 300 images: 380 are expected, with a standard deviation of 4.4."""
    first, second = 0.12, 0.07
    counts = np.random.default_rng(2).multinomial(300, [first, second, 1 - first - second], size=400).tolist()
    ends = np.array([bootstrap_interval(b, c, 300) for b, c, _ in counts])
    held = (ends[:, 0] <= 100 * (first - second)) & (100 * (first - second) <= ends[:, 1])
    assert 366 <= held.sum() <= 392


# both


@settings(max_examples=50, deadline=None)
@given(pairs=st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1, max_size=60))
def test_a_comparison_counts_images_one_by_one(pairs):
    wrong, other = np.array(pairs).T
    found = paired_comparison("one", "two", wrong, other)
    assert (found.first, found.second, found.n) == ("one", "two", len(pairs))
    assert (found.only_first_wrong, found.only_second_wrong) == (pairs.count((True, False)), pairs.count((False, True)))
    errors = [100 * sum(pair[which] for pair in pairs) / len(pairs) for which in (0, 1)]
    assert found.difference == pytest.approx(errors[0] - errors[1])
    assert found.difference_ci95[0] <= found.difference <= found.difference_ci95[1]
    assert found.p_value == mcnemar(found.only_first_wrong, found.only_second_wrong)
    assert json.loads(json.dumps(found.to_dict())) == {
        **found.to_dict(),
        "difference_ci95": list(found.difference_ci95),
    }


def test_who_errs_more_often_has_the_difference_above_0():
    wrong, other = outcomes(30, 10, 20, 140)
    found, swapped = paired_comparison("a", "b", wrong, other), paired_comparison("b", "a", other, wrong)
    assert (found.difference, swapped.difference) == (10, -10)
    assert 0 < found.difference_ci95[0] < 10 < found.difference_ci95[1]
    assert swapped.difference_ci95 == pytest.approx([-end for end in reversed(found.difference_ci95)], abs=0.51)
    assert swapped.p_value == found.p_value < 0.01


def test_the_same_images_give_the_same_interval_again():
    assert bootstrap_interval(40, 25, 400) == bootstrap_interval(40, 25, 400)


def test_one_that_is_always_wrong_against_one_that_never_is():
    found = paired_comparison("a", "b", np.ones(20, dtype=bool), np.zeros(20, dtype=bool))
    assert (found.difference, found.difference_ci95) == (100, (100, 100))
    assert found.p_value == pytest.approx(2 / 2**20)


@pytest.mark.parametrize(("one", "other"), [(3, 4), (0, 0), (0, 1)])
def test_results_on_other_numbers_of_images_are_refused(one, other):
    with pytest.raises(ValueError, match=f"on the same images can be compared, not on {one} and {other}"):
        paired_comparison("a", "b", np.ones(one, dtype=bool), np.ones(other, dtype=bool))
