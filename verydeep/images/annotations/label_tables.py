"""Tables of labels, CSV: a line for each label, several labels in a cell, or a column of 0 and 1 for each class."""

import itertools
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from verydeep.images.annotations.annotation import Annotation, quoted
from verydeep.images.annotations.csv_boxes import (
    CLASS_NAMES,
    COLUMNS,
    FILE_NAMES,
    annotation_of,
    edges_of,
    named_columns,
    plain,
)
from verydeep.machine.text_files import table_lines
from verydeep.numbers import first_few

_LABEL_COLUMNS = ("file", "class")

_ONE_CLASS = "none"
"""In place of a separator: a cell is always one class."""

_LISTS = ("|", ";")
"""Characters between labels that are not expected in a class's name."""

_PERHAPS_LISTS = (",", "/", "&", "+", " ")
"""Characters between labels, or in a class's name."""

_SHOWN = frozenset(("1", "1.0", "true"))
_NOT_SHOWN = frozenset(("0", "0.0", "false"))
_ABSENT = frozenset(("-1", "-1.0"))
"""Value that some write for 'not shown', and others for 'not known'."""

_Line = tuple[str, list[str]]
"""Where it is, as in `labels.csv line 118`, and its cells."""


class TableLabel(NamedTuple):
    """One label of an image in a table."""

    image: str
    class_name: str | None
    """None: the image shows none of the classes."""
    where: str


def csv_labels(path: Path, separator: str | None = None) -> Iterator[TableLabel | Annotation]:
    """Read the labels of a CSV file, or its boxes.

    Args:
        path: the file.
        separator: the text between the labels in a cell, or `none` if a cell is always one class.

    Raises:
        ValueError: it is damaged, has other columns, or has cells that may hold several labels and no `separator`.
    """
    lines = [(f"{path} line {number}", cells) for number, cells in table_lines(path)]
    if lines and _has_column_per_class(*lines[0]):
        yield from _one_hot(lines)
        return
    columns: Sequence[str] = COLUMNS
    if lines and (named := _named(lines[0][1], lines[0][0])):
        columns, lines = named, lines[1:]
    of_labels = [_is_of_labels(*line, separator) for line in lines]
    if separator is None:
        _refuse_lists(list(itertools.compress(lines, of_labels)))
    for (where, cells), is_label in zip(lines, of_labels, strict=True):
        if is_label:
            yield from _labels(where, cells, separator)
        else:
            yield annotation_of(cells, where, columns)


def _named(cells: Sequence[str], where: str) -> Sequence[str] | None:
    """Return the columns of boxes that a first line names; None if it names none."""
    names = [plain(cell) for cell in cells]
    if len(cells) == len(_LABEL_COLUMNS):
        return COLUMNS if names[0] in {*FILE_NAMES, "name"} else None
    if FILE_NAMES & set(names) and CLASS_NAMES & set(names) and not edges_of(names):
        others = [cell for cell, name in zip(cells, names, strict=True) if name not in FILE_NAMES | CLASS_NAMES]
        raise ValueError(
            f"{where}: columns of labels are {','.join(_LABEL_COLUMNS)}: leave out {', '.join(others) or 'the others'} "
            "(--test-images names the images to test on)"
        )
    return named_columns(cells, where)


def _is_of_labels(where: str, cells: Sequence[str], separator: str | None) -> bool:
    """Return whether a line holds labels; else it is a box.

    Raises:
        ValueError: it is neither.
    """
    of_labels = len(cells) == len(_LABEL_COLUMNS) or (separator == "," and len(cells) > len(_LABEL_COLUMNS))
    if of_labels and cells[0]:
        return True
    if not of_labels and len(cells) >= len(COLUMNS) - 1:
        return False
    hint = ""
    if cells[0] and len(cells) > len(_LABEL_COLUMNS):
        numbers = set(map(str.lower, cells[1:])) <= _SHOWN | _NOT_SHOWN | _ABSENT
        hint = " (with a first line of names, file,cat,dog, if these are classes)" if numbers else ""
        hint = hint or " (--label-separator , if these are several labels)"
    raise ValueError(f"{where}: a line is {','.join(_LABEL_COLUMNS)}, one for each label, not {quoted(cells)}{hint}")


def _labels(where: str, cells: Sequence[str], separator: str | None) -> Iterator[TableLabel]:
    image, rest = cells[0], cells[1:]
    if separator not in (None, _ONE_CLASS):
        rest = [part.strip() for cell in rest for part in cell.split(separator)]
    yield from _of_image(image, [name for name in rest if name], where)


def _of_image(image: str, names: Sequence[str], where: str) -> Iterator[TableLabel]:
    yield from (TableLabel(image, name, where) for name in names)
    if not names:
        yield TableLabel(image, None, where)


def _refuse_lists(labels: Sequence[_Line]) -> None:
    """Refuse cells that look like several labels.

    Raises:
        ValueError: a cell has a list's separator, or one that may be in a name but divides it into others' labels.
    """
    first_place: dict[str, str] = {}
    for where, (_, cell) in labels:
        first_place.setdefault(cell, where)
    cells_with: dict[str, set[str]] = defaultdict(set)
    for cell in first_place:
        for separator in _PERHAPS_LISTS:
            for part in cell.split(separator):
                cells_with[part.strip()].add(cell)
    for cell, where in first_place.items():
        if cell.startswith("[") and cell.endswith("]"):
            raise ValueError(
                f"{where}: {quoted([cell])} is a list as Python writes it: write cat|dog and say --label-separator '|'"
            )
        for separator in (*_LISTS, *_PERHAPS_LISTS):
            parts = [part.strip() for part in cell.split(separator)]
            several = separator in _LISTS or all(len(cells_with[part]) > 1 for part in parts)
            if separator == " ":  # two names that share words are common
                several = all(part in first_place for part in parts)
            if len(parts) > 1 and all(parts) and several:
                raise ValueError(
                    f"{where}: {quoted([cell])} looks like several labels: say --label-separator '{separator}', or "
                    f"--label-separator {_ONE_CLASS} if a cell is one class"
                )


def _has_column_per_class(where: str, cells: Sequence[str]) -> bool:
    """Return whether a first line names images and classes, as in `file,cat,dog`."""
    names = [plain(cell) for cell in cells]
    boxes = edges_of(names) or {"width", "height"} & set(names) or names[1:2] == ["x0"]
    return len(cells) > len(_LABEL_COLUMNS) and names[0] in FILE_NAMES and not CLASS_NAMES & set(names) and not boxes


def _one_hot(lines: Sequence[_Line]) -> Iterator[TableLabel]:
    """Read a table with a column of 0 and 1 for each class.

    Raises:
        ValueError: a cell is something else, 0 and -1 both occur, or no image shows a class.
    """
    (_, (_, *classes)), *rows = lines
    seen: set[str] = set()
    shown: set[str] = set()
    for where, (image, *cells) in rows:
        if len(cells) != len(classes) or not image:
            raise ValueError(f"{where}: there are {len(classes) + 1} columns, but here {quoted([image, *cells])}")
        values = [cell.lower() for cell in cells]
        for name, value in zip(classes, values, strict=True):
            if value not in _SHOWN | _NOT_SHOWN | _ABSENT:
                raise ValueError(f"{where}: column {name} holds {quoted([value])}, where 1 is shown and 0 is not")
        seen.update(values)
        if seen & _NOT_SHOWN and seen & _ABSENT:
            raise ValueError(
                f"{where}: 0 and -1 both occur, and their meaning differs: write 1 for shown and 0 for not"
            )
        names = [name for name, value in zip(classes, values, strict=True) if value in _SHOWN]
        shown.update(names)
        yield from _of_image(image, names, where)
    if unseen := [name for name in classes if name not in shown]:
        raise ValueError(f"{lines[0][0]}: no image shows {first_few(unseen)}: leave the column out")
