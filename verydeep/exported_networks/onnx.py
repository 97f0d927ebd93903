"""ONNX files, in float32 or INT8: written with ONNX, quantised and computed by ONNX Runtime."""

import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float32
from numpy.typing import NDArray
from torch import Tensor

from verydeep.exported_networks.exported import (
    INPUT,
    OUTPUTS,
    ExportedNet,
    batch_of_one,
    check_operators,
    checked_net,
    convolution_as_tested,
    errors_of_runtime,
)
from verydeep.exported_networks.layers import Compute, FileLayers
from verydeep.exported_networks.metadata import (
    KEY,
    SHA256,
    UNSTATED,
    Metadata,
    checked_sha256,
    from_json,
    state_checksum,
)
from verydeep.exported_networks.onnx_layers import cut, tensors_in
from verydeep.machine.libraries import library
from verydeep.networks.architecture import DOWNSAMPLING, Layer
from verydeep.networks.vgg import VGG
from verydeep.numbers import counted
from verydeep.runs.model import Model

_OPSET = 18
"""The first in which ReduceMean takes its axes as every later one does."""

_IR_VERSION = 9
"""Version that runtimes of 2023 already read."""

_TO_THE_END = 2**62

_MOST_VALUES_A_BYTE = 2
"""Values of a tensor in a byte: the smallest have 4 bits."""

_COMPUTING = ("Add", "Conv", "DequantizeLinear", "Div", "LRN", "MatMul", "MaxPool", "Mod", "QuantizeLinear", "Sub")
_MOVING = ("Gather", "Range", "Reshape", "Shape", "Slice", "Transpose", "Unsqueeze")
_OPERATORS = frozenset((*_COMPUTING, *_MOVING, "ReduceMean", "Relu"))
"""All that `onnx_model` and `_quantise` write; others may compute for ever (Loop) or make large tensors of nothing."""


class _Graph:
    """Nodes and constants while the graph is built."""

    def __init__(self) -> None:
        self.nodes: list[Any] = []
        self.constants: list[Any] = []

    def constant(self, name: str, value: Any) -> str:
        array = value.detach().cpu().numpy() if isinstance(value, Tensor) else value
        self.constants.append(library("onnx").numpy_helper.from_array(np.asarray(array, order="C"), name))
        return name

    def node(self, kind: str, inputs: list[str], output: str, **attributes: Any) -> str:
        self.nodes.append(library("onnx").helper.make_node(kind, inputs, [output], name=output, **attributes))
        return output


def onnx_model(net: VGG, metadata: Metadata) -> Any:
    """Return the `onnx.ModelProto` of a network in its testing mode.

    `images` [batch, 3, height, width] in 0..255 give `score_map` [batch, classes, h, w] and its mean over space,
    `logits` [batch, classes]: at the crop size the result of `forward`, of larger images the paper's dense scores.
    """
    onnx = library("onnx")
    helper, graph = onnx.helper, _Graph()
    x = graph.node("Sub", [INPUT, graph.constant("mean_rgb", net.mean_rgb[None, :, None, None])], "minus_mean")
    offset = _offset(graph)
    architecture = net.architecture
    for layer in architecture.layers():
        if layer.kind == "pool":
            x, offset = _pool(graph, layer.name, x, offset)
        elif layer.kind == "linear":
            rows = _windows(graph, x, architecture.window) if layer.name == "fc6" else x
            x = _linear(graph, net, layer.name, rows)
        else:
            x = _pointwise(graph, net, layer, x)
    logits, score_map = OUTPUTS
    graph.node("Transpose", [x], score_map, perm=[0, 3, 1, 2])
    graph.node("ReduceMean", [score_map, "height_and_width"], logits, keepdims=0)
    real = onnx.TensorProto.FLOAT
    given = [helper.make_tensor_value_info(INPUT, real, ["batch", 3, "height", "width"])]
    results = [
        helper.make_tensor_value_info(logits, real, ["batch", architecture.outputs]),
        helper.make_tensor_value_info(score_map, real, ["batch", architecture.outputs, "rows", "columns"]),
    ]
    model = helper.make_model(
        helper.make_graph(graph.nodes, f"VGG-{architecture.network}", given, results, graph.constants),
        opset_imports=[helper.make_opsetid("", _OPSET)],
        ir_version=_IR_VERSION,
        producer_name=KEY,
        producer_version=metadata.version,
    )
    helper.set_model_props(model, {KEY: metadata.to_json()})
    return model


def _offset(graph: _Graph) -> str:
    """Add [2], (H mod 32) // 2 and (W mod 32) // 2, whose binary digits the poolings take (`VGG.score_map`)."""
    graph.constant("height_and_width", np.array([2, 3]))
    graph.constant("ends", np.array([_TO_THE_END, _TO_THE_END]))
    graph.constant("two", np.int64(2))
    graph.node("Shape", [INPUT], "sides", start=2, end=4)
    graph.node("Mod", ["sides", graph.constant("downsampling", np.int64(DOWNSAMPLING))], "rest")
    return graph.node("Div", ["rest", "two"], "offset")


def _pool(graph: _Graph, name: str, x: str, offset: str) -> tuple[str, str]:
    digit = graph.node("Mod", [offset, "two"], f"{name}_digit")
    rest_of_offset = graph.node("Div", [offset, "two"], f"{name}_offset")
    x = graph.node("Slice", [x, digit, "ends", "height_and_width"], f"{name}_grid")
    return graph.node("MaxPool", [x], name, kernel_shape=[2, 2], strides=[2, 2]), rest_of_offset


def _pointwise(graph: _Graph, net: VGG, layer: Layer, x: str) -> str:
    """Add a convolution, or a layer that treats each position alone."""
    match layer.kind:
        case "conv":
            weight, bias = convolution_as_tested(net, layer.name)
            inputs = [x, graph.constant(f"{layer.name}.weight", weight), graph.constant(f"{layer.name}.bias", bias)]
            pads = [layer.kernel // 2] * 4
            return graph.node("Conv", inputs, layer.name, kernel_shape=[layer.kernel] * 2, pads=pads)
        case "relu":
            return graph.node("Relu", [x], layer.name)
        case "lrn":
            lrn: Any = net.get_submodule(layer.name)
            alpha = lrn.alpha * lrn.n  # which the node divides by n
            return graph.node("LRN", [x], layer.name, size=lrn.n, alpha=alpha, beta=lrn.beta, bias=lrn.k)
        case _:
            return x  # the normalisation is in the convolution's weights, dropout does nothing in a test


def _windows(graph: _Graph, pool5: str, window: int) -> str:
    """Add [B, h, w, C * window**2]: all windows of `pool5` that fc6 covers, as rows (a convolution takes longer)."""
    graph.node("Shape", [pool5], "pool5_sides", start=2, end=4)
    graph.node("Sub", ["pool5_sides", graph.constant("window_less_1", np.int64(window - 1))], "positions")
    graph.constant("steps", np.arange(window))
    graph.constant("zero", np.int64(0))
    graph.constant("one", np.int64(1))
    graph.constant("second_axis", np.array([1]))
    x = pool5
    for axis, name in enumerate(("rows", "columns")):
        graph.node("Gather", ["positions", graph.constant(f"axis_{name}", np.int64(axis))], f"number_of_{name}")
        graph.node("Range", ["zero", f"number_of_{name}", "one"], f"first_{name}")
        graph.node("Unsqueeze", [f"first_{name}", "second_axis"], f"first_{name}_upright")
        graph.node("Add", [f"first_{name}_upright", "steps"], f"window_{name}")
        x = graph.node("Gather", [x, f"window_{name}"], f"windows_by_{name}", axis=2 + 2 * axis)
    graph.node("Transpose", [x], "windows", perm=[0, 2, 4, 1, 3, 5])
    return graph.node("Reshape", ["windows", graph.constant("as_rows", np.array([0, 0, 0, -1]))], "windows_as_rows")


def _linear(graph: _Graph, net: VGG, name: str, rows: str) -> str:
    layer: Any = net.get_submodule(name)
    product = graph.node("MatMul", [rows, graph.constant(f"{name}.weight", layer.weight.T)], f"{name}_product")
    return graph.node("Add", [product, graph.constant(f"{name}.bias", layer.bias)], name)


_QUANTISED = ("Conv", "Relu", "MatMul", "MaxPool", "Slice", "Gather", "Transpose", "Reshape")
"""Operators: the products, and those that pass their results on. With ReLU among them a convolution's result is rounded
once, after it, to 8 bits from 0 up; else twice, with float32 in between (docs/LOG.md)."""


def write(model: Model, metadata: Metadata, calibration: Sequence[Tensor], file: Path) -> None:
    """Write an `.onnx`, in INT8 if the metadata say so, calibrated on images uint8 [3, H, W]."""
    onnx = library("onnx")
    graph = onnx_model(model.net, metadata)
    if metadata.int8:
        _quantise(graph, calibration, file)
        graph = onnx.load(file)
    onnx.helper.set_model_props(graph, {KEY: metadata.to_json(), SHA256: UNSTATED})
    onnx.save(graph, file)
    state_checksum(file)


def read(file: Path) -> tuple[ExportedNet, Metadata, str]:
    """Read a file that `write` made.

    Raises:
        ValueError: it is another file, or a damaged one.
        OSError: it cannot be read.
    """
    model, metadata, sha256 = _checked(file)
    with errors_of_runtime(file):
        names = tuple(tensors_in(model.graph, metadata.architecture))
    del model  # or memory would hold the weights twice
    layers = FileLayers(names=names, file=file, sha256=sha256, opened=_opened, channels_last=True)
    return checked_net(_compute_by_onnxruntime(file), metadata, layers), metadata, sha256


def _checked(file: Path) -> tuple[Any, Metadata, str]:
    """Return the `onnx.ModelProto` of a file that `write` made, its metadata and its SHA-256."""
    try:
        model = library("onnx").load(file, load_external_data=False)
    except Exception as error:  # protobuf has its own
        raise ValueError(f"it is not an ONNX file, or it is damaged ({error})") from error
    stated = {entry.key: entry.value for entry in model.metadata_props}
    metadata = from_json(stated.get(KEY))
    sha256 = checked_sha256(file, stated.get(SHA256))
    _check_contents(model, file.stat().st_size)
    return model, metadata, sha256


def _check_contents(model: Any, size: int) -> None:
    """Refuse graphs that `write` does not write, before a runtime sees them.

    Raises:
        ValueError: weights in other files, operators of others, or tensors that claim more than the file can hold.
    """
    uses_external_data = library("onnx").external_data_helper.uses_external_data
    for tensor in _tensors(model):
        if uses_external_data(tensor):
            raise ValueError("its weights are in other files")
        if min(tensor.dims, default=0) < 0 or math.prod(tensor.dims) > _MOST_VALUES_A_BYTE * size:
            claim = " x ".join(map(str, tensor.dims))
            raise ValueError(
                f"a tensor in it, {tensor.name}, claims {claim} values, more than {counted(size, 'byte')} can hold"
            )
    check_operators({".".join(filter(None, (node.domain, node.op_type))) for node in model.graph.node}, _OPERATORS)
    if model.functions or model.graph.sparse_initializer:
        raise ValueError("its graph has functions or sparse tensors, which verydeep export does not write")


def reread(file: Path) -> ExportedNet:
    """Return the network of a file just written."""
    return read(file)[0]


def _compute_by_onnxruntime(file: Path, outputs: Sequence[str] = OUTPUTS, part: bytes | None = None) -> Compute:
    """Return a function that computes, by ONNX Runtime, a file that has no data outside of it, or a part of one."""
    runtime = library("onnxruntime")
    options = runtime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.log_severity_level = 4  # fatal: errors are raised
    # Threads that wait in a loop take the cores from those that decode the next images, or answer requests.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    with errors_of_runtime(file):
        session = runtime.InferenceSession(part or file, options, providers=["CPUExecutionProvider"], enable_fallback=0)
    session._model_bytes = None  # of a part, which it would keep beside its own copy of the weights

    def compute(images: Float32[np.ndarray, "B C H W"]) -> Sequence[Float32[Tensor, "B ..."]]:
        with errors_of_runtime(file):
            return [torch.from_numpy(value) for value in session.run(list(outputs), {INPUT: images})]

    return compute


def _opened(file: Path, names: Sequence[str]) -> tuple[Compute, str]:
    """Return what `FileLayers.opened` says."""
    model, metadata, sha256 = _checked(file)
    if names == OUTPUTS:
        return _compute_by_onnxruntime(file), sha256
    tensors = tensors_in(model.graph, metadata.architecture)
    outputs = [tensors[name] for name in names]
    cut(model.graph, outputs)
    return _compute_by_onnxruntime(file, outputs, model.SerializeToString()), sha256


def _tensors(message: Any) -> Iterator[Any]:
    """Yield every `TensorProto` in an ONNX message: initializers, attributes of nodes, subgraphs, functions."""
    if message.DESCRIPTOR.name == "TensorProto":
        yield message
        return
    for field, value in message.ListFields():
        if field.message_type is not None:
            for part in (value,) if hasattr(value, "DESCRIPTOR") else value:
                yield from _tensors(part)


def _quantise(model: Any, images: Sequence[Tensor], file: Path) -> None:
    """Write an `onnx.ModelProto` with 8-bit weights and activations.

    Weights have a scale for each output channel, activations one for each tensor. Activations are unsigned and weights
    signed (QDQ). Processors with AVX2 or AVX-512 but without VNNI add those up with saturation, so measure the error
    where the file will be used.
    """
    quantization = library("onnxruntime.quantization")
    library("onnxruntime.quantization.quant_utils").add_pre_process_metadata(model)  # there is nothing left to fold
    quantization.quantize_static(
        model,
        file,
        _Reader(images),
        quant_format=quantization.QuantFormat.QDQ,
        op_types_to_quantize=list(_QUANTISED),
        per_channel=True,
        activation_type=quantization.QuantType.QUInt8,
        weight_type=quantization.QuantType.QInt8,
        calibrate_method=quantization.CalibrationMethod.MinMax,
    )


class _Reader:
    """Images one by one, as the library asks for them."""

    def __init__(self, images: Sequence[Tensor]) -> None:
        self._left = iter(images)

    def get_next(self) -> dict[str, NDArray[np.float32]] | None:
        image = next(self._left, None)
        return None if image is None else {INPUT: batch_of_one(image)}
