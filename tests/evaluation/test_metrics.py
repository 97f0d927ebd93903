"""Errors against sorting by hand, calibration against a loop over images."""

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics as sklearn_metrics

from verydeep.evaluation.metrics import (
    calibration,
    confusion_matrix,
    error_percent,
    misclassified,
    predicted,
)


def naive_misclassified(posterior, label, top):
    """The right class comes last among its equals."""
    order = sorted(range(len(posterior)), key=lambda c: (-posterior[c], c == label))
    return label not in order[:top]


@settings(max_examples=100)
@given(data=st.data(), classes=st.integers(2, 12), images=st.integers(1, 10), levels=st.integers(1, 6))
def test_errors_and_predictions_are_what_sorting_says_with_ties_too(data, classes, images, levels):
    level = st.integers(0, levels - 1)
    posteriors = np.array(
        [[data.draw(level) / levels for _ in range(classes)] for _ in range(images)], dtype=np.float64
    )
    labels = np.array([data.draw(st.integers(0, classes - 1)) for _ in range(images)])
    pairs = list(zip(posteriors.tolist(), labels.tolist(), strict=True))
    for top in (1, 2, 5):
        assert misclassified(posteriors, labels, top=top).tolist() == [naive_misclassified(*p, top) for p in pairs]
    before = posteriors.copy()
    found = predicted(posteriors, labels)
    assert found.tolist() == [max(range(classes), key=lambda c: (p[c], c != right, -c)) for p, right in pairs]
    assert (found != labels).tolist() == misclassified(posteriors, labels).tolist()
    assert np.array_equal(posteriors, before)


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


def test_a_tie_is_taken_for_another_class_than_the_right_one():
    posteriors = np.array([[0.4, 0.4, 0.2], [0.4, 0.4, 0.2], [0.4, 0.4, 0.2], [0, 0, 1], [np.nan] * 3])
    assert predicted(posteriors, np.array([0, 1, 2, 2, 0])).tolist() == [1, 0, 0, 2, 1]


def test_errors_are_in_percent():
    assert error_percent(np.array([True, False, False, False, True])) == pytest.approx(40)
    assert error_percent(np.array([False])) == 0


# what is taken for what


@settings(max_examples=50)
@given(data=st.data(), classes=st.integers(2, 9), images=st.integers(1, 60))
def test_the_confusion_matrix_is_a_count_of_pairs(data, classes, images):
    places = st.lists(st.integers(0, classes - 1), min_size=images, max_size=images)
    taken, labels = data.draw(places), data.draw(places)
    expected = np.zeros((classes, classes), dtype=int)
    for place, label in zip(taken, labels, strict=True):
        expected[label, place] += 1
    found = confusion_matrix(np.array(taken), np.array(labels), classes=classes)
    assert np.array_equal(found, expected)
    assert np.array_equal(found, sklearn_metrics.confusion_matrix(labels, taken, labels=range(classes)))


# calibration


def naive_calibration(posteriors, labels, bins):
    """Images, sum of confidences and right ones of every bin (low, high]; the error from them (Guo et al. 2017)."""
    found = [[0, 0.0, 0] for _ in range(bins)]
    for posterior, label in zip(posteriors.tolist(), labels.tolist(), strict=True):
        confidence = max(posterior)
        place = next((k for k in range(bins) if k / bins < confidence <= (k + 1) / bins), 0)
        found[place][0] += 1
        found[place][1] += confidence
        found[place][2] += not naive_misclassified(posterior, label, 1)
    return found, 100 * sum(abs(total - right) for _, total, right in found) / len(labels)


def of_two(confidences, right):
    """Posteriors of two classes, the second with this confidence, and labels."""
    confidences = np.array(confidences, dtype=np.float64)
    return np.stack([np.zeros_like(confidences), confidences], axis=1), np.array(right).astype(int)


@settings(max_examples=200)
@given(data=st.data(), bins=st.sampled_from([1, 2, 7, 10, 15]), images=st.integers(1, 20))
def test_calibration_is_a_loop_over_images(data, bins, images):
    """Also with probabilities of 0 and 1, and on the edges of bins."""
    probability = st.floats(0, 1) | st.integers(0, bins).map(lambda k: k / bins)
    drawn = data.draw(st.lists(probability, min_size=2 * images, max_size=2 * images))
    labels = np.array(data.draw(st.lists(st.integers(0, 1), min_size=images, max_size=images)))
    posteriors = np.array(drawn).reshape(images, 2)
    found = calibration(posteriors, labels, bins=bins)
    expected, error = naive_calibration(posteriors, labels, bins)
    assert [(one.low, one.high) for one in found.bins] == [(k / bins, (k + 1) / bins) for k in range(bins)]
    assert [one.n for one in found.bins] == [n for n, _, _ in expected]
    for one, (n, confidence, right) in zip(found.bins, expected, strict=True):
        assert one.confidence == (pytest.approx(confidence / n) if n else None)
        assert one.accuracy == (pytest.approx(right / n) if n else None)
    assert found.expected_calibration_error == pytest.approx(error, abs=1e-9)


def test_calibration_of_an_example_done_by_hand():
    """Two bins: 0.4, wrong; 0.6 and 0.8 and 0.9, of which the first two are right. (|0.4 - 0| + |2.3 - 2|) / 4."""
    found = calibration(*of_two([0.4, 0.6, 0.8, 0.9], [False, True, True, False]), bins=2)
    assert found.expected_calibration_error == pytest.approx(17.5)
    low, high = found.bins
    assert (low.n, low.confidence, low.accuracy) == (1, 0.4, 0)
    assert (high.n, high.confidence, high.accuracy) == (3, pytest.approx(2.3 / 3), pytest.approx(2 / 3))


def test_there_are_fifteen_bins_as_in_guo_et_al():
    assert len(calibration(*of_two([0.7], [True])).bins) == 15


@pytest.mark.parametrize("bins", [10, 15])
def test_an_edge_belongs_to_the_bin_below_it_and_what_is_above_to_the_next(bins):
    """Exact: in binary numbers k / 15 * 15 is not always k, nor what is just above 11 / 15 more than 11."""
    for k in range(1, bins):
        for confidence in (k / bins, float(np.nextafter(k / bins, 0)), float(np.nextafter(k / bins, 1))):
            (place,) = [p for p, one in enumerate(calibration(*of_two([confidence], [1]), bins=bins).bins) if one.n]
            assert place == k - (Fraction(confidence) <= Fraction(k / bins))


def test_probabilities_of_0_and_1_are_in_the_outermost_bins():
    found = calibration(np.array([[0.0, 0.0], [0.0, 1.0]]), np.array([0, 1]))
    assert [one.n for one in found.bins] == [1, *[0] * 13, 1]
    assert found.expected_calibration_error == 0


def test_who_is_sure_and_always_wrong_has_an_error_of_nearly_100():
    assert calibration(*of_two([0.999] * 50, [False] * 50)).expected_calibration_error == pytest.approx(99.9)
    assert calibration(*of_two([1.0] * 50, [True] * 50)).expected_calibration_error == 0


def test_who_is_right_as_often_as_the_probabilities_say_has_an_error_of_nearly_0():
    """Of 15 bins each with 4,000 images the error by chance alone is about 0.4 points."""
    rng = np.random.default_rng(0)
    confidence = rng.uniform(0, 1, 60_000)
    honest = calibration(*of_two(confidence, rng.random(60_000) < confidence))
    assert honest.expected_calibration_error < 1
    boasting = calibration(*of_two(confidence, rng.random(60_000) < confidence**2))
    assert boasting.expected_calibration_error == pytest.approx(100 / 6, abs=1)  # mean of p - p²
