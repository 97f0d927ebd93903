"""Errors against sorting by hand, intervals against Wilson's formula."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from verydeep.evaluation.metrics import error_interval, error_percent, misclassified


def naive_misclassified(posterior, label, top):
    """The right class comes last among its equals."""
    order = sorted(range(len(posterior)), key=lambda c: (-posterior[c], c == label))
    return label not in order[:top]


@settings(max_examples=300, deadline=None)
@given(data=st.data(), classes=st.integers(2, 12), images=st.integers(1, 10), levels=st.integers(1, 6))
def test_misclassified_is_what_sorting_says_with_ties_too(data, classes, images, levels):
    level = st.integers(0, levels - 1)
    posteriors = np.array(
        [[data.draw(level) / levels for _ in range(classes)] for _ in range(images)], dtype=np.float64
    )
    labels = np.array([data.draw(st.integers(0, classes - 1)) for _ in range(images)])
    for top in (1, 2, 5):
        expected = [naive_misclassified(p, c, top) for p, c in zip(posteriors.tolist(), labels.tolist(), strict=True)]
        assert misclassified(posteriors, labels, top=top).tolist() == expected


def test_misclassified_without_ties():
    posteriors = np.array([[0.5, 0.3, 0.2], [0.5, 0.3, 0.2], [0.1, 0.2, 0.7]])
    labels = np.array([0, 1, 0])
    assert misclassified(posteriors, labels).tolist() == [False, True, True]
    assert misclassified(posteriors, labels, top=2).tolist() == [False, False, True]
    assert misclassified(posteriors, labels, top=3).tolist() == [False, False, False]


@pytest.mark.parametrize("top", [1, 5])
def test_a_constant_output_is_always_wrong(top):
    assert misclassified(np.full((10, 10), 0.1), np.arange(10), top=top).all()


@pytest.mark.parametrize("top", [1, 5])
def test_what_is_not_a_number_is_always_wrong(top):
    assert misclassified(np.full((10, 10), np.nan), np.arange(10), top=top).all()


def test_errors_are_in_percent():
    assert error_percent(np.array([True, False, False, False, True])) == pytest.approx(40)
    assert error_percent(np.array([False])) == 0


@settings(max_examples=100, deadline=None)
@given(n=st.integers(1, 3000), share=st.floats(0, 1))
def test_the_interval_is_wilsons(n, share):
    wrong = round(share * n)
    low, high = error_interval(np.arange(n) < wrong)
    z, p = 1.959963984540054, wrong / n
    middle = (p + z**2 / (2 * n)) / (1 + z**2 / n)
    half = z / (1 + z**2 / n) * math.sqrt(p * (1 - p) / n + z**2 / (4 * n**2))
    assert low == pytest.approx(100 * (middle - half), abs=1e-6)
    assert high == pytest.approx(100 * (middle + half), abs=1e-6)
    assert 0 <= low <= 100 * p <= high <= 100


def test_an_interval_known_from_the_literature():
    """Newcombe 1998, table I: 81 of 263 gives 0.2553 to 0.3662, and 0 of 20 gives 0 to 0.1611."""
    assert error_interval(np.arange(263) < 81) == pytest.approx((25.53, 36.62), abs=0.005)
    assert error_interval(np.arange(20) < 0) == pytest.approx((0, 16.11), abs=0.005)
