"""Tables of results on other data, and of classifications."""

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from rich.table import Table
from rich.text import Text

from verydeep.numbers import FINE, interval, number, percent, points, trimmed
from verydeep.prediction.tables import table_of_answers
from verydeep.presentation.pages import shared_folder
from verydeep.presentation.terminal import table_with
from verydeep.transfer_learning.paper import MAP, TABLE_11

if TYPE_CHECKING:
    from verydeep.transfer_learning.classify import Classification
    from verydeep.transfer_learning.results import Transfer


def transfer_tables(result: "Transfer") -> list[Table]:
    """Return tables of every descriptor's figures, of their differences, and the paper's Table 11."""
    folder = shared_folder(result.runs)
    differences = [_difference_table(result, folder)] if result.differences else []
    return [_descriptor_table(result, folder), *differences, _paper_table()]


def _descriptor_table(result: "Transfer", folder: str) -> Table:
    by_points = ["by 11 points"] if result.measure == MAP else []
    splits = f", {'in the first of ' if by_points else ''}{result.splits} splits" if result.splits > 1 else ""
    unusable = f", {number(len(result.unusable))} unusable left out" if result.unusable else ""
    table = table_with(
        f"{result.source}: {_images(result)}{splits}{unusable}",
        left=("descriptor",),
        right=("numbers of an image", f"{result.measure}, %", "sd", "95% interval", *by_points, "C"),
    )
    for one in result.descriptors:
        table.add_row(
            Text(one.name.removeprefix(folder)),
            number(one.numbers),
            percent(one.mean, FINE),
            percent(one.mean_sd, FINE),
            interval(one.mean_ci95, FINE),
            *([percent(one.eleven_point_map, FINE)] if by_points else []),
            ", ".join(map(trimmed, one.c)),
        )
    table.caption = Text(" ".join(_notes(result, folder)))
    return table


def _notes(result: "Transfer", folder: str) -> Iterator[str]:
    if result.splits > 1:
        yield "sd: of the splits."
    yield "Interval: by a bootstrap over the test images."
    yield "C: of the SVM, chosen in each split on a fifth of the training images."
    if result.measure == MAP:
        yield "mAP: area under precision over recall, as for VOC-2012; by 11 points, as for VOC-2007."
        yield f"Equal scores for all images have {percent(result.chance, FINE)}."
    if result.copies:
        yield f"Test images that are exact copies of training images: {number(result.copies)}."
    if folder:
        yield f"The runs are in {folder}"


def _images(result: "Transfer") -> str:
    """Write how many images there are, for a title."""
    classes, train, test = len(result.classes), _span(result.train), _span(result.test)
    if result.measure != MAP and result.test_images is None:
        return f"{classes} classes, {train} training and {test} test images of each"
    return (
        f"{classes} classes, {number(result.n_train)} training images ({train} of each class) and "
        f"{number(result.n_test)} test images ({test})"
    )


def _span(numbers: Sequence[int]) -> str:
    fewest, most = min(numbers), max(numbers)
    return number(most) if fewest == most else f"{number(fewest)} to {number(most)}"


def _difference_table(result: "Transfer", folder: str) -> Table:
    table = table_with(
        "Compared on the same images",
        left=("first", "second"),
        right=("difference, points", "95% interval", "in each split"),
    )
    for pair in result.differences:
        table.add_row(
            Text(pair.first.removeprefix(folder)),
            Text(pair.second.removeprefix(folder)),
            points(pair.difference, FINE),
            interval(pair.difference_ci95, FINE, "+"),
            ", ".join(points(one, FINE) for one in pair.differences),
        )
    table.caption = Text(f"First minus second, {result.measure}: above 0 the first is better.")
    return table


def _paper_table() -> Table:
    table = table_with(
        "The paper's Table 11: ILSVRC networks at crop 224, several scales; in percent",
        left=("networks",),
        right=("Caltech-101 recall", "Caltech-256 recall", "VOC-2007 mAP", "VOC-2012 mAP"),
    )
    for row in TABLE_11:
        table.add_row(
            row.networks,
            f"{percent(row.caltech_101)} ± {percent(row.caltech_101_sd)}",
            f"{percent(row.caltech_256)} ± {percent(row.caltech_256_sd)}",
            percent(row.voc_2007),
            percent(row.voc_2012),
        )
    return table


def classification_table(classifications: "Sequence[Classification]") -> Table:
    """Return the classes with the highest scores of every image as a table."""
    table = table_of_answers(classifications, ("score",), lambda one: [(points(score, FINE),) for score in one.scores])
    table.caption = Text("Score: distance from the class's plane in units of its margin; above 0, on its side.")
    return table
