"""One picture of the most confident errors: each image with its true class, the predicted one and its probability."""

import math
from collections.abc import Sequence
from pathlib import Path, PurePath

import numpy as np
from PIL import Image, ImageDraw

from verydeep.evaluation.example_images import most_confident_errors
from verydeep.evaluation.results import Evaluation, TestedImages
from verydeep.evaluation.score_maps import LONGER_SIDE, positions_of, thumbnail
from verydeep.images.decode import Pixels
from verydeep.images.open import open_for_testing
from verydeep.images.sources.source import Source
from verydeep.images.sources.splits import Splits
from verydeep.numbers import number, share
from verydeep.presentation.lettering import fitting_lines, font_for

_MOST_IMAGES = 48
"""Images of a sheet by default."""

_COLUMNS, _GAP = 6, 12
"""Images in a row, and pixels between them."""

_LETTERS, _TITLE_LETTERS = 14, 20
"""Heights of letters in pixels."""

_LINE = 19
"""Pixels from one line of a caption to the next, of three."""

_INK, _FAINT, _PAPER = (33, 33, 33), (100, 100, 100), (255, 255, 255)


def contact_sheet(evaluation: Evaluation, *, data: str | Path | Splits, most: int = _MOST_IMAGES) -> Image.Image:
    """Return a picture of the wrong images of an evaluation, those with the highest probability of a wrong class first.

    Args:
        evaluation: result of `evaluate`.
        data: as it was given to `evaluate`; images are read from it once more.
        most: images on the sheet.

    Raises:
        ValueError: `data` is not the source that was tested, or `most` is below 1.
        UnusableImageError: an image can no longer be used.
    """
    if most < 1:
        raise ValueError(f"a sheet has 1 image or more, not {most}")
    source = open_for_testing(data, evaluation.images.classes).source(evaluation.split)
    return sheet_of(evaluation, source, most)


def sheet_of(evaluation: Evaluation, source: Source, most: int = _MOST_IMAGES) -> Image.Image:
    """Return the sheet of an evaluation, given the split that was tested.

    Raises:
        ValueError: `source` is not the source that was tested.
        UnusableImageError: an image can no longer be used.
    """
    images, wrong = evaluation.images, most_confident_errors(evaluation.images)
    shown, places = wrong[:most], positions_of(source, images.ids)
    high, top = LONGER_SIDE + 3 * _LINE + _GAP, 2 * _TITLE_LETTERS + _GAP
    size = _GAP + _COLUMNS * (LONGER_SIDE + _GAP), top + high * math.ceil(len(shown) / _COLUMNS)
    sheet = Image.new("RGB", size, _PAPER)
    counts = f"{number(len(shown))} of {number(len(wrong))} wrong images among {number(evaluation.n)}"
    _write(sheet, (_GAP, _GAP), f"{counts}: the most confident first", _TITLE_LETTERS, width=sheet.width - 2 * _GAP)
    for place, index in enumerate(shown):
        row, column = divmod(place, _COLUMNS)
        at = _GAP + column * (LONGER_SIDE + _GAP), top + row * high
        _paste(sheet, at, thumbnail(source, places[index]), _caption(images, index))
    return sheet


def _caption(images: TestedImages, index: int) -> tuple[str, ...]:
    predicted, true = images.predicted[index], images.labels[index]
    taken_for = f"{share(float(images.posteriors[index, predicted]))} {images.classes[predicted]}"
    return taken_for, f"true: {images.classes[true]}", PurePath(images.ids[index]).name


def _paste(sheet: Image.Image, at: tuple[int, int], pixels: Pixels, caption: Sequence[str]) -> None:
    """Put an image onto a sheet, its lower edge at the same height for all of a row, and its caption below it."""
    left, top = at
    picture = Image.fromarray(np.ascontiguousarray(pixels))
    sheet.paste(picture, (left + (LONGER_SIDE - picture.width) // 2, top + LONGER_SIDE - picture.height))
    for row, line in enumerate(caption):
        place = (left, top + LONGER_SIDE + 2 + row * _LINE)
        _write(sheet, place, line, _LETTERS, width=LONGER_SIDE, faint=row == len(caption) - 1)


def _write(
    sheet: Image.Image, at: tuple[int, int], text: str, letters: int, *, width: int, faint: bool = False
) -> None:
    """Write a line that is cut off where there is no room for more."""
    font, shown = font_for(" ".join(text.split()), letters)
    for line in fitting_lines(shown, font, width, most=1):
        ImageDraw.Draw(sheet).text(at, line, fill=_FAINT if faint else _INK, font=font)
