"""Text as people's programs write it: UTF-8 or UTF-16, and tables with commas, semicolons or tabs."""

import codecs
import csv
import io
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from verydeep.machine.regular_files import read_file

_UTF_16 = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)

_SEPARATORS = (",", ";", "\t")
"""Separators of the cells of a line; the first one where a file leaves it open."""

_LINES_LOOKED_AT = 20

_QUOTED = re.compile(r'"[^"]*"')

_STATED_SEPARATOR = re.compile(r"sep=(.)\r?\n", re.IGNORECASE)
"""First line by which some spreadsheets state the separator."""


def read_text(path: Path, *, strict: bool = False) -> str:
    """Read a file of UTF-8, or of UTF-16 that begins with its mark; bytes that are neither stay as lone surrogates.

    Raises:
        ValueError: it is not valid UTF-16 or, if `strict`, UTF-8.
        OSError: it cannot be read.
    """
    data = read_file(path)
    utf_16 = data.startswith(_UTF_16)
    try:
        if utf_16:
            return data.decode("utf-16")
        return data.decode("utf-8-sig", errors="strict" if strict else "surrogateescape")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is not valid UTF-{16 if utf_16 else 8}: {error}") from error


def table_lines(path: Path, *, stripped: bool = True) -> Iterator[tuple[int, list[str]]]:
    """Yield number and cells of every line of a CSV file that is not empty; semicolons or tabs serve as commas do.

    If `stripped`, cells lose the spaces around them, and a quotation mark in the wrong place is an error.

    Raises:
        ValueError: it is damaged; the message says in which line.
        OSError: it cannot be read.
    """
    text, number = read_text(path), 1
    stated = _STATED_SEPARATOR.match(text)
    if stated:
        text, number = text[stated.end() :], 2
    before = number - 1
    separator = stated[1] if stated else _separator(text.splitlines()[:_LINES_LOOKED_AT])
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=separator, skipinitialspace=stripped, strict=stripped)
    try:
        for row in reader:
            if any(cells := [cell.strip() if stripped else cell for cell in row]):
                yield number, cells
            number = before + reader.line_num + 1
    except csv.Error as error:
        raise ValueError(f"{path} line {number}: {error}: are all quotation marks closed?") from error


def _separator(lines: Sequence[str]) -> str:
    """Return the separator that divides all lines into the same number of cells."""
    bare = [_QUOTED.sub("", line) for line in lines if line.strip()]
    for separator in _SEPARATORS:
        counts = {line.count(separator) for line in bare}
        if len(counts) == 1 and counts != {0}:
            return separator
    return _SEPARATORS[0]
