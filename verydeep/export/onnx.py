"""ONNX files, in float32 or INT8: written with ONNX, quantised and computed by ONNX Runtime."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from verydeep.export.checksum import SHA256, UNSTATED, check_checksum, state_checksum
from verydeep.export.exported_net import (
    INPUT,
    OUTPUTS,
    Compute,
    ExportedNet,
    batch_of_one,
    checked_net,
    errors_of_runtime,
)
from verydeep.export.metadata import KEY, Metadata, from_json
from verydeep.export.onnx_graph import onnx_model
from verydeep.machine.libraries import library
from verydeep.runs.model import Model

_QUANTISED = ("Conv", "MatMul", "MaxPool", "Slice", "Gather", "Transpose", "Reshape")
"""Operators: the products, and what moves their results on without a change of range."""


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


def read(file: Path) -> tuple[ExportedNet, Metadata]:
    """Read a file that `write` made.

    Raises:
        ValueError: it is another file, or a damaged one.
        OSError: it cannot be read.
    """
    onnx = library("onnx")
    try:
        model = onnx.load(file, load_external_data=False)
    except Exception as error:  # protobuf has its own
        raise ValueError(f"it is no ONNX file, or a damaged one ({error})") from error
    stated = {entry.key: entry.value for entry in model.metadata_props}
    metadata = from_json(stated.get(KEY))
    check_checksum(file, stated.get(SHA256))
    if any(map(onnx.external_data_helper.uses_external_data, _tensors(model))):
        raise ValueError("its weights are in other files")
    del model
    return checked_net(_compute_by_onnxruntime(file), metadata), metadata


def reread(file: Path) -> ExportedNet:
    """Return the network of a file just written."""
    return read(file)[0]


def _compute_by_onnxruntime(file: Path) -> Compute:
    """Return what computes, by ONNX Runtime, a file that has no data outside of it."""
    runtime = library("onnxruntime")
    options = runtime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.log_severity_level = 4  # fatal: errors are raised
    with errors_of_runtime(file):
        session = runtime.InferenceSession(file, options, providers=["CPUExecutionProvider"], enable_fallback=0)

    def compute(images: NDArray[np.float32]) -> tuple[Tensor, Tensor]:
        with errors_of_runtime(file):
            logits, score_map = session.run(list(OUTPUTS), {INPUT: images})
            return torch.from_numpy(logits), torch.from_numpy(score_map)

    return compute


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

    def __len__(self) -> int:
        return 0
