"""Predictions into a file, one after the other: JSON lines, CSV or Parquet."""

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from verydeep.deployment.predict import Prediction
from verydeep.evaluation import predictions
from verydeep.evaluation.predictions import CLASS, ID, PROBABILITY, as_text, rows_file

LINES = ".jsonl"

ERROR, SCORE_MAP = "error", "score_map"
"""Columns beside those of an evaluation's file."""


def check_kind(file: Path) -> None:
    """Refuses a file of another kind, before any work; `-` is standard output.

    Raises:
        ValueError: its ending is not .jsonl, .csv or .parquet, or there is nothing here that writes Parquet.
    """
    if str(file) == "-" or file.suffix == LINES:
        return
    if file.suffix not in predictions.KINDS:
        raise ValueError(
            f"predictions are written to {', '.join((LINES, *predictions.KINDS))} files, not to one like {file.name}"
        )
    predictions.check_kind(file)


@contextmanager
def prediction_file(file: Path, *, places: int) -> Iterator[Callable[[Prediction], None]]:
    """Gives a function that adds a prediction to a file.

    JSON lines, to standard output if `file` is `-`, can be read as soon as they are added: the file grows at its place.
    Other files appear whole when the block ends, with up to `places` classes of every image.

    Raises:
        OSError: the file cannot be written.
    """
    if str(file) == "-":
        yield lambda prediction: print(_line(prediction), flush=True)
    elif file.suffix == LINES:
        with file.open("w", encoding="utf-8", errors="backslashreplace") as lines:
            yield lambda prediction: print(_line(prediction), file=lines, flush=True)
    else:
        numbered = range(1, places + 1)
        classes = {
            name: kind for n in numbered for name, kind in ((CLASS.format(n), str), (PROBABILITY.format(n), float))
        }
        with rows_file(file, {ID: str, **classes, ERROR: str, SCORE_MAP: str}) as add:
            yield lambda prediction: add([_row(prediction, places)])


def _line(prediction: Prediction) -> str:
    return json.dumps(prediction.to_dict(), ensure_ascii=False)


def _row(prediction: Prediction, places: int) -> list[str | float | None]:
    row: list[str | float | None] = [as_text(prediction.image)]
    for name, probability in zip(prediction.classes, prediction.probabilities, strict=True):
        row += [as_text(name), probability]
    row += [None] * (1 + 2 * places - len(row))
    return [*row, *(text and as_text(text) for text in (prediction.error, prediction.score_map))]
