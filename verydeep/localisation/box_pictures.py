"""Boxes drawn into images, alike on pages and in predictions."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, UInt8
from PIL import Image, ImageDraw

from verydeep.presentation.lettering import font_for

_TRUE_COLOUR, _PREDICTED_COLOUR = (0, 114, 178), (213, 94, 0)
"""Blue and orange, which every kind of colour vision tells apart."""

_THICK, _THIN = (1 / 75, 3), (1 / 110, 2)
"""Widths of the lines of a predicted and a true box: share of an image's shorter side, and fewest pixels."""

_EDGE = 1 / 4
"""Width of the white edge on either side of a line: share of the line's width, a pixel at least."""

_LETTERS = (1 / 25, 11)
"""Height of letters: share of an image's shorter side, and fewest pixels."""


def with_boxes_drawn(
    image: UInt8[np.ndarray, "H W 3"],
    *,
    predicted: Sequence[Float[np.ndarray, "4"]],
    true: Float[np.ndarray, "4"] | None = None,
    labels: Sequence[str] = (),
) -> UInt8[np.ndarray, "H W 3"]:
    """Draw predicted boxes in thick orange lines, and the true one in a thin blue one, into a copy of an image.

    Boxes are (x0, y0, x1, y1) in pixels. Lines have a white edge, so that they are seen on anything. `labels`, one for
    each predicted box, are written above the boxes, or in them where the image ends.
    """
    picture = Image.fromarray(np.ascontiguousarray(image))
    pen, side = ImageDraw.Draw(picture), min(image.shape[:2])
    boxes = [(box, _PREDICTED_COLOUR, _THICK) for box in predicted]
    if true is not None:
        boxes.append((true, _TRUE_COLOUR, _THIN))
    for box, colour, (share, least) in boxes:
        width = max(least, round(share * side))
        margin = max(1, round(_EDGE * width))
        x0, y0, x1, y1 = (round(edge) for edge in box.tolist())
        last_x, last_y = max(x0, x1 - 1), max(y0, y1 - 1)
        around = (x0 - margin, y0 - margin, last_x + margin, last_y + margin)
        pen.rectangle(around, outline="white", width=width + 2 * margin)
        pen.rectangle((x0, y0, last_x, last_y), outline=colour, width=width)
    for box, label in reversed(list(zip(predicted, labels, strict=bool(labels)))):  # the first lies on top
        _write(pen, " ".join(label.split()), box, picture.size)
    return np.asarray(picture)


def _write(pen: ImageDraw.ImageDraw, label: str, box: Float[np.ndarray, "4"], size: tuple[int, int]) -> None:
    share, least = _LETTERS
    height = max(least, round(share * min(size)))
    font, shown = font_for(label, height)
    ascent, descent = font.getmetrics()
    border = max(2, height // 5)
    wide, high = round(font.getlength(shown)) + 2 * border, ascent + descent
    left = max(0, min(round(box[0]), size[0] - wide))
    top = max(0, round(box[1]) - high)
    pen.rectangle((left, top, left + wide - 1, top + high - 1), fill=_PREDICTED_COLOUR)
    pen.text((left + border, top), shown, fill="white", font=font)
