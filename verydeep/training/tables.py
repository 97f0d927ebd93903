"""A table of how a training ended."""

from collections.abc import Mapping
from typing import Any

from rich.table import Table

from verydeep.presentation.numbers import FINE, decimal, number, percent
from verydeep.presentation.terminal import table_with


def training_table(found: Mapping[str, Any]) -> Table:
    """The end of a training, as the verb `train` gives it."""
    table = table_with(
        f"{found['network']} in {found['run']}", left=("after epoch",), right=("loss", "training error, %")
    )
    table.add_column("validation error, %", justify="right")
    for name, figures in (("last", found["last"]), ("best", found["best"])):
        table.add_row(
            f"{figures['epoch']} ({name})",
            decimal(figures["loss"], 3),
            percent(figures["training_error"], FINE),
            percent(figures["validation_error"], FINE),
        )
    if found["unusable"]:
        table.caption = f"{number(len(found['unusable']))} images could not be used: {found['run']}/quarantine.jsonl"
    return table
