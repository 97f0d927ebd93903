"""A box of an image, as read from a file of any kind."""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

from verydeep.images.decode import Size

_LONGEST_QUOTE = 80
"""Characters of a file that a message quotes."""


class Annotation(NamedTuple):
    """One box of a file."""

    image: str
    """Name of the image file, with as much of its path as the file of boxes has."""
    box: tuple[float, float, float, float]
    """(x0, y0, x1, y1), edges in pixels from the upper left corner."""
    class_name: str | None
    """None where the file names none."""
    where: str
    """For messages: `boxes.csv line 118`."""
    difficult: bool = False
    """VOC's word for an object that is hard to recognise, for which finding its class does not count."""
    size: Size | None = None
    """Height and width of the image, where the file has them."""
    crowd: bool = False
    """COCO's word for a box around many objects."""
    relative: bool = False
    """Whether the edges are shares of the image's width and height, 0..1."""


class Listed(NamedTuple):
    """An image that a file lists, with objects or without."""

    image: str
    where: str


def four_numbers(cells: Sequence[Any], where: str) -> tuple[float, float, float, float]:
    """Parse the box of a file.

    Raises:
        ValueError: the cells are something else.
    """
    try:
        x0, y0, x1, y1 = map(float, cells)
    except (TypeError, ValueError, OverflowError):
        raise ValueError(f"{where}: a box is four numbers, not {quoted(cells)}") from None
    return finite((x0, y0, x1, y1), cells, where)


def finite(
    box: tuple[float, float, float, float], cells: Sequence[Any], where: str
) -> tuple[float, float, float, float]:
    """Return the box unchanged.

    Raises:
        ValueError: an edge is infinite or not a number.
    """
    if not all(map(math.isfinite, box)):
        raise ValueError(f"{where}: a box is four finite numbers, not {quoted(cells)}")
    return box


def stated_size(width: Any, height: Any, where: str) -> Size | None:
    """Parse height and width; return None where a file leaves them out or has 0, as some tools write.

    Raises:
        ValueError: they are not numbers.
    """
    try:
        height, width = (int(float(side or 0)) for side in (height, width))
    except (TypeError, ValueError, OverflowError):
        raise ValueError(f"{where}: the size of an image is two numbers, not {quoted([width, height])}") from None
    return (height, width) if height > 0 and width > 0 else None


def quoted(cells: Sequence[Any]) -> str:
    """Return the beginning of a line, for messages."""
    text = ",".join(str(cell)[:_LONGEST_QUOTE] for cell in cells[:_LONGEST_QUOTE])
    text = "".join(character if character.isprintable() else "?" for character in text)
    return text if len(text) <= _LONGEST_QUOTE else f"{text[: _LONGEST_QUOTE - 3]}..."
