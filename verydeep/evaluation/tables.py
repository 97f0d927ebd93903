"""Tables of what tests found."""

from collections.abc import Mapping, Sequence
from typing import Any

from rich.table import Table
from rich.text import Text

from verydeep.evaluation.protocols import PROTOCOLS
from verydeep.presentation.numbers import interval, percent, points
from verydeep.presentation.terminal import SHOWN, table_with


def evaluation_tables(found: Mapping[str, Any]) -> list[Table]:
    """Errors of runs and of their fusion, how they compare, and of which classes they are; `Evaluation.to_dict`."""
    table = table_with(
        f"{found['source']}, {found['split']}: {found['n']:,} images, {PROTOCOLS[found['protocol']]}",
        left=("run", "test Q"),
        right=("top-1 error, %", "95% interval", "top-5 error, %", "95% interval"),
    )
    fused = [{**found, "name": "fused"}] if len(found["per_run"]) > 1 else []
    for errors in [*found["per_run"], *fused]:
        table.add_row(
            Text(errors["name"]),
            ", ".join(map(str, errors["scales"])),
            f"{errors['top1_error']:.2f}",
            interval(errors["top1_error_ci95"], 2),
            percent(errors["top5_error"], 2),
            interval(errors["top5_error_ci95"], 2),
        )
    if found["unusable"]:
        table.title = Text(f"{table.title}, without {len(found['unusable']):,} that cannot be used")
    calibration = (
        f"Expected calibration error{' of the fused runs' if fused else ''} "
        f"{found['calibration']['expected_calibration_error']:.2f}%."
    )
    table.caption = Text(" ".join([calibration, *found["notes"]]))
    compared = [comparison_table(found["comparisons"])] if found["comparisons"] else []
    return [table, *compared, *_worst_classes(found)]


def comparison_table(comparisons: Sequence[Mapping[str, Any]], *, errors: str = "top-1 errors") -> Table:
    """Pairs of results on the same images, as `Comparison.to_dict` gives them."""
    table = table_with(
        f"Compared on the same {comparisons[0]['n']:,} images",
        left=("first", "second"),
        right=("difference, points", "95% interval", "only first wrong", "only second wrong", "p"),
    )
    for pair in comparisons:
        table.add_row(
            Text(pair["first"]),
            Text(pair["second"]),
            points(pair["difference"], 2),
            interval(pair["difference_ci95"], 2, "+"),
            f"{pair['only_first_wrong']:,}",
            f"{pair['only_second_wrong']:,}",
            f"{pair['p_value']:.2g}",
        )
    table.caption = Text(
        f"Difference of the {errors}, first minus second: below 0 the first errs less. Exact McNemar test"
        + (", not corrected for several comparisons." if len(comparisons) > 1 else ".")
    )
    return table


def _worst_classes(found: Mapping[str, Any]) -> list[Table]:
    """The classes with the highest error, and what they are most often taken for; nothing where nothing is wrong."""
    taken_for: dict[str, str] = {}
    for pair in found["confusions"]:
        if pair["true"] != pair["predicted"]:
            taken_for.setdefault(pair["true"], f"{pair['predicted']} ({pair['images']:,})")
    worst = sorted(found["per_class"], key=lambda one: -one["top1_error"])[:SHOWN]
    if not taken_for:
        return []
    table = table_with(
        "Classes with the highest error" if len(worst) < len(found["per_class"]) else "Error of each class",
        left=("class", "most often taken for"),
        right=("images", "top-1 error, %", "95% interval"),
    )
    for one in worst:
        table.add_row(
            Text(one["name"]),
            Text(taken_for.get(one["name"], "–")),
            f"{one['n']:,}",
            f"{one['top1_error']:.2f}",
            interval(one["top1_error_ci95"], 2),
        )
    return [table]
