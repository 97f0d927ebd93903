"""Files of features: safetensors and Parquet, written chunk by chunk."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Int64

from verydeep.descriptors import chunks
from verydeep.descriptors.descriptor import DType
from verydeep.evaluation.predictions import as_text
from verydeep.machine.libraries import library
from verydeep.numbers import counted

SAFETENSORS, _PARQUET = ".safetensors", ".parquet"

_ID, _IDS, _LABEL, _LABELS = "id", "ids", "label", "labels"

LONGEST_HEADER = 10**8
"""Bytes; readers of safetensors files refuse more."""

_DTYPES = {"float32": "F32", "float16": "F16", "int64": "I64"}
"""Types as safetensors names them."""


@dataclass(frozen=True, kw_only=True)
class Contents:
    """Contents of a file of features; the features themselves are in chunks."""

    ids: Sequence[str]
    """Names of the images [N]."""
    labels: Int64[np.ndarray, " N"] | None
    """None if there are no classes."""
    shapes: Mapping[str, tuple[int, ...]]
    """Shape of each layer's values for one image."""
    dtype: DType
    metadata: Mapping[str, Any]
    """The file's description of itself."""
    chunk_files: Sequence[Path]


def check_kind(file: Path) -> None:
    """Refuse a file of another kind, before any work.

    Raises:
        ValueError: its ending is not .safetensors or .parquet, or the library that writes Parquet is not installed.
    """
    if file.suffix not in (SAFETENSORS, _PARQUET):
        raise ValueError(f"a file of features ends in {SAFETENSORS} or {_PARQUET}, unlike {file.name}")
    if file.suffix == _PARQUET:
        _pyarrow()


def check_names(file: Path, ids: Sequence[str]) -> None:
    """Refuse names of images that are too long for the header of a safetensors file, before any work.

    Raises:
        ValueError: they are too long.
    """
    if file.suffix == SAFETENSORS:
        _check_header(_json({_IDS: _json(list(ids))}).encode(), LONGEST_HEADER * 9 // 10)


def write(file: Path, contents: Contents, *, kind: str) -> None:
    """Write a file of a kind, .safetensors or .parquet.

    Raises:
        ValueError: names of images are too long for a safetensors file.
        OSError: it cannot be written.
    """
    (_write_safetensors if kind == SAFETENSORS else _write_parquet)(file, contents)


def _write_safetensors(file: Path, contents: Contents) -> None:
    """Write length of the header, header, tensors; the library would hold all of the file in memory."""
    header = _safetensors_header(contents)
    _check_header(header, LONGEST_HEADER)
    header += b" " * (-len(header) % 8)
    with file.open("wb") as out:
        out.write(len(header).to_bytes(8, "little") + header)
        if contents.labels is not None:
            out.write(contents.labels.astype("<i8").tobytes())
        for name in contents.shapes:
            for chunk_file in contents.chunk_files:
                out.write(chunks.read_layer(chunk_file, name).tobytes())


def _safetensors_header(contents: Contents) -> bytes:
    count = len(contents.ids)
    arrays: dict[str, tuple[str, tuple[int, ...]]] = {}
    if contents.labels is not None:
        arrays[_LABELS] = ("int64", (count,))  # first, so that all are aligned
    arrays |= {name: (contents.dtype, (count, *shape)) for name, shape in contents.shapes.items()}
    header: dict[str, Any] = {"__metadata__": {**_as_json(contents.metadata), _IDS: _json(list(contents.ids))}}
    end = 0
    for name, (dtype, shape) in arrays.items():
        begin, end = end, end + int(np.prod(shape)) * np.dtype(dtype).itemsize
        header[name] = {"dtype": _DTYPES[dtype], "shape": list(shape), "data_offsets": [begin, end]}
    return _json(header).encode()


def _check_header(header: bytes, longest: int) -> None:
    if len(header) > longest:
        raise ValueError(
            f"the images' names, {counted(len(header), 'byte')}, are too long for a {SAFETENSORS} file: readers would "
            f"refuse it, so name a {_PARQUET} one"
        )


def _write_parquet(file: Path, contents: Contents) -> None:
    """Write a row group for each chunk."""
    arrow, parquet = _pyarrow()
    number = arrow.from_numpy_dtype(np.dtype(contents.dtype))
    sizes = {name: int(np.prod(shape)) for name, shape in contents.shapes.items()}
    columns = {_ID: arrow.string(), **({} if contents.labels is None else {_LABEL: arrow.int64()})}
    columns |= {name: arrow.list_(number, size) for name, size in sizes.items()}
    schema = arrow.schema(list(columns.items()), metadata=_as_json(contents.metadata))
    start = 0
    with parquet.ParquetWriter(file, schema) as writer:
        for chunk_file in contents.chunk_files:
            rows = slice(start, start + len(chunks.read(chunk_file)[0]))
            start = rows.stop
            values = [arrow.array([as_text(name) for name in contents.ids[rows]], arrow.string())]
            if contents.labels is not None:
                values.append(arrow.array(contents.labels[rows]))
            for name, size in sizes.items():
                numbers = arrow.array(chunks.read_layer(chunk_file, name).reshape(-1), number)
                values.append(arrow.FixedSizeListArray.from_arrays(numbers, size))
            writer.write_table(arrow.table(values, schema=schema))


def _as_json(metadata: Mapping[str, Any]) -> dict[str, str]:
    return {key: _json(value) for key, value in metadata.items()}


def _json(value: object) -> str:
    """Return short JSON; bytes that are not text in names of files are escaped."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode(errors="backslashreplace").decode()


def _pyarrow() -> tuple[Any, Any]:
    parquet = library("pyarrow.parquet", needed_by="a Parquet file", alternative=f"name a {SAFETENSORS} file")
    return library("pyarrow"), parquet
