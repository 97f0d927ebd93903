"""Table of what the grid would train."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from rich.table import Table
from rich.text import Text

from verydeep.presentation.numbers import billions, duration
from verydeep.presentation.terminal import table_with

if TYPE_CHECKING:  # which imports PyTorch
    from verydeep.reproduction.estimate import Estimate


def plan_table(estimates: "Sequence[Estimate]", *, seeds: int, tests: int) -> Table:
    """Return a table of the trainings of a grid with their costs, and of what all seeds cost together."""
    table = table_with("What would be trained", left=("training", "starts from"), right=("epochs", "time", "memory"))
    for one in estimates:
        table.add_row(
            one.training,
            one.start or "random weights",
            f"at most {one.epochs}",
            "already trained" if one.trained else f"at most {duration(one.seconds)}",
            f"{billions(one.memory_bytes)} GB",
        )
    first = sum(one.seconds for one in estimates if not one.trained)
    others = (seeds - 1) * sum(one.seconds for one in estimates)
    table.add_section()
    table.add_row("all" if seeds == 1 else f"all, {seeds} seeds", "", "", f"at most {duration(first + others)}", "")
    table.caption = Text(f"Measured on a few images. {seeds * tests} tests come on top.")
    return table
