"""The confusion matrix of an evaluation as a page shows it: a picture and the most frequent confusions."""

from dataclasses import dataclass

import numpy as np

from verydeep.evaluation.charts import NUMBERED, confusion_chart, shade
from verydeep.evaluation.metrics import confusion_matrix
from verydeep.evaluation.results import Evaluation

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
    """The picture and the list, with what a page says about them."""

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
        chart=confusion_chart(counts[np.ix_(drawn, drawn)], totals[drawn], [images.classes[i] for i in drawn]),
        classes=classes,
        drawn=len(drawn),
        numbered=len(drawn) <= NUMBERED,
        legend=tuple((f"{100 * share:.0f}%", f"{shade(share):.2f}") for share in _LEGEND_SHARES),
        pairs=len(pairs),
        rows=tuple(pairs[:_LISTED]),
    )
