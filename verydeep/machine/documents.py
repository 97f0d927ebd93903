"""The door for JSON and TOML: files and texts whose types are checked before anything is believed.

A reader names the type that it expects (a dataclass, `dict[str, int]`, ...); a value of another type is refused by the
name of its field. Size, depth and digits have limits.
"""

import dataclasses
import json
import re
import tomllib
from pathlib import Path
from typing import Any, TypeVar

from verydeep.machine.errors import escaped, one_line, reason
from verydeep.machine.regular_files import read_file
from verydeep.numbers import counted

T = TypeVar("T")

MOST_BYTES = 64 * 2**20
"""Largest file that is read, unless its reader says otherwise."""

_MOST_LEVELS = 100
"""Depth of nested lists and objects; deeper ones overflow the stack of code that walks through them."""

_MOST_DIGITS = 20
"""Digits of a whole number, and its sign; our own numbers have 64 bits."""

_NAMES = {
    "str": "text",
    "int": "a whole number",
    "float": "a number",
    "bool": "true or false",
    "null": "null",
    "array": "a list",
    "object": "an object",
}
"""Common names of the library's types."""


def parse_json(text: str | bytes, kind: type[T], *, exact: bool = False) -> T:
    """Read JSON as a value of a type; `exact` is as for `converted`.

    Raises:
        ValueError: it is not JSON, beyond a limit, or of other types; the message names the field.
    """
    return converted(_loaded(text), kind, exact=exact)


def read_json(path: str | Path, kind: type[T], *, most: int = MOST_BYTES, exact: bool = False) -> T:
    """Read a file of JSON as a value of a type; `exact` is as for `converted`.

    Raises:
        ValueError: as `parse_json`, or there is no such file, or it cannot be read; the message names the file.
    """
    try:
        return parse_json(read_file(path, most=most), kind, exact=exact)
    except (OSError, ValueError) as error:
        raise ValueError(f"{path} cannot be read: {_reason(error, path)}") from error


def read_json_lines(path: str | Path, kind: type[T], *, most: int = MOST_BYTES) -> tuple[list[T], int]:
    """Return the values of a file of JSON lines that are of a type, and how many lines are not.

    Raises:
        ValueError: there is no such file, or it cannot be read.
    """
    try:
        lines = [line for line in read_file(path, most=most).split(b"\n") if line.strip()]
    except OSError as error:
        raise ValueError(f"{path} cannot be read: {_reason(error, path)}") from error
    values: list[T] = []
    for line in lines:
        try:
            values.append(parse_json(line, kind))
        except ValueError:
            continue
    return values, len(lines) - len(values)


def read_toml(path: str | Path) -> dict[str, Any]:
    """Read a file of TOML.

    Raises:
        ValueError: there is no such file, or it is not TOML.
    """
    try:
        table = tomllib.loads(read_file(path, most=MOST_BYTES).decode())
        _check_depth(table)
        return table
    except OSError as error:
        raise ValueError(f"{path} cannot be read: {_reason(error, path)}") from error
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} is not TOML: {_reason(error, path)}") from error


def json_text(value: object, *, indent: int | None = None, ascii_only: bool = False) -> str:
    """Return a value as JSON that any terminal can show: characters that act on one are escaped, as JSON does.

    If `ascii_only`, all characters beyond ASCII are.
    """
    return escaped(json.dumps(value, indent=indent, ensure_ascii=ascii_only))


def converted(value: object, kind: type[T], *, exact: bool = False) -> T:
    """Return a value of JSON's types as one of another type.

    Fields that a dataclass does not know are left out, or, if `exact`, refused.

    Raises:
        ValueError: it does not fit; the message names the field.
    """
    import msgspec  # takes 0.07 s

    if exact and isinstance(value, dict):
        unknown = sorted(set(value) - {field.name for field in dataclasses.fields(kind)})  # type: ignore[arg-type]
        if unknown:
            raise ValueError(f"it has {', '.join(unknown)}, which this version of verydeep does not know: update it")
    try:
        return msgspec.convert(value, kind)
    except msgspec.ValidationError as error:
        raise ValueError(_in_words(str(error))) from error
    except UnicodeError as error:
        raise ValueError("a name in it is not text") from error


def _loaded(text: str | bytes) -> Any:
    try:
        value = json.loads(text, parse_int=_whole_number)
    except RecursionError as error:
        raise ValueError(_too_deep()) from error
    except UnicodeError as error:
        raise ValueError("it is not valid UTF-8") from error
    except json.JSONDecodeError as error:
        raise ValueError(f"it is not JSON ({one_line(error)})") from error
    _check_depth(value)
    return value


def _whole_number(digits: str) -> int:
    if len(digits) > _MOST_DIGITS:
        raise ValueError(f"it has a number of {counted(len(digits), 'digit')}")
    return int(digits)


def _check_depth(value: object) -> None:
    level = [value]
    for _ in range(_MOST_LEVELS):
        level = [
            inner
            for outer in level
            if isinstance(outer, list | dict)
            for inner in (outer.values() if isinstance(outer, dict) else outer)
        ]
        if not level:
            return
    raise ValueError(_too_deep())


def _too_deep() -> str:
    return f"its lists and objects are nested {_MOST_LEVELS} levels deep or more"


def _reason(error: Exception, path: str | Path) -> str:
    """Return the fault, without the file's name, which the message has already."""
    text = reason(error)
    return f"it{text.removeprefix(str(path))}" if text.startswith(f"{path} ") else text


def _in_words(message: str) -> str:
    """Put the library's message, `Expected `str`, got `int` - at `$.classes[0]``, into plain words, the field first."""
    said, _, place = message.partition(" - at ")
    field = place.strip("`").removeprefix("key in ").removeprefix("$").removeprefix(".")
    if missing := re.fullmatch(r"Object missing required field `(.+)`", said):
        return f"{field or 'it'} has no {missing[1]}"
    said = re.sub(r"`([^`]*)`", lambda kinds: " or ".join(_NAMES.get(one, one) for one in kinds[1].split(" | ")), said)
    said = re.sub(r"^Invalid enum value (.+)$", r"it cannot be \1", said)
    said = re.sub(r"^Expected (.+), got (.+)$", r"\1 expected, not \2", said)
    return f"{field}: {said}" if field else said
