"""A network as an ONNX graph, written layer by layer, so that one file takes any batch, height and width.

An exporter would trace one size, and every number that depends on it would have to be undone. A VGG is a list of
layers, so the graph is written from that list, and nodes and weights have the paper's names.
"""

from typing import Any

import numpy as np
from torch import Tensor
from torch.nn.utils.fusion import fuse_conv_bn_weights

from verydeep.export.exported_net import INPUT, OUTPUTS
from verydeep.export.metadata import KEY, Metadata
from verydeep.machine.libraries import library
from verydeep.networks.architecture import Layer
from verydeep.networks.configurations import DOWNSAMPLING
from verydeep.networks.vgg import VGG

_OPSET = 18
"""The first in which ReduceMean takes its axes as every later one does."""

_IR_VERSION = 9
"""What runtimes of 2023 already read."""

_TO_THE_END = 2**62


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
    `logits` [batch, classes]: at the crop size what `forward` gives, of larger images the paper's dense scores.
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
    """Add a convolution, or what follows one at each position by itself."""
    match layer.kind:
        case "conv":
            weight, bias = _convolution(net, layer.name)
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


def _convolution(net: VGG, name: str) -> tuple[Tensor, Tensor]:
    """Return weights [outputs, inputs, k, k] and biases, with the batch normalisation that follows multiplied in."""
    convolution: Any = net.get_submodule(name)
    if not net.architecture.batch_norm:
        return convolution.weight, convolution.bias
    norm: Any = net.get_submodule(name.replace("conv", "bn"))
    return fuse_conv_bn_weights(
        convolution.weight, convolution.bias, norm.running_mean, norm.running_var, norm.eps, norm.weight, norm.bias
    )


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
