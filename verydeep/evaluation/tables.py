"""Tables of evaluations and of how they compare."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from rich.table import Table
from rich.text import Text

from verydeep.evaluation.protocols import PROTOCOLS
from verydeep.numbers import FINE, MISSING, counted, interval, number, percent, points, significant
from verydeep.presentation.terminal import SHOWN, table_with

if TYPE_CHECKING:  # which import NumPy
    from verydeep.evaluation.results import Evaluation
    from verydeep.statistics import Comparison


def evaluation_tables(evaluation: "Evaluation") -> list[Table]:
    """Return tables of the errors of runs and of their fusion, of how they compare, and of the worst classes."""
    compared = [comparison_table(evaluation.comparisons)] if evaluation.comparisons else []
    return [_error_table(evaluation), *compared, *_worst_classes(evaluation)]


def _error_table(evaluation: "Evaluation") -> Table:
    several = len(evaluation.per_run) > 1
    table = table_with(
        f"{evaluation.source}, {evaluation.split}: {counted(evaluation.n, 'image')}, {PROTOCOLS[evaluation.protocol]}"
        + (f" on the grid by {evaluation.grid}" if evaluation.grid not in (None, "centred") else ""),
        left=("run", "test Q"),
        right=("top-1 error, %", "95% interval", "class balanced", "top-5 error, %", "95% interval"),
    )
    for errors in [*evaluation.per_run, *([evaluation.fused] if several else [])]:
        table.add_row(
            Text(errors.name),
            ", ".join(map(str, errors.scales)),
            percent(errors.top1_error, FINE),
            interval(errors.top1_error_ci95, FINE),
            percent(errors.class_balanced_error, FINE),
            percent(errors.top5_error, FINE),
            interval(errors.top5_error_ci95, FINE),
        )
    if evaluation.unusable:
        table.title = Text(f"{table.title}, without {number(len(evaluation.unusable))} that cannot be used")
    calibration = percent(evaluation.calibration.expected_calibration_error, FINE)
    fused = " of the fused runs" if several else ""
    balanced = "Class-balanced: the mean of the classes' top-1 errors."
    calibrated = f"Expected calibration error{fused} {calibration}%."
    table.caption = Text(" ".join([balanced, calibrated, *evaluation.notes]))
    return table


def comparison_table(comparisons: Sequence["Comparison"], *, errors: str = "top-1 errors", folder: str = "") -> Table:
    """Return a table of pairs of results on the same images; `folder`, which all are in, is left out."""
    table = table_with(
        f"Compared on the same {counted(comparisons[0].n, 'image')}",
        left=("first", "second"),
        right=("difference, points", "95% interval", "only first wrong", "only second wrong", "p"),
    )
    for pair in comparisons:
        table.add_row(
            Text(pair.first.removeprefix(folder)),
            Text(pair.second.removeprefix(folder)),
            points(pair.difference, FINE),
            interval(pair.difference_ci95, FINE, "+"),
            number(pair.only_first_wrong),
            number(pair.only_second_wrong),
            significant(pair.p_value),
        )
    table.caption = Text(
        f"Difference of the {errors}, first minus second: below 0 the first errs less. Exact McNemar test"
        + (", not corrected for several comparisons." if len(comparisons) > 1 else ".")
    )
    return table


def _worst_classes(evaluation: "Evaluation") -> list[Table]:
    """Return a table of the classes with the highest error and their most frequent confusions, if any is wrong."""
    taken_for: dict[str, str] = {}
    for true, predicted, images in evaluation.confusions:
        if true != predicted:
            taken_for.setdefault(true, f"{predicted} ({number(images)})")
    if not taken_for:
        return []
    worst = sorted(evaluation.per_class, key=lambda one: -one.top1_error)[:SHOWN]
    table = table_with(
        "Classes with the highest error" if len(worst) < len(evaluation.per_class) else "Error of each class",
        left=("class", "most often taken for"),
        right=("images", "top-1 error, %", "95% interval"),
    )
    for one in worst:
        table.add_row(
            Text(one.name),
            Text(taken_for.get(one.name, MISSING)),
            number(one.n),
            percent(one.top1_error, FINE),
            interval(one.top1_error_ci95, FINE),
        )
    return [table]
