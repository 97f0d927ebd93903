"""The verb `compare`."""

from pathlib import Path

from verydeep.commands.options import JsonFile
from verydeep.evaluation.tables import comparison_table
from verydeep.presentation.terminal import show


def compare(first: Path, second: Path, *, json_file: JsonFile = None) -> None:
    """Compare two tests of the same images: the difference of their errors, and whether it may be chance.

    Args:
        first: File of predictions, as verydeep evaluate --predictions writes it.
        second: Another one: of another run, protocol or choice of scales.
        json_file: Write the figures to this file as well (- for standard output instead of the table).
    """
    from verydeep.evaluation.predictions import compare as compare_predictions

    comparison = compare_predictions(first, second)
    show(comparison.to_dict(), json_file, comparison_table([comparison]))
