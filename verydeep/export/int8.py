"""Networks in 8-bit integers, quantised after training: the libraries choose ranges from images that pass through.

Weights have a scale for each output channel, activations one for each tensor.
"""

import io
import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, redirect_stdout
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from verydeep.export.onnx import INPUT
from verydeep.machine.libraries import library

CALIBRATED = 300
"""Images; NNCF's own choice."""

QUANTISED = ("Conv", "MatMul", "MaxPool", "Slice", "Gather", "Transpose", "Reshape")
"""Operators: the products, and what moves their results on without a change of range."""


def int8_by_onnxruntime(model: Any, images: Sequence[Tensor], file: Path) -> None:
    """Writes an `onnx.ModelProto` with 8-bit weights and activations, calibrated on images uint8 [3, H, W].

    Activations are unsigned and weights signed (QDQ). Processors with AVX2 or AVX-512 but without VNNI add those up
    with saturation, so the error is to be measured where the file will be used.
    """
    quantization = library("onnxruntime.quantization")
    library("onnxruntime.quantization.quant_utils").add_pre_process_metadata(model)  # there is nothing left to fold
    quantization.quantize_static(
        model,
        file,
        _Reader(images),
        quant_format=quantization.QuantFormat.QDQ,
        op_types_to_quantize=list(QUANTISED),
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
        return None if image is None else {INPUT: _batch(image)}

    def __len__(self) -> int:
        return 0


def int8_by_nncf(model: Any, images: Sequence[Tensor]) -> Any:
    """An `openvino.Model` with 8-bit weights and activations, calibrated on images uint8 [3, H, W].

    Ranges are the extremes that were met. The library's default, averages over the images of those, cuts off what the
    largest scores rest on: a net A on digits had scores off by 41% of the largest, and by 3% with the extremes.
    """
    nncf = library("nncf")
    ranges = library("nncf.quantization.range_estimator").RangeEstimatorParametersSet.MINMAX
    with _quiet(nncf):
        return nncf.quantize(
            model,
            nncf.Dataset(images, _batch),
            preset=nncf.QuantizationPreset.MIXED,
            subset_size=len(images),
            advanced_parameters=nncf.AdvancedQuantizationParameters(activations_range_estimator_params=ranges),
        )


@contextmanager
def _quiet(nncf: Any) -> Iterator[None]:
    """Without its bars, which would stand on standard output."""
    before = logging.getLogger("nncf").level
    nncf.set_log_level(logging.ERROR)
    try:
        with redirect_stdout(io.StringIO()):
            yield
    finally:
        nncf.set_log_level(before)


def _batch(image: Tensor) -> NDArray[np.float32]:
    return image[None].float().contiguous().numpy()
