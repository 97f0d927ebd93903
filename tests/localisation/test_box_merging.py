"""Merging against an implementation in plain Python, and on cases worked out by hand."""

import numpy as np
import pytest
from naive_boxes import naive

from verydeep.images.boxes.geometry import intersection_over_union
from verydeep.localisation.full_test import _CLOSE_IOU, _merged


@pytest.mark.parametrize("seed", range(20))
def test_merging_is_that_of_the_naive_implementation(seed):
    rng = np.random.default_rng(seed)
    count = int(rng.integers(1, 25))
    centres = rng.uniform(0, 60, (count, 2)).round() if seed % 2 else rng.choice([10.0, 50.0], (count, 2))
    centres = centres + rng.normal(0, 3, (count, 2))
    half = rng.uniform(8, 14, (count, 2))
    boxes, scores = np.concatenate([centres - half, centres + half], axis=1), rng.random(count)
    found, ratings = _merged(boxes, scores)
    expected = naive(boxes, scores)
    np.testing.assert_allclose(found, [box for box, _ in expected], atol=1e-9)
    np.testing.assert_allclose(ratings, [rating for _, rating in expected], atol=1e-9)
    assert ratings.sum() == pytest.approx(scores.sum())


def test_close_boxes_are_averaged_and_their_scores_added():
    boxes = np.array([[0.0, 0, 10, 10], [2, 0, 12, 10], [1, 3, 11, 13], [100, 0, 110, 10]])
    found, ratings = _merged(boxes, np.array([0.2, 0.3, 0.1, 0.5]))
    np.testing.assert_allclose(found, [[1, 1, 11, 11], [100, 0, 110, 10]])
    np.testing.assert_allclose(ratings, [0.6, 0.5])


def test_boxes_that_overlap_by_less_than_half_stay_apart():
    boxes = np.array([[0.0, 0, 10, 10], [3.4, 0, 13.4, 10]])  # 66 of 134
    assert len(_merged(boxes, np.ones(2))[0]) == 2
    boxes[1] = [3.3, 0, 13.3, 10]  # 67 of 133
    assert len(_merged(boxes, np.ones(2))[0]) == 1


def test_one_box_and_boxes_without_area_stay_as_they_are():
    one = np.array([[1.0, 2, 3, 4]])
    found, ratings = _merged(one, np.array([0.5]))
    assert (found.tolist(), ratings.tolist()) == (one.tolist(), [0.5])
    empty = np.array([[5.0, 5, 5, 5], [5, 5, 5, 5]])
    assert len(_merged(empty, np.ones(2))[0]) == 2


def searching_all(boxes, scores):
    """Merge with the same sums in the same order, but search all pairs for each merge; the first of equals wins."""
    groups = [(box, 1.0, score) for box, score in zip(boxes, scores, strict=True)]
    while True:
        left = [place for place, group in enumerate(groups) if group]
        all_boxes = np.stack([groups[place][0] for place in left])
        overlaps = intersection_over_union(all_boxes[:, None], all_boxes[None])
        np.fill_diagonal(overlaps, -1)
        if overlaps.max() < _CLOSE_IOU:
            return [groups[place] for place in left]
        one, other = (left[place] for place in np.unravel_index(overlaps.argmax(), overlaps.shape))
        (box, members, score), (other_box, others, other_score) = groups[one], groups[other]
        shares = np.array([members, others]) / (members + others)
        groups[one] = (shares @ np.stack([box, other_box]), members + others, score + other_score)
        groups[other] = None


@pytest.mark.parametrize("seed", range(12))
def test_what_is_not_searched_again_would_not_have_been_found(seed):
    """Chains of boxes that lose each other as they are merged; on grids many overlap equally."""
    rng = np.random.default_rng(seed)
    centres = rng.uniform(0, 60, (90, 2)) if seed % 2 else rng.integers(0, 9, (90, 2)) * 4.0
    half = np.full((90, 2), 10.0) if seed % 4 < 2 else rng.uniform(8, 14, (90, 2))
    boxes, scores = np.concatenate([centres - half, centres + half], axis=1), rng.random(90)
    found, ratings = _merged(boxes, scores)
    expected = sorted(searching_all(boxes, scores), key=lambda group: -group[2])
    np.testing.assert_array_equal(found, [box for box, _, _ in expected])
    np.testing.assert_array_equal(ratings, [rating for _, _, rating in expected])
