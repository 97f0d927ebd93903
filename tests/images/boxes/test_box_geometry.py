"""Boxes against counted pixels, and there and back."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from verydeep.images.boxes.geometry import (
    TRIES,
    ObjectNotShownError,
    _shows,
    boxes_in_crop,
    boxes_in_image,
    clipped,
    intersection_over_union,
    mirrored_boxes,
    random_location_showing,
    rescaled_boxes,
)

sides = st.integers(1, 300)
numbers = st.floats(-500, 500)


@st.composite
def boxes(draw):
    x0, y0 = draw(numbers), draw(numbers)
    return np.array([x0, y0, x0 + draw(st.floats(0.5, 400)), y0 + draw(st.floats(0.5, 400))])


def whole_box(draw, side):
    """Whole edges within 0..side."""
    low = draw(st.integers(0, side - 1))
    return low, draw(st.integers(low + 1, side))


@settings(max_examples=200)
@given(box=boxes(), height=sides, width=sides, to=st.tuples(sides, sides))
def test_rescaled_and_back(box, height, width, to):
    there = rescaled_boxes(box, (height, width), to)
    np.testing.assert_allclose(rescaled_boxes(there, to, (height, width)), box, rtol=1e-9, atol=1e-9)


@settings(max_examples=200)
@given(box=boxes(), crop=st.integers(1, 300), top=st.integers(-50, 300), left=st.integers(-50, 300))
def test_into_a_crop_and_back(box, crop, top, left):
    there = boxes_in_crop(box, crop, top=top, left=left)
    np.testing.assert_allclose(boxes_in_image(there, crop, top=top, left=left), box, rtol=1e-9, atol=1e-7)
    np.testing.assert_allclose(mirrored_boxes(mirrored_boxes(there)), there, rtol=1e-9, atol=1e-12)


@settings(max_examples=200)
@given(
    box=boxes(),
    size=st.tuples(sides, sides),
    to=st.tuples(sides, sides),
    crop=st.integers(1, 300),
    top=st.integers(0, 300),
    left=st.integers(0, 300),
)
def test_rescaled_cropped_mirrored_and_back(box, size, to, crop, top, left):
    seen = mirrored_boxes(boxes_in_crop(rescaled_boxes(box, size, to), crop, top=top, left=left))
    back = rescaled_boxes(boxes_in_image(mirrored_boxes(seen), crop, top=top, left=left), to, size)
    np.testing.assert_allclose(back, box, rtol=1e-7, atol=1e-5)


@settings(max_examples=100)
@given(data=st.data(), crop=st.integers(2, 40))
def test_a_mirrored_box_is_where_its_pixels_are(data, crop):
    (x0, x1), (y0, y1) = (whole_box(data.draw, crop) for _ in range(2))
    pixels = np.zeros((crop, crop), dtype=bool)
    pixels[y0:y1, x0:x1] = True
    relative = mirrored_boxes(boxes_in_crop(np.array([x0, y0, x1, y1], float), crop, top=0, left=0))
    found = boxes_in_image(relative, crop, top=0, left=0)
    rows, columns = np.nonzero(pixels[:, ::-1])
    np.testing.assert_allclose(found, [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1], atol=1e-9)


def test_a_box_in_a_crop_is_centre_and_sides_in_its_units():
    assert boxes_in_crop(np.array([10.0, 20, 40, 30]), 20, top=5, left=-5).tolist() == [1.5, 1, 1.5, 0.5]


@settings(max_examples=200)
@given(data=st.data(), height=st.integers(1, 30), width=st.integers(1, 30))
def test_overlap_is_counted_pixels(data, height, width):
    masks, edges = [], []
    for _ in range(2):
        (x0, x1), (y0, y1) = whole_box(data.draw, width), whole_box(data.draw, height)
        mask = np.zeros((height, width), dtype=bool)
        mask[y0:y1, x0:x1] = True
        masks.append(mask)
        edges.append(np.array([x0, y0, x1, y1], dtype=float))
    expected = (masks[0] & masks[1]).sum() / (masks[0] | masks[1]).sum()
    assert intersection_over_union(*edges) == pytest.approx(expected, abs=1e-12)


def test_boxes_with_negative_sides_overlap_with_nothing():
    upside_down = np.array([[5.0, 5, 1, 1], [1, 1, 1, 5]])
    assert intersection_over_union(upside_down, np.array([0.0, 0, 9, 9])).tolist() == [0, 0]
    assert intersection_over_union(upside_down, upside_down).tolist() == [0, 0]


def test_clipped_to_an_image():
    assert clipped(np.array([-3.0, 2, 50, 60]), (40, 30)).tolist() == [0, 2, 30, 40]


@settings(max_examples=200)
@given(data=st.data(), crop=st.integers(2, 20), top=st.integers(0, 20), left=st.integers(0, 20))
def test_a_crop_shows_an_object_with_half_of_what_it_could_hold(data, crop, top, left):
    (x0, x1), (y0, y1) = (whole_box(data.draw, 40) for _ in range(2))
    mask = np.zeros((40, 40), dtype=bool)
    mask[y0:y1, x0:x1] = True
    most = max(
        mask[row : row + crop, column : column + crop].sum() for row in range(41 - crop) for column in range(41 - crop)
    )
    inside = mask[top : top + crop, left : left + crop].sum()
    assert _shows(np.array([x0, y0, x1, y1], float), crop, top=top, left=left) == (inside >= most / 2)


def test_places_that_show_an_object_are_the_first_ones_drawn_that_do():
    box, size, crop = np.array([50.0, 0, 58, 8]), (32, 64), 16
    rng, other = np.random.default_rng(3), np.random.default_rng(3)
    for _ in range(20):
        place = random_location_showing(box, size, crop, rng)
        while True:
            drawn = int(other.integers(0, 16, endpoint=True)), int(other.integers(0, 48, endpoint=True))
            across = max(0, min(58, drawn[1] + crop) - max(50, drawn[1]))
            down = max(0, min(8, drawn[0] + crop) - max(0, drawn[0]))
            if across * down >= 32:
                break
        assert place == drawn


def test_an_object_that_no_crop_shows_is_given_up():
    class Corner:
        calls = 0

        def integers(self, low, high, endpoint):
            self.calls += 1
            return 0

    rng = Corner()
    with pytest.raises(ObjectNotShownError):
        random_location_showing(np.array([30.0, 30, 40, 40]), (64, 64), 16, rng)
    assert rng.calls == 2 * TRIES
