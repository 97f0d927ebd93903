"""OpenVINO files, in float32, bfloat16 or INT8: made from the ONNX graph, quantised by NNCF."""

import io
import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, redirect_stdout
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import torch
from jaxtyping import Float32
from torch import Tensor

from verydeep.exported_networks.exported import (
    OUTPUTS,
    Compute,
    ExportedNet,
    Scores,
    batch_of_one,
    checked_net,
    errors_of_runtime,
)
from verydeep.exported_networks.metadata import (
    KEY,
    SHA256,
    UNSTATED,
    Metadata,
    checked_sha256,
    from_json,
    state_checksum,
    weights_beside,
)
from verydeep.exported_networks.onnx import onnx_model
from verydeep.machine.libraries import library
from verydeep.runs.model import Model

_KEPT_PRIMITIVES = 64
"""OpenVINO's kept primitives, one for each layer and size of image: its usual 5,000 take 172 MiB by 500 sizes."""


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
    try:
        facts = ElementTree.parse(file).find("rt_info")
    except (ElementTree.ParseError, LookupError) as error:  # LookupError: an encoding that nobody knows
        raise ValueError(f"it is not an OpenVINO file, or it is damaged ({error})") from error
    stated = {} if facts is None else {entry.tag: entry.get("value") for entry in facts}
    metadata = from_json(stated.get(KEY))
    sha256 = checked_sha256(file, stated.get(SHA256))
    return checked_net(_compute_by_openvino(file, bf16=metadata.bf16), metadata), metadata, sha256


def reread(file: Path) -> ExportedNet:
    """Return the network of a file just written."""
    return read(file)[0]


def _compute_by_openvino(file: Path, *, bf16: bool = False) -> Compute:
    """Return a function that computes a file by OpenVINO.

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
        compiled = core.compile_model(core.read_model(file), "CPU", options)

    def compute(images: Float32[np.ndarray, "B C H W"]) -> Scores:
        with errors_of_runtime(file):
            outputs = compiled(images)
            logits, score_map = (torch.from_numpy(outputs[name]) for name in OUTPUTS)
            return logits, score_map

    return compute


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
