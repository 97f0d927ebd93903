"""Tables of what was exported."""

from collections.abc import Mapping
from typing import Any

from rich.table import Table
from rich.text import Text

from verydeep.presentation.numbers import FINE, interval, millions, number, percent, points
from verydeep.presentation.terminal import table_with


def export_table(found: Mapping[str, Any]) -> Table:
    """What was exported, and how it compares with PyTorch, as the verb `export` gives it."""
    agreement, errors = found["agreement"], found["errors"]
    kind = f"{found['to']}, INT8" if found["int8"] else found["to"]
    table = table_with(
        f"{found['file']} ({kind}, {millions(found['bytes'])} MB)", left=("against PyTorch",), right=("",)
    )
    table.add_row("images compared", number(agreement["images"]))
    table.add_row("greatest difference of a score, of the largest", f"{agreement['greatest_difference']:.1e}")
    table.add_row("same most probable class", f"{percent(agreement['top1_agreement'])}%")
    if errors:
        table.add_row(f"error in float32, {number(errors['images'])} images", f"{percent(errors['float32'], FINE)}%")
        table.add_row("error in INT8", f"{percent(errors['int8'], FINE)}%")
        loss = f"{points(errors['loss'], FINE)} ({interval(errors['loss_ci95'], FINE, '+')})"
        table.add_row("what INT8 costs, percentage points, 95% interval", loss)
        table.add_row(
            "images wrong in INT8 alone, in float32 alone", f"{number(errors['lost'])}, {number(errors['won'])}"
        )
        table.add_row("images of which the most probable class changed", number(errors["changed"]))
    table.caption = Text(f"{found['split']} images of {found['source']}")
    if found["unusable"]:
        table.caption.append(f"; {number(len(found['unusable']))} images could not be used")
    return table


def weights_table(found: Mapping[str, Any]) -> Table:
    """Weights for another library, and how it has to show them images, as the verb `export` gives it."""
    table = table_with(
        f"{found['file']}: {found['layout']}'s {found['network']}", left=("images",), right=("R", "G", "B")
    )
    table.add_row("mean, of RGB in 0..1", *(f"{value:.4g}" for value in found["mean"]))
    table.add_row("then divided by", *(f"{value:.4g}" for value in found["std"]))
    table.caption = Text("\n".join(found["notes"]))
    return table
