"""A table of what was imported."""

from collections.abc import Mapping
from typing import Any

from rich.table import Table
from rich.text import Text

from verydeep.presentation.numbers import number
from verydeep.presentation.terminal import table_with


def import_table(found: Mapping[str, Any]) -> Table:
    """What a run was made of, as `Imported.to_dict` gives it."""
    table = table_with(f"{found['run']}, from {found['file']}", left=("", ""), right=())
    norm = " with batch normalisation" if found["batch_norm"] else ""
    width = "" if found["width"] == 1 else f", width {found['width']:g}"
    rows = {
        "layout": found["layout"],
        "network": f"{found['network']}{norm}{width}, crop {found['crop']}",
        "classes": number(found["classes"]),
        "mean RGB": ", ".join(f"{value:.3f}" for value in found["mean_rgb"]),
        "SHA-256": found["sha256"],
    }
    table.show_header = False
    for name, value in rows.items():
        table.add_row(name, Text(value))
    table.caption = Text(" ".join(f"{note}." for note in found["notes"]))
    return table
