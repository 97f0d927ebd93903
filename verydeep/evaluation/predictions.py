"""Files of predictions, image by image: Parquet or CSV."""

import csv
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from verydeep.evaluation.metrics import TOP
from verydeep.evaluation.results import Evaluation
from verydeep.machine import atomic
from verydeep.machine.errors import one_line
from verydeep.machine.libraries import library
from verydeep.machine.text_files import table_lines
from verydeep.numbers import counted, number, plural
from verydeep.statistics import Comparison, paired_comparison

ID, TRUE, CLASS, PROBABILITY = "id", "true_class", "class_{}", "probability_{}"
"""Names of columns; the numbered ones go from 1, the most probable class, to 5 or the number of classes."""

_MOST_ROWS_A_BYTE = 8
"""Rows of a Parquet file of predictions for each of its bytes, at most: every image has a name of its own."""

_EXPANSION, _LEAST = 100, 64 * 2**20
"""How many times its size a Parquet file may hold when it is unpacked, and how many bytes any file may hold."""

KINDS = (".parquet", ".csv")

_ROWS_IN_GROUP = 2**16
"""Rows in a group of a Parquet file, which are held in memory until they are written together."""

_READ = (ID, TRUE, CLASS.format(1))
"""Columns that a comparison needs."""


class Predictions(NamedTuple):
    """The columns of a file that a comparison needs."""

    ids: list[str]
    true_classes: list[str]
    classes: list[str]
    """The most probable ones."""


def check_kind(file: Path) -> None:
    """Check that a file of predictions can be written, before any work.

    Raises:
        ValueError: it does not end in .parquet or .csv, or the library that writes Parquet is missing.
    """
    if file.suffix not in KINDS:
        raise ValueError(f"a file of predictions ends in {' or '.join(KINDS)}, unlike {file.name}")
    if file.suffix == ".parquet":
        _pyarrow()


def write_predictions(evaluation: Evaluation, file: str | Path) -> None:
    """Write a row for each image that could be used, in the source's order: id, true class, up to five classes.

    Raises:
        ValueError: as `check_kind`.
        OSError: the file cannot be written.
    """
    file = Path(file)
    check_kind(file)
    columns = _columns(evaluation)
    kinds = {name: type(values[0]) if values else str for name, values in columns.items()}
    with rows_file(file, kinds) as add:
        add(zip(*columns.values(), strict=True))


@contextmanager
def rows_file(file: Path, columns: Mapping[str, type]) -> Iterator[Callable[[Iterable[Sequence[Any]]], None]]:
    """Yield a function that adds rows to a CSV or Parquet file, which appears whole when the block ends.

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
        while len(waiting) >= _ROWS_IN_GROUP:
            write(waiting[:_ROWS_IN_GROUP])
            del waiting[:_ROWS_IN_GROUP]

    with parquet.ParquetWriter(file, schema) as writer:
        yield add
        write(waiting)


def _read_predictions(file: Path) -> Predictions:
    """Read a file that `write_predictions` wrote.

    Raises:
        ValueError: there is no such file, or it is not a file of predictions.
    """
    check_kind(file)
    if not file.is_file():
        raise ValueError(f"there is no file {file}")
    try:
        columns = _csv_columns(file) if file.suffix == ".csv" else _parquet_columns(file)
        missing = [name for name in _READ if name not in columns]
        if missing:
            raise ValueError(f"no column {missing[0]}")
        predictions = Predictions(*(columns[name] for name in _READ))
        if not all(isinstance(value, str) for column in predictions for value in column):
            raise ValueError("names of images and classes are not text")
        return predictions
    except (OSError, ValueError) as error:
        raise ValueError(f"{file} holds no predictions that can be read: {error}") from error


def _parquet_columns(file: Path) -> dict[str, list[str]]:
    """Return the columns that are compared.

    Raises:
        ValueError: the file is damaged, or claims more than it can hold.
        OSError: it cannot be read.
    """
    arrow, parquet = _pyarrow()
    try:
        claimed = parquet.read_metadata(file)
        _check_claims(claimed, file.stat().st_size)
        names = [name for name in _READ if name in claimed.schema.names]
        columns: dict[str, list[str]] = parquet.read_table(file, columns=names).to_pydict()
    except (arrow.ArrowException, OverflowError) as error:  # of a damaged schema, of times beyond Python's
        raise ValueError(one_line(error)) from error
    return columns


def _check_claims(claimed: Any, size: int) -> None:
    """Refuse a Parquet file whose metadata claim more rows or bytes than a file of `size` bytes can hold."""
    groups = [claimed.row_group(index) for index in range(claimed.num_row_groups)]
    rows = max(claimed.num_rows, sum(group.num_rows for group in groups))
    unpacked = sum(group.total_byte_size for group in groups)
    if rows > _MOST_ROWS_A_BYTE * size or unpacked > max(_EXPANSION * size, _LEAST):
        raise ValueError(
            f"it claims {counted(rows, 'row')}, more than a file of {counted(size, 'byte')} can hold: it is damaged"
        )


def as_text(name: str) -> str:
    """Return a name with escapes in place of bytes that are not text, as may be in names of files."""
    return name.encode(errors="backslashreplace").decode()


def _csv_columns(file: Path) -> dict[str, list[str]]:
    header, *rows = [cells for _, cells in table_lines(file, stripped=False)] or [[]]
    if any(len(row) != len(header) for row in rows):
        raise ValueError("a line has more or fewer fields than the first")
    return {name: [row[column] for row in rows] for column, name in enumerate(header)}


def _columns(evaluation: Evaluation) -> dict[str, list[Any]]:
    images = evaluation.images
    right = np.arange(len(images.classes)) == images.labels[:, None]
    order = np.lexsort((right, -images.posteriors), axis=1)[:, :TOP]  # among equals the right class is the last
    names = np.array(list(map(as_text, images.classes)), dtype=object)
    columns: dict[str, list[Any]] = {ID: list(map(as_text, images.ids)), TRUE: names[images.labels].tolist()}
    for rank, classes in enumerate(order.T, 1):
        columns[CLASS.format(rank)] = names[classes].tolist()
        columns[PROBABILITY.format(rank)] = images.posteriors[np.arange(len(classes)), classes].tolist()
    return columns


def _pyarrow() -> tuple[Any, Any]:
    parquet = library("pyarrow.parquet", needed_by="a Parquet file", alternative="name a .csv file")
    return library("pyarrow"), parquet


_Predicted = dict[tuple[str, str], str]
"""The most probable class of each image, by its id and true class."""


def compare(first: Evaluation | str | Path, second: Evaluation | str | Path) -> Comparison:
    """Compare the top-1 errors of two evaluations, or files of predictions, image by image.

    This tells two protocols, choices of scales, runs or fusions apart on the images that both were tested on.

    Raises:
        ValueError: they are not of the same images and true classes, or a file holds no predictions.
    """
    for given in (first, second):
        if not isinstance(given, Evaluation) and Path(given).is_dir():
            raise ValueError(
                f"{given} is a folder: compare takes files of verydeep evaluate --predictions, and verydeep evaluate "
                "RUN RUN compares runs"
            )
    (name, predictions), (other_name, others) = _named(first), _named(second)
    differing = sorted(predictions.keys() ^ others.keys())
    if differing:
        image, true = differing[0]
        are = plural("is", len(differing), "are")
        raise ValueError(
            f"{name} and {other_name} are not of the same images: {number(len(differing))} {are} in one only, such as "
            f"{image} of class {true}"
        )
    wrong, other = (np.array([each[key] != key[1] for key in predictions]) for each in (predictions, others))
    return paired_comparison(name, other_name, wrong.astype(bool), other.astype(bool))


def _named(result: Evaluation | str | Path) -> tuple[str, _Predicted]:
    if not isinstance(result, Evaluation):
        stored = _read_predictions(Path(result))
        return str(result), _by_image(str(result), stored.ids, stored.true_classes, stored.classes)
    images = result.images
    true, classes = (
        [as_text(images.classes[label]) for label in labels] for labels in (images.labels, images.predicted)
    )
    scales = ", ".join(map(str, result.scales))
    name = f"{' + '.join(result.runs)} ({result.protocol}, Q = {scales})"
    return name, _by_image(name, map(as_text, images.ids), true, classes)


def _by_image(name: str, ids: Iterable[str], true: Iterable[str], classes: Iterable[str]) -> _Predicted:
    rows = list(zip(ids, true, classes, strict=True))
    by_image = {(image, true_class): predicted_class for image, true_class, predicted_class in rows}
    if len(by_image) < len(rows):
        raise ValueError(f"{name} has several images of the same name: they cannot be told apart")
    return by_image
