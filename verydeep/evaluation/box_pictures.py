"""Images with boxes drawn in."""

from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw

from verydeep.images.box_geometry import Boxes
from verydeep.images.decode import Pixels

TRUE_COLOUR, FOUND_COLOUR = (0, 114, 178), (213, 94, 0)
"""Blue and orange, which every kind of colour vision tells apart."""

THICK, THIN = 120, 240
"""Parts of an image's shorter side that lines of a predicted and a true box are wide; 3 and 1 pixels at least."""


def with_boxes_drawn(image: Pixels, *, found: Sequence[Boxes], true: Boxes | None = None) -> Pixels:
    """A copy of an image [H, W, 3] with predicted boxes in thick orange lines, and the true one in a thin blue one.

    Boxes are (x0, y0, x1, y1) in pixels. Lines have a white edge, so that they are seen on anything.
    """
    picture = Image.fromarray(np.ascontiguousarray(image))
    pen, side = ImageDraw.Draw(picture), min(image.shape[:2])
    boxes = [(box, FOUND_COLOUR, max(3, side // THICK)) for box in found]
    if true is not None:
        boxes.append((true, TRUE_COLOUR, max(1, side // THIN)))
    for box, colour, width in boxes:
        x0, y0, x1, y1 = (round(edge) for edge in box.tolist())
        last_x, last_y = max(x0, x1 - 1), max(y0, y1 - 1)
        pen.rectangle((x0 - 1, y0 - 1, last_x + 1, last_y + 1), outline="white", width=width + 2)
        pen.rectangle((x0, y0, last_x, last_y), outline=colour, width=width)
    return np.asarray(picture)
