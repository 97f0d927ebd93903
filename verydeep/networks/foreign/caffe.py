"""Caffe's `.caffemodel`: a protocol buffer; only the names and arrays of its layers are read.

Names convN_M OIHW; fc6, fc7, fc8 OI. Caffe's and MatConvNet's names of layers are the paper's.

Field numbers are those of `caffe.proto`: NetParameter.layers (2) holds V1LayerParameter, NetParameter.layer (100)
LayerParameter.
"""

import re
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from verydeep.networks.foreign.layouts import TakenWeights
from verydeep.networks.foreign.named_arrays import NamedArrays
from verydeep.numbers import counted

_SHAPE = ("num", "channels", "height", "width")
"""Fields with the sides of an array in old files; newer ones have a list."""


def read_caffe(path: Path, _taken: TakenWeights) -> NamedArrays:
    """Read the arrays of a `.caffemodel`, each layer's first as `NAME.weight`, its second as `NAME.bias`.

    Raises:
        ValueError: damaged, more arrays in a layer than those two, or two layers of one name.
    """
    from google.protobuf.message import DecodeError

    net = _net_message()()
    try:
        net.ParseFromString(path.read_bytes())
    except DecodeError as error:
        raise ValueError("it is cut off, damaged or not Caffe's") from error
    arrays: dict[str, Tensor] = {}
    for layer in (*net.layers, *net.layer):
        if len(layer.blobs) > 2:
            raise ValueError(
                f"the layer {layer.name} has {len(layer.blobs)} arrays, where only weights and biases are expected"
            )
        if f"{layer.name}.weight" in arrays:
            raise ValueError(f"it has two layers called {layer.name}")
        for kind, blob in zip(("weight", "bias"), layer.blobs, strict=False):
            arrays[f"{layer.name}.{kind}"] = _array(f"{layer.name}.{kind}", blob)
    return NamedArrays(arrays=arrays, layout="caffe")


def from_caffe(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return weights with axes OIHW or OI under this package's names; `fc8_flowers`, say, counts as fc8.

    Raises:
        ValueError: an entry that the paper's networks do not have, or one of another number of axes.
    """
    ours: dict[str, Tensor] = {}
    for name, value in weights.items():
        layer, _, kind = name.rpartition(".")
        match = re.fullmatch(r"(conv\d_\d+|fc[678])(?:[-_].*)?", layer)
        if not match or kind not in ("weight", "bias") or f"{match[1]}.{kind}" in ours:
            raise ValueError(f"it holds the layer {layer or name}, which the paper's networks do not have")
        if kind == "bias":
            ours[f"{match[1]}.bias"] = value.flatten()
            continue
        if not 2 <= value.ndim <= 4:
            raise ValueError(f"{name} has the shape {list(value.shape)}, which no layer of the paper's networks has")
        ours[f"{match[1]}.weight"] = _rows(value) if match[1].startswith("fc") else value
    return ours


def _array(name: str, blob: Any) -> Tensor:
    shape = list(blob.shape.dim) if blob.HasField("shape") else [getattr(blob, axis) for axis in _SHAPE]
    values = np.frombuffer(b"".join(blob.data), dtype="<f4")
    if not len(values):
        values = np.frombuffer(b"".join(blob.double_data), dtype="<f8")
    if min(shape, default=0) < 1 or int(np.prod(shape, dtype=object)) != len(values):
        raise ValueError(f"{name} has {counted(len(values), 'number')} for the shape {shape}: cut off or damaged")
    return torch.from_numpy(values.astype(np.float32)).reshape(shape)


def _rows(value: Tensor) -> Tensor:
    """Return a fully connected layer's matrix: of [O, I], Caffe's old [1, 1, O, I], or a convolution [O, C, h, w]."""
    old = value.ndim == 4 and value.shape[:2] == (1, 1)
    return value[0, 0] if old else value.flatten(1)


@cache
def _net_message() -> Any:
    """Return the class of a NetParameter.

    `data` and `double_data` are declared as bytes, which look the same in the file as packed numbers and need no object
    for each number.
    """
    from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

    kinds = descriptor_pb2.FieldDescriptorProto
    file = descriptor_pb2.FileDescriptorProto(name="caffe_weights.proto", package="caffe_weights", syntax="proto2")

    def message(name: str, /, **fields: tuple[int, Any, bool]) -> None:
        declared = file.message_type.add(name=name)
        for field, (number, kind, repeated) in fields.items():
            label = kinds.LABEL_REPEATED if repeated else kinds.LABEL_OPTIONAL
            if isinstance(kind, str):
                reference = f".{file.package}.{kind}"
                declared.field.add(name=field, number=number, label=label, type=kinds.TYPE_MESSAGE, type_name=reference)
            else:
                declared.field.add(name=field, number=number, label=label, type=kind)

    numbers = {axis: (number, kinds.TYPE_INT32, False) for number, axis in enumerate(_SHAPE, 1)}
    message("Shape", dim=(1, kinds.TYPE_INT64, True))
    message(
        "Blob",
        **numbers,
        data=(5, kinds.TYPE_BYTES, True),
        shape=(7, "Shape", False),
        double_data=(8, kinds.TYPE_BYTES, True),
    )
    message("OldLayer", name=(4, kinds.TYPE_STRING, False), blobs=(6, "Blob", True))
    message("Layer", name=(1, kinds.TYPE_STRING, False), blobs=(7, "Blob", True))
    message("Net", layers=(2, "OldLayer", True), layer=(100, "Layer", True))
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName(f"{file.package}.Net"))
