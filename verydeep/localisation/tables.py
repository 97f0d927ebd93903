"""Tables of tests of boxes, and of predictions."""

from collections.abc import Sequence
from itertools import chain
from typing import TYPE_CHECKING

from rich.table import Table
from rich.text import Text

from verydeep.evaluation.tables import comparison_table
from verydeep.numbers import FINE, MISSING, counted, decimal, interval, number, percent, share
from verydeep.prediction.tables import table_of_answers
from verydeep.presentation.pages import shared_folder
from verydeep.presentation.terminal import table_with

if TYPE_CHECKING:  # which import PyTorch
    from verydeep.localisation.predict import BoxPrediction
    from verydeep.localisation.results import Localisation

_WINDOWS = {"dense": "applied densely", "crops": "windows cut out"}


def localisation_tables(localisation: "Localisation") -> list[Table]:
    """Return tables of the errors by both tests, beside the paper's, and of how runs compare."""
    folder = shared_folder(localisation.runs)
    tables = [_simplified_table(localisation, folder)]
    if localisation.comparisons:
        tables.append(comparison_table(localisation.comparisons, errors="errors of boxes", folder=folder))
    if localisation.full:
        tables.append(_full_table(localisation, folder))
    return tables


def _simplified_table(localisation: "Localisation", folder: str) -> Table:
    images = counted(localisation.n, "image")
    table = table_with(
        f"{localisation.source}, {localisation.split}: {images}; the true class's box from the centre crop",
        left=("run", "boxes", "learned"),
        right=("error, %", "95% interval", "mean IoU", "paper (D, S = 384), %"),
    )
    for one in localisation.simplified:
        table.add_row(
            Text(one.name.removeprefix(folder)),
            one.regression,
            one.learned or MISSING,
            percent(one.error, FINE),
            interval(one.error_ci95, FINE),
            decimal(one.mean_iou, 3),
            percent(one.paper_error),
        )
    notes = ["Wrong: an intersection over union with the true box of 0.5 or less. The paper's: Table 8."]
    if folder:
        notes.append(f"The runs are in {folder}")
    table.caption = Text(" ".join(notes))
    return table


def _full_table(localisation: "Localisation", folder: str) -> Table:
    assert localisation.windows is not None
    ranked = sorted({scale for its in localisation.classifier_scales for scale in its})
    table = table_with(
        f"Whole images, {_WINDOWS[localisation.windows]}; classes ranked at Q = {', '.join(map(str, ranked))}",
        left=("run", "Q of boxes"),
        right=("true class, %", "95% interval", "top-1, %", "95% interval", "top-5, %", "95% interval"),
    )
    for one in localisation.full:
        errors = (one.true_class_error, one.top1_error, one.top5_error)
        intervals = (one.true_class_error_ci95, one.top1_error_ci95, one.top5_error_ci95)
        written = [(percent(error, FINE), interval(ci95, FINE)) for error, ci95 in zip(errors, intervals, strict=True)]
        table.add_row(Text(one.name.removeprefix(folder)), ", ".join(map(str, one.scales)), *chain(*written))
    notes = ["Boxes are merged and rated by class scores. True class: of its box, whichever class was predicted."]
    if missing := localisation.n - localisation.full[0].n:
        images = counted(localisation.n, "image")
        notes.append(f"{number(missing)} of {images} cannot be used at these scales, and count above alone.")
    if localisation.full[0].top5_error is None:
        notes.append("No top-5 error: with five classes or fewer it would be that of the true class.")
    table.caption = Text(" ".join(notes))
    return table


def box_prediction_table(predictions: "Sequence[BoxPrediction]") -> Table:
    """Return a table of the most probable classes of every image, and where they are."""
    return table_of_answers(
        predictions,
        ("probability", "x0", "y0", "x1", "y1"),
        lambda one: [
            (share(probability), *(decimal(side, 0) for side in box))
            for probability, box in zip(one.probabilities, one.boxes, strict=True)
        ],
    )
