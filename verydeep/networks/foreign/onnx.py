"""ONNX: graphs of PyTorch's, Keras' and other exporters, with their weights inside or in a file beside them."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any

from verydeep.machine.libraries import library
from verydeep.machine.regular_files import file_stamp, open_file
from verydeep.networks.foreign.layouts import TakenWeights
from verydeep.networks.foreign.named_arrays import NamedArrays, allowed_bytes
from verydeep.networks.foreign.onnx_graph import onnx_network
from verydeep.numbers import counted

_OWN_METADATA = "verydeep"
"""Key under which `verydeep export` states what a file is."""

_LARGEST = 2**31
"""Bytes that protocol buffers can have."""

_FIRST_OF_VERSIONED_OPERATORS = 3
"""Version of the format since which a file states versions of its operators, after its graph."""


def read_onnx(path: Path, taken: TakenWeights) -> NamedArrays:
    """Read the VGG of an ONNX file: its weights by the order of the graph, and its preprocessing of pixels.

    Raises:
        ValueError: not a VGG, damaged, or the package onnx is missing.
    """
    model = _parsed(path)
    if not model.graph.node:
        raise ValueError("it is damaged, or not an ONNX file: its graph is empty")
    if model.ir_version >= _FIRST_OF_VERSIONED_OPERATORS and not model.opset_import:
        raise ValueError("it is cut off: after its graph it does not state the versions of its operators")
    if any(entry.key == _OWN_METADATA for entry in model.metadata_props):
        raise ValueError("verydeep export wrote it: `predict` reads it as it is; import the run that it was made from")
    tensors = _tensors(model)
    beside = [path.with_name(name) for name in _names_beside(tensors)]
    _read_beside(tensors, path)
    size = sum(file.stat().st_size for file in (path, *beside))
    for tensor in tensors:
        _check_claim(tensor, size)
    read = onnx_network(model.graph, allowed=allowed_bytes(size), convolutions_only=taken.convolutions_only)
    return replace(read, beside=tuple(beside))


def onnx_names_beside(path: Path) -> list[str]:
    """Return the names of the files beside an ONNX file that hold arrays of its graph, in their order.

    Raises:
        ValueError: damaged, a file elsewhere, or the package onnx is missing.
        OSError: it cannot be read.
    """
    return list(_kept_names_beside(path, file_stamp(path)))


@lru_cache(maxsize=1)
def _kept_names_beside(path: Path, _stamp: tuple[int, ...]) -> tuple[str, ...]:
    """Return the names, for which half a GB is read, once if it is the same file."""
    return tuple(_names_beside(_tensors(_parsed(path))))


def _parsed(path: Path) -> Any:
    onnx = library("onnx", needed_by="it")
    with open_file(path, most=_LARGEST) as file:
        content = file.read()
    model = onnx.ModelProto()
    try:
        model.ParseFromString(content)
    except Exception as error:  # protobuf has its own
        raise ValueError("it is damaged, or not an ONNX file") from error
    return model


def _tensors(model: Any) -> list[Any]:
    """Return the arrays of a graph, those in its nodes too."""
    in_nodes = [one.t for node in model.graph.node for one in node.attribute if one.HasField("t")]
    return [*model.graph.initializer, *in_nodes]


def _names_beside(tensors: Iterable[Any]) -> list[str]:
    """Return the names of the files beside the graph that hold arrays of it, in their order.

    Raises:
        ValueError: a file elsewhere.
    """
    names = sorted({_place(tensor).get("location", "") for tensor in tensors if _is_beside(tensor)})
    for name in names:
        if Path(name).name != name or not name:
            raise ValueError(f"its weights would be in {name!r}: only files beside it are read")
    return names


def _is_beside(tensor: Any) -> bool:
    return bool(tensor.data_location == tensor.EXTERNAL)


def _place(tensor: Any) -> dict[str, str]:
    """Return where an array is that is kept beside the graph: file, offset and length."""
    return {entry.key: entry.value for entry in tensor.external_data}


def _read_beside(tensors: Sequence[Any], path: Path) -> None:
    """Put arrays that are kept in files beside the graph into it.

    Raises:
        ValueError: a file that is missing or shorter than the graph says, or arrays many times as large as the files.
    """
    sizes: dict[str, int] = {}
    read = 0
    for tensor in filter(_is_beside, tensors):
        told = _place(tensor)
        name = told["location"]
        if not path.with_name(name).is_file():
            raise ValueError(f"its weights are in {name}, which is not beside it: put it there")
        sizes[name] = path.with_name(name).stat().st_size
        tensor.raw_data = _part(path.with_name(name), told)
        tensor.ClearField("external_data")
        tensor.data_location = tensor.DEFAULT
        read += len(tensor.raw_data)
        if read > allowed_bytes(sum(sizes.values())):  # arrays may share bytes
            raise ValueError(f"its arrays claim to be many times as large as {', '.join(sizes)}")


def _part(path: Path, told: dict[str, str]) -> bytes:
    with open_file(path) as file:
        size = path.stat().st_size
        offset = int(told.get("offset", 0))
        length = int(told.get("length", size - offset))
        if offset < 0 or length < 0 or offset + length > size:
            raise ValueError(f"{path.name} has {counted(size, 'byte')}, fewer than the graph says: it is cut off")
        file.seek(offset)
        return file.read(length)


def _check_claim(tensor: Any, size: int) -> None:
    if min(tensor.dims, default=0) < 0 or math.prod(tensor.dims) > size:
        claim = " x ".join(map(str, tensor.dims))
        raise ValueError(f"{tensor.name} claims {claim} values, more than the file has: damaged")
