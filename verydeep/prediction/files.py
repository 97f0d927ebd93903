"""Predictions into files, one after the other: JSON lines, CSV or Parquet; and pictures of images."""

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, fields
from io import FileIO
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from verydeep.evaluation import predictions
from verydeep.evaluation.predictions import CLASS, ID, PROBABILITY, as_text, rows_file
from verydeep.machine import atomic
from verydeep.machine.documents import json_text
from verydeep.machine.errors import reason
from verydeep.presentation.terminal import print_json

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

AnyPrediction = TypeVar("AnyPrediction", bound="DataclassInstance")

_LINES = ".jsonl"

_CLASS_COLUMNS = {
    "classes": (CLASS,),
    "probabilities": (PROBABILITY,),
    "scores": ("score_{}",),
    "boxes": ("x0_{}", "y0_{}", "x1_{}", "y1_{}"),
}
"""Fields of predictions with a value for each class, and the columns that they become, numbered from 1."""

_LONGEST_NAME = 50
"""Most characters of an image's name in the name of its picture's file."""


def check_kind(file: Path) -> None:
    """Refuse a file of predictions of another kind, before any work; `-` is standard output.

    Raises:
        ValueError: its ending is not .jsonl, .csv or .parquet, or the library that writes Parquet is not installed.
    """
    if str(file) == "-" or file.suffix == _LINES:
        return
    if file.suffix not in predictions.KINDS:
        raise ValueError(
            f"predictions are written to {', '.join((_LINES, *predictions.KINDS))} files, not to one like {file.name}"
        )
    predictions.check_kind(file)


@contextmanager
def prediction_file(
    file: Path, kind: type[AnyPrediction], *, most_classes: int
) -> Iterator[Callable[[AnyPrediction], None]]:
    """Yield a function that adds a prediction to a file.

    JSON lines, to standard output if `file` is `-`, can be read as soon as they are added: the file grows in place.
    Other files appear whole when the block ends, with up to `most_classes` classes of every image.

    Args:
        file: the file, or `-`; its ending chooses the kind.
        kind: class of the predictions, `Prediction` for example: its fields are the columns.
        most_classes: most classes of a prediction.

    Raises:
        OSError: the file cannot be written.
    """
    if str(file) == "-":
        yield lambda prediction: print_json(asdict(prediction))
    elif file.suffix == _LINES:
        with file.open("wb", buffering=0) as lines:
            yield lambda prediction: _add_line(lines, file, prediction)
    else:
        names = [field.name for field in fields(kind)]
        columns: dict[str, type] = {ID: str}
        for rank in range(1, most_classes + 1):
            for name in names:
                of_column = str if name == "classes" else float
                columns |= {column.format(rank): of_column for column in _CLASS_COLUMNS.get(name, ())}
        rest = [name for name in names if name not in _CLASS_COLUMNS and name != "image"]
        with rows_file(file, columns | dict.fromkeys(rest, str)) as add:
            yield lambda prediction: add([_row(prediction, len(columns), rest)])


def _add_line(lines: FileIO, file: Path, prediction: "DataclassInstance") -> None:
    line = json_text(asdict(prediction)).encode(errors="backslashreplace") + b"\n"
    try:
        atomic.write_all(lines, line)
    except BrokenPipeError:  # its reader has enough
        raise
    except OSError as error:
        raise OSError(f"cannot write {file}: {reason(error)}") from error


def _row(prediction: "DataclassInstance", columns: int, rest: Sequence[str]) -> list[str | float | None]:
    """Return a row: `columns` for the image and its classes, some empty if there are fewer, then the `rest`."""
    told = vars(prediction)
    row: list[str | float | None] = [as_text(told["image"])]
    for of_class in zip(*(values for name, values in told.items() if name in _CLASS_COLUMNS), strict=True):
        for value in of_class:
            row += [as_text(value)] if isinstance(value, str) else value if isinstance(value, tuple) else [value]
    row += [None] * (columns - len(row))
    return [*row, *(told[name] and as_text(told[name]) for name in rest)]


def check_folder(folder: Path, names: Iterable[str]) -> None:
    """Refuse, before any work, a folder for pictures that has one of the images, by its name or where its link leads.

    A picture might replace an image, and would be one itself for the next command.

    Raises:
        ValueError: it has one.
    """
    files = [name for name in names if os.path.lexists(name)]
    holding = {os.path.dirname(name): name for name in files}
    holding |= {os.path.dirname(os.path.realpath(name)): name for name in files if os.path.islink(name)}
    pictures = atomic.followed(folder)
    for place, image in holding.items():
        if atomic.followed(Path(place)) == pictures:
            raise ValueError(f"{folder} has one of the images, {image}: name another folder for the pictures")


def write_picture(folder: Path, names: Sequence[str], number: int, picture: bytes, *, suffix: str) -> str:
    """Write the picture of one of several images; return its path.

    Numbers, in the order of the images' `names`, keep images of the same name apart.

    Raises:
        OSError: it cannot be written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    digits = len(str(len(names) - 1))
    file = folder / f"{number:0{digits}}-{Path(names[number]).stem[:_LONGEST_NAME]}{suffix}"
    atomic.write_bytes(file, picture, one_of_many=True)
    return str(file)
