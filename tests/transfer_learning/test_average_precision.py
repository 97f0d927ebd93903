"""Average precision against a naive computation in fractions, and against scikit-learn where both say the same."""

from fractions import Fraction
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score, precision_recall_curve

from verydeep.transfer_learning.measures import (
    _average_precision,
    _average_precisions,
    _eleven_point_average_precision,
    ranking,
)

IMAGES = st.lists(st.tuples(st.integers(0, 6), st.sampled_from((-1, 0, 1)), st.integers(0, 3)), min_size=1, max_size=25)


def naive(scores, shown, counts=None):
    """Return the area, and the mean of 11 precisions, from every threshold."""
    counts = np.ones(len(scores), int) if counts is None else counts
    total = sum(int(count) for sign, count in zip(shown, counts, strict=True) if sign > 0)
    points = []
    for threshold in sorted(set(scores.tolist()), reverse=True):
        above = [
            (sign, int(count))
            for score, sign, count in zip(scores, shown, counts, strict=True)
            if score >= threshold and sign != 0
        ]
        hits, all_of_them = sum(count for sign, count in above if sign > 0), sum(count for _, count in above)
        if all_of_them:
            points.append((Fraction(hits, total), Fraction(hits, all_of_them)))

    def best(recall):
        return max(precision for reached, precision in points if reached >= recall)

    recalls = sorted({Fraction(0), *(recall for recall, _ in points)})
    area = sum((high - low) * best(high) for low, high in pairwise(recalls))
    return float(area), float(sum(best(Fraction(tenths, 10)) for tenths in range(11)) / 11)


def arrays(images):
    scores, shown, counts = map(np.array, zip(*images, strict=True))
    return scores / 7.0, shown.astype(np.int8), counts


@given(IMAGES.filter(lambda images: any(sign > 0 for _, sign, _ in images)), st.randoms())
def test_it_is_the_area_and_does_not_depend_on_the_order_of_images(images, random):
    scores, shown, _ = arrays(images)
    wanted = naive(scores, shown)
    assert _average_precision(scores, shown) == pytest.approx(wanted[0], abs=1e-12)
    assert _eleven_point_average_precision(scores, shown) == pytest.approx(wanted[1], abs=1e-12)
    random.shuffle(images)
    scores, shown, _ = arrays(images)
    assert _average_precision(scores, shown) == pytest.approx(wanted[0], abs=1e-12)
    assert 0 < wanted[0] <= 1


@given(IMAGES.filter(lambda images: any(sign > 0 for _, sign, _ in images)))
def test_a_resample_is_a_list_with_repeated_images(images):
    scores, shown, counts = arrays(images)
    found = _average_precisions(ranking(scores, shown), np.column_stack([counts, counts[::-1]]).astype(float))
    for value, its in zip(found, (counts, counts[::-1]), strict=True):
        if its[shown > 0].sum():
            again = _average_precision(np.repeat(scores, its), np.repeat(shown, its))
            assert value == pytest.approx(again, abs=1e-12)
            assert value == pytest.approx(naive(scores, shown, its)[0], abs=1e-12)
        else:
            assert np.isnan(value)


def test_it_is_sklearns_where_precision_only_falls_and_more_elsewhere():
    rng = np.random.default_rng(0)
    shown = np.array([1, 1, 1, -1, 1, -1, -1, -1], np.int8)
    falling = np.array([8, 7, 6, 5, 5, 3, 2, 1.0])
    assert _average_precision(falling, shown) == pytest.approx(average_precision_score(shown > 0, falling), abs=1e-12)
    for _ in range(20):
        signs = rng.choice(np.array([-1, 1], np.int8), 60)
        scores = np.round(rng.normal(size=60) + signs, 1)  # with ties
        precisions, recalls, _ = precision_recall_curve(signs > 0, scores)
        area = -np.sum(np.diff(recalls) * np.maximum.accumulate(precisions)[:-1])
        found = _average_precision(scores, signs)
        assert found == pytest.approx(area, abs=1e-12)
        assert found > average_precision_score(signs > 0, scores)


def test_equal_scores_give_the_share_that_shows_the_class():
    shown = np.array([1, -1, -1, 0, -1, 1, -1, -1], np.int8)
    assert _average_precision(np.zeros(8), shown) == pytest.approx(2 / 7)


def test_perfect_and_reversed_orders():
    shown = np.array([1, 1, -1, -1, -1], np.int8)
    assert _average_precision(-np.arange(5.0), shown) == 1
    assert _eleven_point_average_precision(-np.arange(5.0), shown) == 1
    assert _average_precision(np.arange(5.0), shown) == pytest.approx(0.4)


def test_recalls_are_compared_in_whole_numbers():
    """Three of ten hits come first, then a miss: the precision at a recall of 0.3 is 1."""
    shown = np.array([1, 1, 1, -1, -1, 1, 1, 1, 1, 1, 1, 1], np.int8)
    wanted = (4 * 1 + 7 * 10 / 12) / 11
    assert _eleven_point_average_precision(-np.arange(12.0), shown) == pytest.approx(wanted)


def test_without_an_image_of_the_class_there_is_no_precision():
    with pytest.raises(ValueError, match="no image shows the class"):
        _average_precision(np.zeros(3), np.array([-1, 0, -1], np.int8))
