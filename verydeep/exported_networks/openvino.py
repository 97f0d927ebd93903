"""OpenVINO files, in float32, bfloat16 or INT8: made from the ONNX graph, quantised by NNCF."""

import io
import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, redirect_stdout
from itertools import pairwise
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import torch
from jaxtyping import Float32
from torch import Tensor

from verydeep.exported_networks.exported import (
    INPUT,
    OUTPUTS,
    ExportedNet,
    batch_of_one,
    check_operators,
    checked_net,
    errors_of_runtime,
)
from verydeep.exported_networks.formats import weights_beside
from verydeep.exported_networks.layers import Compute, FileLayers, tensors_of_layers
from verydeep.exported_networks.metadata import (
    KEY,
    SHA256,
    UNSTATED,
    Metadata,
    checked_sha256,
    from_json,
    state_checksum,
)
from verydeep.exported_networks.onnx import onnx_model
from verydeep.machine.libraries import library
from verydeep.networks.architecture import Architecture, LayerKind
from verydeep.runs.model import Model

_KEPT_PRIMITIVES = 64
"""OpenVINO's kept primitives, one for each layer and size of image: its usual 5,000 take 172 MiB by 500 sizes."""


_COMPUTING = ("Add", "Convolution", "Divide", "FloorMod", "LRN", "MatMul", "MaxPool", "Multiply", "ReduceMean", "ReLU")
_MOVING = ("Broadcast", "Concat", "Gather", "Range", "Reshape", "ShapeOf", "Slice", "Transpose", "Unsqueeze")
_ROUNDING = ("Convert", "FakeQuantize")
_OPERATORS = frozenset((*_COMPUTING, *_MOVING, *_ROUNDING, "Const", "Parameter", "Result", "Subtract"))
"""All that OpenVINO and NNCF make of `onnx_model`; others may compute for ever (Loop)."""


def write(model: Model, metadata: Metadata, calibration: Sequence[Tensor], file: Path) -> None:
    """Write an `.xml` and a `.bin`, in INT8 if the metadata say so, calibrated on images uint8 [3, H, W]."""
    openvino = library("openvino")
    graph = openvino.Core().read_model(onnx_model(model.net, metadata).SerializeToString())
    if metadata.int8:
        graph = _quantised(graph, calibration)
    graph.set_rt_info(metadata.to_json(), KEY)
    graph.set_rt_info(UNSTATED, SHA256)
    openvino.serialize(graph, file, weights_beside(file))
    state_checksum(file)


def read(file: Path) -> tuple[ExportedNet, Metadata, str]:
    """Read files that `write` made.

    Raises:
        ValueError: they are other files, or damaged.
        OSError: they cannot be read.
    """
    metadata, sha256 = _checked(file)
    with errors_of_runtime(file):
        graph = library("openvino").Core().read_model(file)
        names = tuple(_tensors_of_layers(graph, metadata.architecture))
    layers = FileLayers(names=names, file=file, sha256=sha256, opened=_opened, channels_last=True)
    net = checked_net(_compute_by_openvino(file, graph, bf16=metadata.bf16), metadata, layers)
    return net, metadata, sha256


def _checked(file: Path) -> tuple[Metadata, str]:
    """Return the metadata and the SHA-256 of files that `write` made."""
    try:
        document = ElementTree.parse(file)
    except (ElementTree.ParseError, LookupError) as error:  # LookupError: an encoding that nobody knows
        raise ValueError(f"it is not an OpenVINO file, or it is damaged ({error})") from error
    facts = document.find("rt_info")
    stated = {} if facts is None else {entry.tag: entry.get("value") for entry in facts}
    metadata = from_json(stated.get(KEY))
    sha256 = checked_sha256(file, stated.get(SHA256))
    check_operators({str(layer.get("type")) for layer in document.iter("layer")}, _OPERATORS)
    return metadata, sha256


def reread(file: Path) -> ExportedNet:
    """Return the network of a file just written."""
    return read(file)[0]


def _compute_by_openvino(
    file: Path, graph: Any, outputs: Sequence[str] | Sequence[int] = OUTPUTS, *, bf16: bool = False
) -> Compute:
    """Return a function that computes outputs of a file's graph, or of a part of it, by OpenVINO.

    Left to itself OpenVINO computes in bfloat16 on some processors, so the precision of all that is not in INT8 is
    stated. On a processor that does not multiply in bfloat16 it computes such a file in float32.
    """
    core = library("openvino").Core()
    options = {
        "INFERENCE_PRECISION_HINT": "bf16" if bf16 else "f32",
        "INFERENCE_NUM_THREADS": torch.get_num_threads(),
        "CPU_RUNTIME_CACHE_CAPACITY": _KEPT_PRIMITIVES,
    }
    with errors_of_runtime(file):
        compiled = core.compile_model(graph, "CPU", options)

    def compute(images: Float32[np.ndarray, "B C H W"]) -> Sequence[Float32[Tensor, "B ..."]]:
        with errors_of_runtime(file):
            values = compiled(images)
            return [torch.from_numpy(values[one]) for one in outputs]

    return compute


def _opened(file: Path, names: Sequence[str]) -> tuple[Compute, str]:
    """Return what `FileLayers.opened` says."""
    openvino, (metadata, sha256) = library("openvino"), _checked(file)
    outputs: Sequence[str] | Sequence[int] = OUTPUTS
    with errors_of_runtime(file):
        graph = openvino.Core().read_model(file)
        if names != OUTPUTS:
            tensors, outputs = _tensors_of_layers(graph, metadata.architecture), range(len(names))
            graph = openvino.Model([tensors[name] for name in names], graph.get_parameters(), "layers")
    return _compute_by_openvino(file, graph, outputs, bf16=metadata.bf16), sha256


_LAYERS: dict[str, LayerKind] = {"Relu": "relu", "LRN": "lrn", "MaxPool": "pool"}
"""Kinds of layers that operators on the way from the images to the scores are; others move or round."""

_BEFORE_BIASES: dict[str, LayerKind] = {"Convolution": "conv", "MatMul": "linear"}
"""Operators that are a layer together with the addition of biases after them."""


def _tensors_of_layers(graph: Any, architecture: Architecture) -> dict[str, Any]:
    """Return the `openvino.Output` of each layer in an `openvino.Model`; none if its layers are not the network's."""
    steps: list[tuple[LayerKind, Any]] = []
    for before, node in pairwise(_way_to_the_scores(graph)):
        operator = node.get_type_name()
        if kind := _BEFORE_BIASES.get(before.get_type_name()) if operator == "Add" else _LAYERS.get(operator):
            steps.append((kind, node.output(0)))
    return tensors_of_layers(architecture, steps)


def _way_to_the_scores(graph: Any) -> list[Any]:
    """Return the nodes through which images become the score map, each the first input of the next."""
    nodes = [graph.output(OUTPUTS[1]).get_node()]
    while nodes[-1].get_input_size():
        nodes.append(nodes[-1].input_value(0).get_node())
    images = graph.input(INPUT).get_node()
    return nodes[::-1] if nodes[-1].get_name() == images.get_name() else []


def _quantised(model: Any, images: Sequence[Tensor]) -> Any:
    """Return an `openvino.Model` with 8-bit weights, a scale for each output channel, and 8-bit activations.

    Ranges are the extremes that were met. The library's default, their averages over the images, cuts off the values
    that the largest scores rest on: a net A on digits had scores off by 41% of the largest, and by 3% with the
    extremes.
    """
    nncf = library("nncf")
    ranges = library("nncf.quantization.range_estimator").RangeEstimatorParametersSet.MINMAX
    with _quiet(nncf):
        return nncf.quantize(
            model,
            nncf.Dataset(images, batch_of_one),
            preset=nncf.QuantizationPreset.MIXED,
            subset_size=len(images),
            advanced_parameters=nncf.AdvancedQuantizationParameters(activations_range_estimator_params=ranges),
        )


@contextmanager
def _quiet(nncf: Any) -> Iterator[None]:
    """Keep the library's progress bars off standard output."""
    before = logging.getLogger("nncf").level
    nncf.set_log_level(logging.ERROR)
    try:
        with redirect_stdout(io.StringIO()):
            yield
    finally:
        nncf.set_log_level(before)
