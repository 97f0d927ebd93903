"""A table of predictions."""

from collections.abc import Mapping, Sequence
from typing import Any

from rich.table import Table
from rich.text import Text

from verydeep.presentation.numbers import share
from verydeep.presentation.terminal import table_with


def prediction_table(predictions: Sequence[Mapping[str, Any]]) -> Table:
    """The most probable classes of every image."""
    table = table_with(None, left=("image", "class"), right=("probability",))
    for prediction in predictions:
        if prediction["error"]:
            table.add_row(Text(prediction["image"]), Text(prediction["error"]), "", style="red")
        pairs = zip(prediction["classes"], prediction["probabilities"], strict=True)
        for place, (name, probability) in enumerate(pairs):
            table.add_row("" if place else Text(prediction["image"]), Text(name), share(probability))
    return table
