"""Boxes in pictures are where they are said to be, in their own colours."""

import numpy as np
import pytest

from verydeep.localisation.box_pictures import _PREDICTED_COLOUR, _TRUE_COLOUR, with_boxes_drawn

GREY, WHITE = (90, 90, 90), (255, 255, 255)


def runs_along(line):
    """Return the colours along a line of pixels, and for how many pixels each goes on."""
    found = []
    for colour in map(tuple, line.tolist()):
        if found and found[-1][0] == colour:
            found[-1][1] += 1
        else:
            found.append([colour, 1])
    return [tuple(one) for one in found]


def box_on_grey(height, width, box, which):
    image = np.full((height, width, 3), GREY, np.uint8)
    boxes = {
        "predicted": {"predicted": [np.array(box, float)]},
        "true": {"predicted": [], "true": np.array(box, float)},
    }[which]
    picture = with_boxes_drawn(image, **boxes)
    assert (image == GREY).all()
    return picture


@pytest.mark.parametrize(("which", "colour", "width"), [("predicted", _PREDICTED_COLOUR, 3), ("true", _TRUE_COLOUR, 2)])
def test_a_line_is_inside_of_the_box_with_a_white_edge(which, colour, width):
    picture = box_on_grey(100, 224, (40.2, 20.1, 160, 61), which)
    rows = [(GREY, 19), (WHITE, 1), (colour, width), (WHITE, 1)]
    across = 41 - 2 * width - 2
    assert runs_along(picture[:, 100]) == [*rows, (GREY, across), *rows[:0:-1], (GREY, 100 - 61 - 1)]
    columns = [(GREY, 39), *rows[1:]]
    along = 120 - 2 * width - 2
    assert runs_along(picture[40]) == [*columns, (GREY, along), *columns[:0:-1], (GREY, 224 - 160 - 1)]


@pytest.mark.parametrize(
    ("which", "colour", "width", "edge"), [("predicted", _PREDICTED_COLOUR, 12, 3), ("true", _TRUE_COLOUR, 8, 2)]
)
def test_lines_grow_with_the_picture(which, colour, width, edge):
    line = runs_along(box_on_grey(900, 1200, (300, 200, 900, 700), which)[:, 500])
    assert line[:4] == [(GREY, 200 - edge), (WHITE, edge), (colour, width), (WHITE, edge)]


def test_boxes_at_the_border_or_without_area_are_drawn_too():
    picture = box_on_grey(50, 60, (0, 0, 60, 50), "predicted")
    assert tuple(picture[0, 0]) == tuple(picture[49, 59]) == _PREDICTED_COLOUR
    assert tuple(box_on_grey(50, 60, (30, 20, 30, 20), "predicted")[20, 30]) == _PREDICTED_COLOUR


@pytest.mark.parametrize(
    ("box", "rows", "columns"),
    [
        ((60, 80, 160, 140), slice(66, 80), slice(60, 66)),  # above the box, from its left edge on
        ((60, 5, 160, 60), slice(0, 14), slice(60, 66)),  # no room above: at the top of the image
        ((215, 80, 224, 140), slice(66, 80), slice(185, 191)),  # no room at the right: it ends there
    ],
)
def test_a_label_stands_at_its_box_and_in_the_image(box, rows, columns):
    image, boxes = np.full((150, 224, 3), GREY, np.uint8), [np.array(box, float)]
    bare = with_boxes_drawn(image, predicted=boxes)
    written = with_boxes_drawn(image, predicted=boxes, labels=["cat 97%\n"])
    changed = (written != bare).any(axis=2)
    ys, xs = np.flatnonzero(changed.any(axis=1)), np.flatnonzero(changed.any(axis=0))
    assert ys[0] >= rows.start - 3
    assert ys[-1] < rows.stop
    assert xs[-1] - xs[0] > 40
    assert (written[changed] == _PREDICTED_COLOUR).all(axis=1).mean() > 0.5
    assert (written[changed] == WHITE).all(axis=1).any()
    assert changed[rows, columns].mean() > 0.5


def test_each_box_has_a_label():
    image, box = np.full((150, 224, 3), GREY, np.uint8), np.array((60.0, 80, 160, 140))
    with pytest.raises(ValueError, match="zip"):
        with_boxes_drawn(image, predicted=[box, box], labels=["cat"])
    twice = with_boxes_drawn(image, predicted=[box, box], labels=["elephant", "i"])
    assert np.array_equal(twice, with_boxes_drawn(image, predicted=[box], labels=["elephant"]))
