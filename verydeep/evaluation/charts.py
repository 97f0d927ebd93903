"""Charts of an evaluation's page, as SVG: the confusion matrix and the reliability curve."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Int

from verydeep.evaluation.metrics import Calibration, confusion_matrix
from verydeep.evaluation.results import Evaluation
from verydeep.numbers import decimal, share
from verydeep.presentation.pages import INK, svg_figure
from verydeep.statistics import wilson_interval

BLUE = "#0072b2"

_NUMBERED = 20
"""Most classes that leave room for numbers in the cells."""

_DARKEST = 0.75
"""Opacity of a full cell: dark and light text have a contrast of 4.5 on it (WCAG 2)."""

_LONGEST_NAME = 24
"""Characters of a class name along the axes."""

_CELL, _SMALL_CELL = 0.36, 0.2
"""Sides of cells in inches; 11 points, a line of text, are 0.15."""


def _shade(of_row: float) -> float:
    """Return the opacity of a cell that holds this share of its row: by the root, so that 2% is visible beside 98%."""
    return _DARKEST * float(of_row) ** 0.5


def _confusion_chart(counts: Int[np.ndarray, "K K"], totals: Int[np.ndarray, " K"], names: Sequence[str]) -> str:
    """Draw a cell for every pair of true class (row) and predicted class (column) that occurs.

    Args:
        counts: images of each pair.
        totals: images of each row's class, which may be more than those in the row.
        names: names of the classes.
    """
    k = len(names)
    cell = _CELL if k <= _NUMBERED else _SMALL_CELL
    room = 0.9 + 0.085 * max(map(len, names := [_shortened(name) for name in names]))
    with svg_figure(panel=(cell * k + room, cell * k + room)) as ((panel,), svg):
        from matplotlib.collections import PatchCollection
        from matplotlib.colors import to_rgb
        from matplotlib.patches import Rectangle

        cells = list(zip(*np.nonzero(counts), strict=True))
        shades = [_shade(counts[row, column] / totals[row]) for row, column in cells]
        squares = [Rectangle((column - 0.48, row - 0.48), 0.96, 0.96) for row, column in cells]
        panel.add_collection(PatchCollection(squares, facecolors=[(*to_rgb(BLUE), opacity) for opacity in shades]))
        if k <= _NUMBERED:
            for row, column in cells:
                panel.text(column, row, f"{counts[row, column]}", size=9, ha="center", va="center")
        panel.set(xlim=(-0.5, k - 0.5), ylim=(k - 0.5, -0.5), aspect="equal")
        panel.set(xlabel="predicted class", ylabel="true class")
        panel.set_xticks(range(k), names, rotation=0 if max(map(len, names)) < 4 else 90)
        panel.set_yticks(range(k), names)
        panel.tick_params(length=0)
        panel.spines[:].set_visible(True)
        panel.spines[:].set_alpha(0.3)
    return svg[0]


def reliability_chart(calibration: Calibration) -> str:
    """Draw the accuracy of each bin with its 95% interval against its confidence, and below it the number of images."""
    bins = calibration.bins
    filled = [(b.confidence, b.accuracy, b.n) for b in bins if b.confidence is not None and b.accuracy is not None]
    with svg_figure(rows=2, panel=(5.2, 2.2), sharex=True, height_ratios=(3, 1)) as ((curve, histogram), svg):
        curve.plot([0, 1], [0, 1], color=INK, linestyle="--", linewidth=1, alpha=0.6)
        for confidence, accuracy, n in filled:
            ends = [1 - error / 100 for error in wilson_interval(np.arange(n) >= round(n * accuracy))]
            curve.vlines(confidence, min(ends), max(ends), color=BLUE, alpha=0.5)
        points = [confidence for confidence, _, _ in filled], [accuracy for _, accuracy, _ in filled]
        curve.plot(*points, color=BLUE, marker="o", clip_on=False)
        curve.set(xlim=(0, 1), ylim=(-0.02, 1.02), ylabel="accuracy")
        for b in bins:
            histogram.bar(b.low, b.n, width=0.94 * (b.high - b.low), align="edge", color=BLUE, alpha=0.6)
        histogram.set(xlabel="confidence: probability of the predicted class", ylabel="images")
    return svg[0]


def _shortened(name: str) -> str:
    """Return a name that fits, with escapes in place of bytes that are not text, which Matplotlib refuses."""
    text = " ".join(name.encode(errors="backslashreplace").decode().split())
    half = _LONGEST_NAME // 2
    return text if len(text) <= _LONGEST_NAME else f"{text[:half]}…{text[1 - half :]}"


_DRAWN_CLASSES, _MOST_CONFUSED = 40, 30
"""Most classes that are all drawn, and how many of more, those that are confused most often."""

_LISTED = 12
"""Most pairs of classes in the list."""

_LEGEND_SHARES = (0.01, 0.05, 0.25, 0.5, 1.0)


@dataclass(frozen=True, kw_only=True)
class Confusion:
    """Images of one class that were taken for another."""

    true: str
    predicted: str
    images: int
    share: float
    """Percent of the images of the true class."""


@dataclass(frozen=True, kw_only=True)
class ConfusionFigure:
    """The picture and the list, with the figures that a page gives beside them."""

    chart: str
    """SVG."""
    classes: int
    """Classes among the images or the predictions."""
    drawn: int
    """Classes in the picture."""
    numbered: bool
    """Whether its cells have numbers."""
    legend: tuple[tuple[str, str], ...]
    """(share of the true class's images, opacity of its cell)."""
    pairs: int
    """Pairs of classes that were confused."""
    rows: tuple[Confusion, ...]
    """The most frequent ones."""


def confusion_figure(evaluation: Evaluation) -> ConfusionFigure:
    """Return the confusion matrix of the fused runs, drawn, and its most frequent pairs."""
    images = evaluation.images
    counts = confusion_matrix(images.predicted, images.labels, classes=len(images.classes))
    totals = counts.sum(axis=1)
    wrong = counts - np.diag(counts.diagonal())
    confused = wrong.sum(axis=0) + wrong.sum(axis=1)
    drawn = np.flatnonzero(totals + counts.sum(axis=0))
    classes = len(drawn)
    if classes > _DRAWN_CLASSES:
        drawn = np.sort(np.argsort(-confused, kind="stable")[:_MOST_CONFUSED])
    images_of = {one.name: one.n for one in evaluation.per_class}
    pairs = [
        Confusion(true=true, predicted=other, images=n, share=100 * n / images_of[true])
        for true, other, n in evaluation.confusions
        if true != other
    ]
    return ConfusionFigure(
        chart=_confusion_chart(counts[np.ix_(drawn, drawn)], totals[drawn], [images.classes[i] for i in drawn]),
        classes=classes,
        drawn=len(drawn),
        numbered=len(drawn) <= _NUMBERED,
        legend=tuple((share(of_row, 0), decimal(_shade(of_row), 2)) for of_row in _LEGEND_SHARES),
        pairs=len(pairs),
        rows=tuple(pairs[:_LISTED]),
    )
