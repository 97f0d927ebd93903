"""A table of what the grid would train."""

from collections.abc import Mapping
from typing import Any

from rich.table import Table
from rich.text import Text

from verydeep.presentation.numbers import billions, duration
from verydeep.presentation.terminal import table_with


def plan_table(found: Mapping[str, Any]) -> Table:
    """What the grid would train, as the verb `reproduce --dry-run` gives it."""
    seeds, table = (
        found["seeds"],
        table_with("What would be trained", left=("training", "starts from"), right=("epochs",)),
    )
    for column in ("time", "memory"):
        table.add_column(column, justify="right")
    for one in found["trainings"]:
        table.add_row(
            one["training"],
            one["start"] or "random weights",
            f"at most {one['epochs']}",
            "already trained" if one["trained"] else f"at most {duration(one['seconds'])}",
            f"{billions(one['memory_bytes'])} GB",
        )
    seconds = sum(one["seconds"] for one in found["trainings"] if not one["trained"])
    more = sum(one["seconds"] for one in found["trainings"]) * (seeds - 1)
    table.add_section()
    table.add_row("all" if seeds == 1 else f"all, {seeds} seeds", "", "", f"at most {duration(seconds + more)}", "")
    table.caption = Text(f"Measured on a few images. {seeds * found['tests']} tests come on top.")
    return table
