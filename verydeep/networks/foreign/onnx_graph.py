"""The VGG in an ONNX graph, which is read node by node: nothing in it is computed but the shapes that it states."""

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import torch
from torch import Tensor

from verydeep.machine.libraries import library
from verydeep.networks.foreign.layers_in_order import LayerStep, added, after_pool5, from_layers, way_out
from verydeep.networks.foreign.named_arrays import NamedArrays
from verydeep.numbers import counted

_AXES = {"nchw": (2, 3), "nhwc": (1, 2)}
"""Height and width in each order of axes."""

_TO_NHWC, _TO_NCHW = (0, 2, 3, 1), (0, 3, 1, 2)

_SHAPE_OPERATORS = ("Shape", "Gather", "Slice", "Unsqueeze", "Squeeze", "Concat", "Cast", "Mul", "ReduceProd")
"""Operators by which graphs compute the shape of a Reshape."""

_WITHOUT_EFFECT = ("Identity", "Dropout", "Cast")

_QUANTISED = (
    "QuantizeLinear",
    "DequantizeLinear",
    "QLinearConv",
    "QLinearMatMul",
    "ConvInteger",
    "DynamicQuantizeLinear",
)


@dataclass(kw_only=True)
class _Walk:
    """The state of reading a graph."""

    onnx: Any
    constants: dict[str, Any]
    """Initialisers and constants, as the file has them."""
    current: str
    """The output of the layers that were read so far."""
    order: Literal["nchw", "nhwc", "rows"]
    left: int
    """Bytes that the arrays of further steps may have."""
    steps: list[LayerStep] = field(default_factory=list)
    shapes: set[str] = field(default_factory=set)
    """Tensors that hold shapes or parts of them."""


def onnx_network(graph: Any, *, allowed: int, convolutions_only: bool = False) -> NamedArrays:
    """Return the VGG that a graph computes.

    Args:
        graph: the `onnx.GraphProto`, with all its arrays in it.
        allowed: bytes that the arrays of all layers may have.
        convolutions_only: leave out the layers after pool5.

    Raises:
        ValueError: an operator that the paper's networks do not have, branches, or more bytes than allowed; the node is
            named.
    """
    constants = {tensor.name: tensor for tensor in graph.initializer}
    given = [value for value in graph.input if value.name not in constants]
    if len(given) != 1:
        raise ValueError(f"its graph takes {counted(len(given), 'input')}, where a VGG takes images alone")
    order, side = _images(given[0])
    walk = _Walk(onnx=library("onnx"), constants=constants, current=given[0].name, order=order, left=allowed)
    for node in graph.node:
        try:
            _read_node(walk, node)
        except ValueError as error:
            raise ValueError(f"{error}; {way_out(walk.steps)}") from error
        if convolutions_only and after_pool5(walk.steps):
            break
    else:
        if walk.current not in [value.name for value in graph.output]:
            raise ValueError("its layers do not lead to its output")
    return from_layers(walk.steps, "onnx", side=side, notes=())


def _images(value: Any) -> tuple[Literal["nchw", "nhwc"], int | None]:
    """Return the order of axes of the images that go in, and their side; None where it is free.

    Raises:
        ValueError: another shape.
    """
    shape = [axis.dim_value for axis in value.type.tensor_type.shape.dim]  # 0 where it is free
    for order, channels, sides in (("nchw", 1, (2, 3)), ("nhwc", 3, (1, 2))):
        if len(shape) == 4 and shape[channels] == 3 and shape[sides[0]] == shape[sides[1]]:
            return ("nchw" if order == "nchw" else "nhwc"), shape[sides[0]] or None
    raise ValueError(f"it takes images of the shape {shape[1:]}: only square ones with 3 channels are read")


def _read_node(walk: _Walk, node: Any) -> None:
    """Read one node.

    Raises:
        ValueError: it is not part of a VGG.
    """
    name = f"the node {node.name or node.output[0]} ({node.op_type})"
    if node.op_type == "Constant" and (value := _attributes(walk, node).get("value")) is not None:
        walk.constants[node.output[0]] = value
    elif node.op_type == "Constant":
        walk.shapes.add(node.output[0])
    elif node.op_type in ("Identity", "Cast") and node.input[0] in walk.constants:
        walk.constants[node.output[0]] = walk.constants[node.input[0]]
    elif _computes_shapes(walk, node):
        walk.shapes.update(node.output)
    elif node.op_type in _QUANTISED:
        raise ValueError(f"{name} computes in integers: quantised weights are not read")
    else:
        others = [one for one in node.input if one and one not in walk.constants and one not in walk.shapes]
        if others != [walk.current]:
            raise ValueError(f"it has branches: {name} takes {', '.join(others) or 'nothing'}")
        walk.left = added(walk.steps, _steps(walk, node, name), walk.left)
        walk.current = node.output[0]


def _computes_shapes(walk: _Walk, node: Any) -> bool:
    """Return whether this node computes with shapes and numbers alone."""
    known = [one in walk.shapes or one in walk.constants for one in node.input]
    return node.op_type == "Shape" or (node.op_type in _SHAPE_OPERATORS and bool(known) and all(known))


def _attributes(walk: _Walk, node: Any) -> dict[str, Any]:
    told = {one.name: walk.onnx.helper.get_attribute_value(one) for one in node.attribute}
    if empty := [name for name, value in told.items() if value is None]:
        raise ValueError(f"it is damaged: the attribute {empty[0]} of the node {node.name or node.output[0]} is empty")
    return told


def _array(walk: _Walk, name: str, *, integers: bool = False) -> Tensor:
    """Return a constant.

    Raises:
        ValueError: it is computed, or contains something other than numbers of that kind.
    """
    if name not in walk.constants:
        raise ValueError(f"{name} is computed, where a number is expected")
    tensor = walk.constants[name]
    kinds = walk.onnx.TensorProto
    if tensor.data_type not in ((kinds.INT64, kinds.INT32) if integers else (kinds.FLOAT, kinds.DOUBLE, kinds.FLOAT16)):
        raise ValueError(f"{name} holds {kinds.DataType.Name(tensor.data_type)}: quantised weights are not read")
    return torch.from_numpy(walk.onnx.numpy_helper.to_array(tensor).copy())


def _integers(walk: _Walk, node: Any, attribute: str, position: int) -> tuple[int, ...] | None:
    """Return integers that older versions of an operator have as an attribute, newer ones as an input."""
    told = _attributes(walk, node).get(attribute)
    if told is None and len(node.input) > position and node.input[position]:
        told = _array(walk, node.input[position], integers=True).flatten().tolist()
    return None if told is None else tuple(told)


def _steps(walk: _Walk, node: Any, name: str) -> Iterator[LayerStep]:
    """Yield a node's steps.

    Raises:
        ValueError: a step that the paper's networks do not have.
    """
    match node.op_type:
        case "Conv":
            yield _convolution(walk, node, name)
        case "Gemm" | "MatMul":
            yield _dense(walk, node, name)
        case "BatchNormalization":
            yield _normalisation(walk, node, name)
        case "Relu":
            yield LayerStep(kind="relu", name=name)
        case "MaxPool":
            _check_pool(walk, node, name)
            yield LayerStep(kind="pool", name=name)
        case "GlobalAveragePool" | "ReduceMean" | "AveragePool":
            yield from _mean(walk, node, name)
        case "Flatten" | "Reshape" | "Squeeze":
            yield from _rows(walk, node, name)
        case "Transpose":
            _transpose(walk, node, name)
        case "Gather" | "Slice":
            yield _reversed(walk, node, name)
        case "Add" | "Sub" | "Mul" | "Div":
            yield from _arithmetic(walk, node, name)
        case "Softmax" | "LogSoftmax":
            yield LayerStep(kind="softmax", name=name)
        case "Sigmoid":
            yield LayerStep(kind="sigmoid", name=name)
        case kind if kind not in _WITHOUT_EFFECT or node.domain not in ("", "ai.onnx"):
            raise ValueError(f"{name} is an operator that the paper's networks do not have")


def _convolution(walk: _Walk, node: Any, name: str) -> LayerStep:
    if walk.order != "nchw" or after_pool5(walk.steps):
        raise ValueError(f"{name} is where the paper's networks have no convolution")
    weight = _array(walk, node.input[1])
    if weight.ndim != 4 or weight.shape[2] != weight.shape[3] or weight.shape[2] % 2 == 0:
        raise ValueError(f"{name} has weights of the shape {list(weight.shape)}, which no VGG has")
    told = _attributes(walk, node)
    half = weight.shape[2] // 2
    same = told.get("auto_pad", b"NOTSET") in (b"SAME_UPPER", b"SAME_LOWER")
    if not same and [*told.get("pads", [0] * 4)] != [half] * 4:
        raise ValueError(f"{name} pads {told.get('pads', 0)}, where the paper's networks keep height and width")
    for key in ("strides", "dilations"):
        if [*told.get(key, (1, 1))] != [1, 1]:
            raise ValueError(f"{name} has {key} {told[key]}, where the paper's networks have 1")
    if told.get("group", 1) != 1:
        raise ValueError(f"{name} has {told['group']} groups, where the paper's networks have 1")
    return LayerStep(kind="conv", name=name, weight=weight.float(), bias=_bias(walk, node, len(weight)))


def _bias(walk: _Walk, node: Any, outputs: int) -> Tensor:
    if len(node.input) < 3 or not node.input[2]:
        return torch.zeros(outputs)
    return _array(walk, node.input[2]).float().flatten().expand(outputs)


def _dense(walk: _Walk, node: Any, name: str) -> LayerStep:
    if walk.order != "rows":
        raise ValueError(f"{name} takes maps where a VGG has rows")
    told, weight = _attributes(walk, node), _array(walk, node.input[1])
    if weight.ndim != 2 or told.get("transA", 0) or told.get("alpha", 1.0) != 1.0 or told.get("beta", 1.0) != 1.0:
        raise ValueError(f"{name} is not a fully connected layer")
    rows = (weight if told.get("transB", 0) else weight.T).float()
    return LayerStep(kind="dense", name=name, weight=rows, bias=_bias(walk, node, len(rows)))


def _normalisation(walk: _Walk, node: Any, name: str) -> LayerStep:
    gamma, beta, mean, variance = (_array(walk, one).double() for one in node.input[1:5])
    factor = gamma / (variance + _attributes(walk, node).get("epsilon", 1e-5)).sqrt()
    return LayerStep(kind="scale", name=name, weight=factor.float(), bias=(beta - mean * factor).float())


def _check_pool(walk: _Walk, node: Any, name: str) -> None:
    told = _attributes(walk, node)
    window = [*told.get("kernel_shape", ()), *told.get("strides", (1, 1))]
    if window != [2, 2, 2, 2] or any(told.get("pads", ())) or {*told.get("dilations", ())} - {1}:
        raise ValueError(f"{name} pools {told.get('kernel_shape')}, where the paper's networks pool 2 x 2")


def _mean(walk: _Walk, node: Any, name: str) -> Iterator[LayerStep]:
    """Yield a mean over all positions; nothing for one over windows of 1 x 1, as PyTorch leaves them."""
    told = _attributes(walk, node)
    if node.op_type == "AveragePool":
        if [*told["kernel_shape"]] != [1, 1] or {*told.get("strides", ())} - {1}:
            raise ValueError(f"{name} averages {told['kernel_shape']}, which the paper's networks do not")
        return
    axes = _integers(walk, node, "axes", 1) if node.op_type == "ReduceMean" else _AXES.get(walk.order)
    if walk.order == "rows" or tuple(sorted(axis % 4 for axis in axes or ())) != _AXES[walk.order]:
        raise ValueError(f"{name} is a mean over other axes than height and width")
    if node.op_type == "ReduceMean" and not told.get("keepdims", 1):
        walk.order = "rows"
    yield LayerStep(kind="mean", name=name)


def _rows(walk: _Walk, node: Any, name: str) -> Iterator[LayerStep]:
    """Yield the step from positions to a row for each image; nothing where there is one position or a row already."""
    if node.op_type == "Flatten" and _attributes(walk, node).get("axis", 1) != 1:
        raise ValueError(f"{name} puts images together")
    if node.op_type == "Reshape" and node.input[1] in walk.constants:
        shape = _array(walk, node.input[1], integers=True).tolist()
        if len(shape) != 2:
            raise ValueError(f"{name} makes the shape {shape}, where a row for each image is expected")
    if walk.order != "rows" and (not walk.steps or walk.steps[-1].kind != "mean"):
        if node.op_type == "Squeeze":
            raise ValueError(f"{name} takes maps where a VGG has rows")
        yield LayerStep(kind="flatten_chw" if walk.order == "nchw" else "flatten_hwc", name=name)
    walk.order = "rows"


def _transpose(walk: _Walk, node: Any, name: str) -> None:
    turned = tuple(_attributes(walk, node).get("perm", ()))
    if walk.order == "nchw" and turned == _TO_NHWC:
        walk.order = "nhwc"
    elif walk.order == "nhwc" and turned == _TO_NCHW:
        walk.order = "nchw"
    else:
        raise ValueError(f"{name} turns axes by {list(turned)}, which the paper's networks do not")


def _reversed(walk: _Walk, node: Any, name: str) -> LayerStep:
    """Return the exchange of red and blue."""
    if node.op_type == "Gather":
        axes: tuple[int, ...] | None = (_attributes(walk, node).get("axis", 0),)
        backwards = _integers(walk, node, "", 1) == (2, 1, 0)
    else:
        starts, _, axes, steps = (_integers(walk, node, "", position) for position in range(1, 5))
        backwards = steps == (-1,) and starts in ((-1,), (2,))
    channels = {"nchw": 1, "nhwc": 3}.get(walk.order)
    if not backwards or channels is None or [axis % 4 for axis in axes or ()] != [channels]:
        raise ValueError(f"{name} takes a part of its input, which the paper's networks do not")
    return LayerStep(kind="reverse", name=name)


def _arithmetic(walk: _Walk, node: Any, name: str) -> Iterator[LayerStep]:
    """Yield arithmetic with a number or one for each channel; a bias goes into the layer before."""
    first = node.input[0] == walk.current
    if not first and node.op_type in ("Sub", "Div"):
        raise ValueError(f"{name} subtracts its input from a number or divides by it, which no VGG does")
    values = _by_channel(walk, _array(walk, node.input[1 if first else 0]), name).double()
    layer = walk.steps[-1] if walk.steps and walk.steps[-1].kind in ("conv", "dense") else None
    values = values.expand(len(layer.bias) if layer else 3) if len(values) == 1 else values
    ones, zeros = torch.ones_like(values), torch.zeros_like(values)
    weight, bias = {
        "Add": (ones, values),
        "Sub": (ones, -values),
        "Mul": (values, zeros),
        "Div": (1 / values, zeros),
    }[node.op_type]
    if layer and node.op_type in ("Add", "Sub") and len(values) == len(layer.bias):
        walk.steps[-1] = replace(layer, bias=(layer.bias + bias).float())
    else:
        exact = not any(step.kind == "conv" for step in walk.steps)  # pixels are counted in float64
        yield LayerStep(
            kind="scale", name=name, weight=weight if exact else weight.float(), bias=bias if exact else bias.float()
        )


def _by_channel(walk: _Walk, values: Tensor, name: str) -> Tensor:
    """Return the numbers [C] or [1] of an array that is the same for all images and positions.

    Raises:
        ValueError: it differs from position to position.
    """
    axes = 2 if walk.order == "rows" else 4
    shape = [1] * (axes - values.ndim) + list(values.shape)
    channel = 1 if walk.order in ("nchw", "rows") else 3
    if values.numel() not in (1, shape[channel] if len(shape) == axes else 0):
        raise ValueError(f"{name} computes with an array {list(values.shape)}: other numbers for each position")
    if not values.isfinite().all():
        raise ValueError(f"{name} computes with numbers that are not finite")
    return values.flatten()
