"""Layers in an ONNX graph: the tensor of each, by the way from the images to the scores, and graphs that end there."""

from collections.abc import Sequence
from typing import Any

from verydeep.exported_networks.exported import INPUT, OUTPUTS
from verydeep.exported_networks.layers import tensors_of_layers
from verydeep.machine.libraries import library
from verydeep.networks.architecture import Architecture, LayerKind

_LAYERS: dict[str, LayerKind] = {"Conv": "conv", "Relu": "relu", "LRN": "lrn", "MaxPool": "pool", "Add": "linear"}
"""Kinds of layers that operators on the way from the images to the scores are; others move, round or subtract."""


def tensors_in(graph: Any, architecture: Architecture) -> dict[str, str]:
    """Return the tensor of each layer in an `onnx.GraphProto`; none if its layers are not the network's."""
    uint8 = library("onnx").TensorProto.UINT8
    arrays = (one for one in graph.initializer if one.data_type == uint8)
    zeros = {one.name for one in arrays if not library("onnx").numpy_helper.to_array(one).any()}
    steps: list[tuple[LayerKind, str | None]] = []
    nodes = _way_to_the_scores(graph)
    for place, node in enumerate(nodes):
        if node.op_type not in _LAYERS:
            continue
        relu = _relu_by_rounding(nodes[place : place + 4], zeros)
        steps += [("conv", None), ("relu", relu)] if relu else [(_LAYERS[node.op_type], node.output[0])]
    return tensors_of_layers(architecture, steps)


def _way_to_the_scores(graph: Any) -> list[Any]:
    """Return the nodes through which images become the score map, each the first input of the next."""
    tensor, nodes = OUTPUTS[1], []
    for node in reversed(graph.node):  # which are in order, or no runtime takes them
        if tensor in node.output[:1]:
            nodes.append(node)
            tensor = next(iter(node.input), "")
    return nodes[::-1] if tensor == INPUT else []


def _relu_by_rounding(nodes: Sequence[Any], zeros: set[str]) -> str | None:
    """Return the result of a convolution's rounding to 8 bits from 0 up, if that stands in the place of its ReLU.

    ONNX Runtime takes such a ReLU out of the graph, and the convolution, which is negative still, gets its name.
    """
    operators = [node.op_type for node in nodes]
    if operators[:3] != ["Conv", "QuantizeLinear", "DequantizeLinear"] or operators[3:] == ["Relu"]:
        return None
    _, quantize, dequantize, *_ = nodes
    from_zero = quantize.input[1:] == dequantize.input[1:] and zeros.issuperset(dequantize.input[2:])
    return dequantize.output[0] if from_zero else None


def cut(graph: Any, outputs: Sequence[str]) -> None:
    """Give a graph other outputs, and leave nothing in it that these do not need."""
    needed = set(outputs)
    for place in reversed(range(len(graph.node))):
        node = graph.node[place]
        if needed.isdisjoint(node.output):
            del graph.node[place]
        else:
            needed.update(node.input)
    for place in reversed(range(len(graph.initializer))):
        if graph.initializer[place].name not in needed:
            del graph.initializer[place]
    del graph.output[:]
    graph.output.extend(library("onnx").ValueInfoProto(name=name) for name in dict.fromkeys(outputs))
