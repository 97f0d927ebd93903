"""A table of predictions."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from rich.table import Table
from rich.text import Text

from verydeep.presentation.numbers import share
from verydeep.presentation.terminal import table_with

if TYPE_CHECKING:
    from verydeep.prediction.predict import Prediction


def prediction_table(predictions: "Sequence[Prediction]") -> Table:
    """Return the most probable classes of every image as a table."""
    table = table_with(None, left=("image", "class"), right=("probability",))
    for one in predictions:
        if one.error:
            table.add_row(Text(one.image), Text(one.error), "", style="red")
        for rank, (name, probability) in enumerate(zip(one.classes, one.probabilities, strict=True)):
            table.add_row("" if rank else Text(one.image), Text(name), share(probability))
    return table
