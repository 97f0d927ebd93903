"""MATLAB's `.mat` of versions 5 to 7 to plain values, after the published description of the format.

SciPy reads these files too, but its compiled reader ends the process with a segmentation fault on some damaged ones
(found by mutating small files). Here every length is checked against the bytes that are there.
"""

import math
import struct
import zlib
from collections.abc import Collection, Iterator
from typing import Any

import numpy as np

_HEADER = 128
_VERSION_7_3 = b"\x89HDF\r\n\x1a\n"
_COMPRESSED, _MATRIX = 15, 14
_CELL, _STRUCT, _CHAR, _FIRST_NUMERIC, _LAST_NUMERIC = 1, 2, 4, 6, 15
_COMPLEX = 0x0800
_TYPES = {1: "i1", 2: "u1", 3: "i2", 4: "u2", 5: "i4", 6: "u4", 7: "f4", 9: "f8", 12: "i8", 13: "u8"}
_WIDE = {4: "utf-16", 17: "utf-16", 18: "utf-32"}
"""Text of several bytes a letter, in the file's order; all other counts as UTF-8."""
_DEEPEST = 16
"""Cells and structures within each other that are looked into."""
_MOST = 100_000
"""Arrays of a file, with those in cells and structures: each takes memory, even with nothing in it."""


def variables(data: bytes, wanted: Collection[str], *, allowed: int) -> dict[str, Any]:
    """Variables of a file: arrays as NumPy's, text as `str`, cells as lists, structures as lists of dictionaries.

    Args:
        data: the file.
        wanted: names of variables; others are passed over.
        allowed: bytes that compressed variables may have in all.

    Raises:
        ValueError: another format, cut off, damaged, or larger than allowed.
    """
    if _VERSION_7_3 in (data[:8], data[512:520]):
        raise ValueError("it is of MATLAB's version 7.3: save it with -v7")
    order = {b"IM": "<", b"MI": ">"}.get(data[126:128])
    if order is None:
        raise ValueError("it is none of MATLAB's files of version 5 to 7")
    found, budget = {}, iter(range(_MOST))
    for kind, content in _elements(memoryview(data)[_HEADER:], order):
        if kind == _COMPRESSED:
            unpacked = _unpacked(content, allowed)
            allowed -= len(unpacked)
            kind, content = next(_elements(memoryview(unpacked), order), (0, memoryview(b"")))
        if kind == _MATRIX:
            name, value = _matrix(content, order, _DEEPEST, budget, wanted)
            if name in wanted:
                found[name] = value
    return found


def _unpacked(content: memoryview, allowed: int) -> bytes:
    engine = zlib.decompressobj()
    try:
        unpacked = engine.decompress(content, max(1, allowed))
    except zlib.error as error:
        raise ValueError(f"it is damaged or cut off ({error})") from error
    if engine.unconsumed_tail:
        raise ValueError("a variable in it claims to be many times as large as the file")
    if not engine.eof:
        raise ValueError("it is cut off: a compressed variable does not end")
    return unpacked


def _elements(data: memoryview, order: str) -> Iterator[tuple[int, memoryview]]:
    """Type and content of each element in turn; those of up to four bytes have them in the place of their length."""
    place = 0
    while place < len(data):
        if place + 8 > len(data):
            raise ValueError("it is cut off within an element")
        kind, size = struct.unpack_from(f"{order}II", data, place)
        start, end = place + 8, place + 8 + size + (0 if kind == _COMPRESSED else -size % 8)
        if kind >> 16:
            kind, size, start, end = kind & 0xFFFF, kind >> 16, place + 4, place + 8
            if size > 4:
                raise ValueError("it is damaged: a short element is too long")
        if start + size > len(data):
            raise ValueError("it is cut off: an element is longer than what is left of the file")
        yield kind, data[start : start + size]
        place = end


def _matrix(
    content: memoryview, order: str, deepest: int, budget: Iterator[int], wanted: Collection[str] | None = None
) -> tuple[str, Any]:
    """Name and value of an array; of one that is not wanted no value. Each takes one from `budget`."""
    if next(budget, None) is None:
        raise ValueError(f"it holds more than {_MOST:,} arrays: damaged, or no network")
    if not len(content):
        return "", np.empty(0)
    parts = _elements(content, order)
    flags, shape, name = int(_numbers(parts, order)[0]), _numbers(parts, order).tolist(), _text(parts, order)
    if wanted is not None and name not in wanted:
        return name, None
    kind, count = flags & 0xFF, math.prod(shape)
    if not deepest or min(shape, default=0) < 0:
        raise ValueError("it is damaged: an array has an impossible shape, or is too deep in others")
    if kind == _CELL:
        return name, [_inner(parts, order, deepest, budget) for _ in range(count)]
    if kind == _STRUCT:
        width = int(_numbers(parts, order)[0])
        fields = _fields(parts, width)
        rows = range(count if fields else 0)
        return name, [{field: _inner(parts, order, deepest, budget) for field in fields} for _ in rows]
    if kind == _CHAR:
        return name, _text(parts, order)
    if not _FIRST_NUMERIC <= kind <= _LAST_NUMERIC or flags & _COMPLEX:
        raise ValueError(f"it holds an array of kind {kind}, which is read neither as numbers nor as text")
    values = _numbers(parts, order)
    if len(values) != count:
        raise ValueError(f"it is damaged: an array has {len(values):,} numbers for the shape {shape}")
    return name, values.reshape(shape, order="F")


def _inner(parts: Iterator[tuple[int, memoryview]], order: str, deepest: int, budget: Iterator[int]) -> Any:
    kind, content = _next(parts)
    if kind != _MATRIX:
        raise ValueError(f"it is damaged: an element of type {kind} where an array is expected")
    return _matrix(content, order, deepest - 1, budget)[1]


def _next(parts: Iterator[tuple[int, memoryview]]) -> tuple[int, memoryview]:
    found = next(parts, None)
    if found is None:
        raise ValueError("it is cut off: an array ends before its last part")
    return found


def _numbers(parts: Iterator[tuple[int, memoryview]], order: str) -> Any:
    kind, content = _next(parts)
    if kind not in _TYPES or len(content) % int(_TYPES[kind][1]):
        raise ValueError(f"it is damaged: an element of type {kind} where numbers are expected")
    return np.frombuffer(content, dtype=f"{order}{_TYPES[kind]}")


def _text(parts: Iterator[tuple[int, memoryview]], order: str) -> str:
    kind, content = _next(parts)
    wide = _WIDE.get(kind)
    encoding = "utf-8" if wide is None else wide + ("-le" if order == "<" else "-be")
    return bytes(content).decode(encoding, errors="replace")


def _fields(parts: Iterator[tuple[int, memoryview]], width: int) -> list[str]:
    """Names that each fill `width` bytes up with zeros."""
    names = bytes(_next(parts)[1])
    if not 0 < len(names) <= width * _MOST:
        raise ValueError("it is damaged: names of fields have no length, or there are too many")
    starts = range(0, len(names), width)
    return [names[start : start + width].split(b"\0")[0].decode("latin-1") for start in starts]
