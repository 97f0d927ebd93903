"""Images with boxes drawn in."""

from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw

from verydeep.images.box_geometry import Boxes
from verydeep.images.decode import Pixels

TRUE_COLOUR, FOUND_COLOUR = (0, 114, 178), (213, 94, 0)
"""Blue and orange, which every kind of colour vision tells apart."""

THICK, THIN = (1 / 75, 3), (1 / 110, 2)
"""Widths of the lines of a predicted and a true box: a share of an image's shorter side, and the fewest pixels."""

EDGE = 1 / 4
"""Of a line's width, the white edge on either side of it; a pixel at least."""


def with_boxes_drawn(image: Pixels, *, found: Sequence[Boxes], true: Boxes | None = None) -> Pixels:
    """A copy of an image [H, W, 3] with predicted boxes in thick orange lines, and the true one in a thin blue one.

    Boxes are (x0, y0, x1, y1) in pixels. Lines have a white edge, so that they are seen on anything.
    """
    picture = Image.fromarray(np.ascontiguousarray(image))
    pen, side = ImageDraw.Draw(picture), min(image.shape[:2])
    boxes = [(box, FOUND_COLOUR, THICK) for box in found]
    if true is not None:
        boxes.append((true, TRUE_COLOUR, THIN))
    for box, colour, (share, least) in boxes:
        width = max(least, round(share * side))
        margin = max(1, round(EDGE * width))
        x0, y0, x1, y1 = (round(edge) for edge in box.tolist())
        last_x, last_y = max(x0, x1 - 1), max(y0, y1 - 1)
        around = (x0 - margin, y0 - margin, last_x + margin, last_y + margin)
        pen.rectangle(around, outline="white", width=width + 2 * margin)
        pen.rectangle((x0, y0, last_x, last_y), outline=colour, width=width)
    return np.asarray(picture)
