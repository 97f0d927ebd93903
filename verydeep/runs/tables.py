"""A table of what was imported."""

from typing import TYPE_CHECKING

from rich.table import Table
from rich.text import Text

from verydeep.presentation.numbers import number
from verydeep.presentation.terminal import table_with

if TYPE_CHECKING:  # which imports PyTorch
    from verydeep.runs.import_weights import Imported


def import_table(imported: "Imported") -> Table:
    """Return a table of what a run was made of."""
    table = table_with(f"{imported.run}, from {imported.file}", left=("", ""), right=())
    norm = " with batch normalisation" if imported.batch_norm else ""
    width = "" if imported.width == 1 else f", width {imported.width:g}"
    rows = {
        "layout": imported.layout,
        "network": f"{imported.network}{norm}{width}, crop {imported.crop}",
        "classes": number(imported.classes),
        "mean RGB": ", ".join(f"{value:.3f}" for value in imported.mean_rgb),
        "SHA-256": imported.sha256,
    }
    table.show_header = False
    for name, value in rows.items():
        table.add_row(name, Text(value))
    table.caption = Text(" ".join(f"{note}." for note in imported.notes))
    return table
