"""A table of how a training ended."""

from rich.table import Table

from verydeep.presentation.numbers import FINE, counted, decimal, percent
from verydeep.presentation.terminal import table_with
from verydeep.runs.files import QUARANTINE
from verydeep.training.results import TrainingEnd


def training_table(end: TrainingEnd) -> Table:
    """Return the table of the verb `train`."""
    table = table_with(f"{end.network} in {end.run}", left=("after epoch",), right=("loss", "training error, %"))
    table.add_column("validation error, %", justify="right")
    for name, metrics in (("last", end.last), ("best", end.best)):
        table.add_row(
            f"{metrics['epoch']} ({name})",
            decimal(metrics["loss"], 3),
            percent(metrics["training_error"], FINE),
            percent(metrics["validation_error"], FINE),
        )
    if end.unusable:
        table.caption = f"{counted(len(end.unusable), 'image')} could not be used: {end.run}/{QUARANTINE}"
    return table
