"""What files of boxes say of images, whatever kind they are of."""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

from verydeep.images.decode import Size

LONGEST_QUOTE = 80
"""Characters of a file that a message repeats."""


class Annotation(NamedTuple):
    """One box as a file has it."""

    image: str
    """Name of the image file, with as much of its path as the file of boxes says."""
    box: tuple[float, float, float, float]
    """(x0, y0, x1, y1), edges in pixels from the upper left corner."""
    class_name: str | None
    """None where the file does not say."""
    where: str
    """`boxes.csv line 118`, say."""
    difficult: bool = False
    """So VOC calls an object that is hard to recognise: whether its class was found does not count."""
    size: Size | None = None
    """Height and width of the image, where the file says them."""
    crowd: bool = False
    """So COCO calls a box around many objects."""


class Listed(NamedTuple):
    """An image that a file knows, with objects or without."""

    image: str
    where: str


def four_numbers(cells: Sequence[Any], where: str) -> tuple[float, float, float, float]:
    """A box as a file writes it.

    Raises:
        ValueError: it is something else.
    """
    try:
        x0, y0, x1, y1 = map(float, cells)
    except (TypeError, ValueError, OverflowError):
        raise ValueError(f"{where}: a box is four numbers, not {quoted(cells)}") from None
    return finite((x0, y0, x1, y1), cells, where)


def finite(
    box: tuple[float, float, float, float], cells: Sequence[Any], where: str
) -> tuple[float, float, float, float]:
    """The same box.

    Raises:
        ValueError: an edge is infinite or not a number.
    """
    if not all(map(math.isfinite, box)):
        raise ValueError(f"{where}: a box is four finite numbers, not {quoted(cells)}")
    return box


def stated_size(width: Any, height: Any, where: str) -> Size | None:
    """Height and width as a file writes them; None where it leaves them out or says 0, as some tools do.

    Raises:
        ValueError: they are something else than numbers.
    """
    try:
        height, width = (int(float(side or 0)) for side in (height, width))
    except (TypeError, ValueError, OverflowError):
        raise ValueError(f"{where}: the size of an image is two numbers, not {quoted([width, height])}") from None
    return (height, width) if height > 0 and width > 0 else None


def quoted(cells: Sequence[Any]) -> str:
    """The beginning of a line, for messages."""
    text = ",".join(str(cell)[:LONGEST_QUOTE] for cell in cells[:LONGEST_QUOTE])
    text = "".join(character if character.isprintable() else "?" for character in text)
    return text if len(text) <= LONGEST_QUOTE else f"{text[: LONGEST_QUOTE - 3]}..."
