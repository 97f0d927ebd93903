"""A table of how a training ended."""

from collections.abc import Mapping
from typing import Any

from rich.table import Table

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
            f"{figures['loss']:.3f}",
            f"{figures['training_error']:.2f}",
            f"{figures['validation_error']:.2f}",
        )
    if found["unusable"]:
        table.caption = f"{len(found['unusable']):,} images could not be used: {found['run']}/quarantine.jsonl"
    return table
