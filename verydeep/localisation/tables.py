"""What the verb `localise` prints for people."""

from collections.abc import Mapping, Sequence
from typing import Any

from rich.table import Table
from rich.text import Text

from verydeep.evaluation.tables import comparison_table
from verydeep.presentation.numbers import FINE, decimal, interval, number, percent, share
from verydeep.presentation.pages import shared_folder
from verydeep.presentation.terminal import table_with

WINDOWS = {"dense": "applied densely", "crops": "windows cut out"}


def localisation_tables(found: Mapping[str, Any]) -> list[Table]:
    """Errors of boxes by both tests, as `Localisation.to_dict` gives them, beside the paper's."""
    folder = shared_folder(found["runs"])
    from verydeep.evaluation.paired import Comparison  # which needs NumPy

    table = table_with(
        f"{found['source']}, {found['split']}: {number(found['n'])} images; the true class's box from the centre crop",
        left=("run", "boxes", "learned"),
        right=("error, %", "95% interval", "mean IoU", "paper (D, S = 384), %"),
    )
    for one in found["simplified"]:
        table.add_row(
            Text(one["name"].removeprefix(folder)),
            one["regression"],
            one["learned"] or "–",
            percent(one["error"], FINE),
            interval(one["error_ci95"], FINE),
            decimal(one["mean_iou"], 3),
            percent(one["paper_error"]),
        )
    notes = ["Wrong: an intersection over union with the true box of 0.5 or less. The paper's: Table 8."]
    if folder:
        notes.append(f"The runs are in {folder}")
    table.caption = Text(" ".join(notes))
    pairs = [
        Comparison(**{**pair, **{which: pair[which].removeprefix(folder) for which in ("first", "second")}})
        for pair in found["comparisons"]
    ]
    compared = [comparison_table(pairs, errors="errors of boxes")] if pairs else []
    return [table, *compared, *([_full_table(found, folder)] if found["full"] else [])]


def _full_table(found: Mapping[str, Any], folder: str) -> Table:
    ranked = sorted({scale for its in found["classifier_scales"] for scale in its})
    table = table_with(
        f"Whole images, {WINDOWS[found['windows']]}; classes ranked at Q = {', '.join(map(str, ranked))}",
        left=("run", "Q of boxes"),
        right=("true class, %", "95% interval", "top-1, %", "95% interval", "top-5, %", "95% interval"),
    )
    for one in found["full"]:
        table.add_row(
            Text(one["name"].removeprefix(folder)),
            ", ".join(map(str, one["scales"])),
            percent(one["true_class_error"], FINE),
            interval(one["true_class_error_ci95"], FINE),
            percent(one["top1_error"], FINE),
            interval(one["top1_error_ci95"], FINE),
            percent(one["top5_error"], FINE),
            interval(one["top5_error_ci95"], FINE),
        )
    notes = ["Boxes are merged and rated by class scores. True class: of its box, whatever the image was taken for."]
    if found["full"][0]["top5_error"] is None:
        notes.append("No top-5 error: with five classes or fewer it would be that of the true class.")
    table.caption = Text(" ".join(notes))
    return table


def box_prediction_table(predictions: Sequence[Mapping[str, Any]]) -> Table:
    """The most probable classes of every image, and where they are."""
    table = table_with(None, left=("image", "class"), right=("probability", "x0", "y0", "x1", "y1"))
    for prediction in predictions:
        if prediction["error"]:
            table.add_row(Text(prediction["image"]), Text(prediction["error"]), style="red")
        answers = zip(prediction["classes"], prediction["probabilities"], prediction["boxes"], strict=True)
        for place, (name, probability, box) in enumerate(answers):
            sides = (f"{side:.0f}" for side in box)
            image = "" if place else Text(prediction["image"])
            table.add_row(image, Text(name), share(probability), *sides)
    return table
