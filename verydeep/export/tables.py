"""Tables of what was exported."""

from collections.abc import Mapping
from typing import Any

from rich.table import Table
from rich.text import Text

from verydeep.presentation.numbers import interval, points
from verydeep.presentation.terminal import table_with


def export_table(found: Mapping[str, Any]) -> Table:
    """What was exported, and how it compares with PyTorch, as the verb `export` gives it."""
    agreement, errors = found["agreement"], found["errors"]
    kind = f"{found['to']}, INT8" if found["int8"] else found["to"]
    table = table_with(
        f"{found['file']} ({kind}, {found['bytes'] / 1e6:,.1f} MB)", left=("against PyTorch",), right=("",)
    )
    table.add_row("images compared", f"{agreement['images']:,}")
    table.add_row("greatest difference of a score, of the largest", f"{agreement['greatest_difference']:.1e}")
    table.add_row("same most probable class", f"{agreement['top1_agreement']:.1f}%")
    if errors:
        table.add_row(f"error in float32, {errors['images']:,} images", f"{errors['float32']:.2f}%")
        table.add_row("error in INT8", f"{errors['int8']:.2f}%")
        loss = f"{points(errors['loss'], 2)} ({interval(errors['loss_ci95'], 2, '+')})"
        table.add_row("what INT8 costs, percentage points, 95% interval", loss)
        table.add_row("images wrong in INT8 alone, in float32 alone", f"{errors['lost']:,}, {errors['won']:,}")
        table.add_row("images of which the most probable class changed", f"{errors['changed']:,}")
    table.caption = Text(f"{found['split']} images of {found['source']}")
    if found["unusable"]:
        table.caption.append(f"; {len(found['unusable']):,} images could not be used")
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
