"""Tables of predictions."""

from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any

from rich.table import Table
from rich.text import Text

from verydeep.numbers import share
from verydeep.presentation.terminal import table_with

if TYPE_CHECKING:
    from verydeep.prediction.predict import Prediction


def prediction_table(predictions: "Sequence[Prediction]") -> Table:
    """Return the most probable classes of every image as a table."""
    return table_of_answers(predictions, ("probability",), lambda one: [(share(value),) for value in one.probabilities])


def table_of_answers(
    answers: Sequence[Any], columns: Sequence[str], numbers: Callable[[Any], Iterable[Sequence[str]]]
) -> Table:
    """Return a table with a line for each class of every image, or with the reason why it cannot be used.

    Args:
        answers: `Prediction`s, `Classification`s or `BoxPrediction`s.
        columns: names of the numbers beside a class.
        numbers: writes those of an answer, for each of its classes.
    """
    table = table_with(None, left=("image", "class"), right=columns)
    for one in answers:
        if one.error:
            table.add_row(Text(one.image), Text(one.error), style="red")
        for rank, (name, beside) in enumerate(zip(one.classes, numbers(one), strict=True)):
            table.add_row("" if rank else Text(one.image), Text(name), *beside)
    return table
