"""Tables of what was exported."""

from typing import TYPE_CHECKING

from rich.table import Table
from rich.text import Text

from verydeep.presentation.numbers import FINE, interval, millions, number, percent, points
from verydeep.presentation.terminal import table_with

if TYPE_CHECKING:  # which import PyTorch
    from verydeep.export.export import Export
    from verydeep.export.weights import WrittenWeights


def export_table(export: "Export") -> Table:
    """Return a table of what was exported, and how it compares with PyTorch."""
    agreement, errors = export.agreement, export.errors
    kind = f"{export.to}, INT8" if export.int8 else export.to
    table = table_with(f"{export.file} ({kind}, {millions(export.bytes)} MB)", left=("against PyTorch",), right=("",))
    table.add_row("images compared", number(agreement.images))
    table.add_row("greatest difference of a score, of the largest", f"{agreement.greatest_difference:.1e}")
    table.add_row("same most probable class", f"{percent(agreement.top1_agreement)}%")
    if errors:
        table.add_row(f"error in float32, {number(errors.images)} images", f"{percent(errors.float32, FINE)}%")
        table.add_row("error in INT8", f"{percent(errors.int8, FINE)}%")
        loss = f"{points(errors.loss, FINE)} ({interval(errors.loss_ci95, FINE, '+')})"
        table.add_row("what INT8 costs, percentage points, 95% interval", loss)
        table.add_row("images wrong in INT8 alone, in float32 alone", f"{number(errors.lost)}, {number(errors.won)}")
        table.add_row("images of which the most probable class changed", number(errors.changed))
    table.caption = Text(f"{export.split} images of {export.source}")
    if export.unusable:
        table.caption.append(f"; {number(len(export.unusable))} images could not be used")
    return table


def weights_table(weights: "WrittenWeights") -> Table:
    """Return a table of weights for another library, and how that library must prepare images."""
    table = table_with(f"{weights.file}: {weights.layout}'s {weights.network}", left=("images",), right=("R", "G", "B"))
    table.add_row("mean, of RGB in 0..1", *(f"{value:.4g}" for value in weights.mean))
    table.add_row("then divided by", *(f"{value:.4g}" for value in weights.std))
    table.caption = Text("\n".join(weights.notes))
    return table
