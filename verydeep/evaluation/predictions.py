"""The predictions of an evaluation as a file, image by image: Parquet or CSV."""

import csv
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from verydeep.evaluation.metrics import TOP
from verydeep.evaluation.results import Evaluation
from verydeep.machine import atomic
from verydeep.machine.libraries import library

ID, TRUE, CLASS, PROBABILITY = "id", "true_class", "class_{}", "probability_{}"
"""Columns; the numbered ones go from 1, the most probable class, to 5 or the number of classes."""

KINDS = (".parquet", ".csv")

ROWS_IN_GROUP = 2**16
"""Of a Parquet file; so many are held in memory while it is written."""


class Predictions(NamedTuple):
    """What the columns of a file say of every image."""

    ids: list[str]
    true_classes: list[str]
    classes: list[str]
    """The most probable ones."""


def check_kind(file: Path) -> None:
    """Refuses a file of another kind, before any work.

    Raises:
        ValueError: its ending is not .parquet or .csv, or there is nothing here that writes Parquet.
    """
    if file.suffix not in KINDS:
        raise ValueError(f"a file of predictions ends in {' or '.join(KINDS)}, not as {file.name} does")
    if file.suffix == ".parquet":
        _pyarrow()


def write_predictions(found: Evaluation, file: str | Path) -> None:
    """One row for each image that could be used, in the source's order: id, true class, up to five classes.

    Raises:
        ValueError: as `check_kind`.
        OSError: the file cannot be written.
    """
    file = Path(file)
    check_kind(file)
    columns = _columns(found)
    kinds = {name: type(values[0]) if values else str for name, values in columns.items()}
    with rows_file(file, kinds) as add:
        add(zip(*columns.values(), strict=True))


@contextmanager
def rows_file(file: Path, columns: Mapping[str, type]) -> Iterator[Callable[[Iterable[Sequence[Any]]], None]]:
    """Gives a function that adds rows to a CSV or Parquet file, which appears whole when the block ends.

    `columns` are the names, each with `str` or `float`; None is an empty field in CSV and null in Parquet.

    Raises:
        OSError: the file cannot be written.
    """
    rows = _csv_rows if file.suffix == ".csv" else _parquet_rows
    with atomic.new_files(file) as aside, rows(aside, columns) as add:
        yield add


@contextmanager
def _csv_rows(file: Path, columns: Mapping[str, type]) -> Iterator[Callable[[Iterable[Sequence[Any]]], None]]:
    with file.open("w", encoding="utf-8", newline="") as lines:
        writer = csv.writer(lines)  # lines end in \r\n, so that names with either character are quoted
        writer.writerow(columns)
        yield writer.writerows


@contextmanager
def _parquet_rows(file: Path, columns: Mapping[str, type]) -> Iterator[Callable[[Iterable[Sequence[Any]]], None]]:
    arrow, parquet = _pyarrow()
    kinds = {str: arrow.string(), float: arrow.float64()}
    schema = arrow.schema([(name, kinds[kind]) for name, kind in columns.items()])
    waiting: list[Sequence[Any]] = []

    def write(rows: Sequence[Sequence[Any]]) -> None:
        values = list(zip(*rows, strict=True)) or [()] * len(columns)
        writer.write_table(arrow.table([arrow.array(list(column)) for column in values], schema=schema))

    def add(rows: Iterable[Sequence[Any]]) -> None:
        waiting.extend(rows)
        while len(waiting) >= ROWS_IN_GROUP:
            write(waiting[:ROWS_IN_GROUP])
            del waiting[:ROWS_IN_GROUP]

    with parquet.ParquetWriter(file, schema) as writer:
        yield add
        write(waiting)


def read_predictions(file: Path) -> Predictions:
    """What `write_predictions` wrote.

    Raises:
        ValueError: there is no such file, or it is something else.
    """
    check_kind(file)
    if not file.is_file():
        raise ValueError(f"there is no file {file}")
    try:
        columns = _csv_columns(file) if file.suffix == ".csv" else _pyarrow()[1].read_table(file).to_pydict()
        missing = [name for name in _READ if name not in columns]
        if missing:
            raise ValueError(f"no column {missing[0]}")
        found = Predictions(*(columns[name] for name in _READ))
        if not all(isinstance(value, str) for column in found for value in column):
            raise ValueError("names of images and classes that are no text")
        return found
    except (OSError, ValueError, csv.Error) as error:
        raise ValueError(f"{file} holds no predictions that can be read: {error}") from error


def as_text(name: str) -> str:
    """What is no text in names of files, escaped."""
    return name.encode(errors="backslashreplace").decode()


_READ = (ID, TRUE, CLASS.format(1))


def _csv_columns(file: Path) -> dict[str, list[str]]:
    with file.open(encoding="utf-8", newline="") as lines:
        header, *rows = [row for row in csv.reader(lines) if row] or [[]]
    if any(len(row) != len(header) for row in rows):
        raise ValueError("a line has more or fewer fields than the first")
    return {name: [row[place] for row in rows] for place, name in enumerate(header)}


def _columns(found: Evaluation) -> dict[str, list[Any]]:
    images = found.images
    right = np.arange(len(images.classes)) == images.labels[:, None]
    order = np.lexsort((right, -images.posteriors), axis=1)[:, :TOP]  # of equals the right class is the last
    names = np.array(list(map(as_text, images.classes)), dtype=object)
    columns: dict[str, list[Any]] = {ID: list(map(as_text, images.ids)), TRUE: names[images.labels].tolist()}
    for place, classes in enumerate(order.T, 1):
        columns[CLASS.format(place)] = names[classes].tolist()
        columns[PROBABILITY.format(place)] = images.posteriors[np.arange(len(classes)), classes].tolist()
    return columns


def _pyarrow() -> tuple[Any, Any]:
    parquet = library("pyarrow.parquet", needed_by="a Parquet file", alternative="name a .csv file")
    return library("pyarrow"), parquet
