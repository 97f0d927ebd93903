"""MatConvNet's `.mat` of a simple network: its `layers`, mean and classes.

Names convN_M with kernels HWIO; fc6, fc7, fc8 as convolutions. MatConvNet reads images as RGB. Its importer of Caffe
networks turns the first filters, so that they take RGB, and transposes the axes of all, so that the first is vertical
(vlfeat/matconvnet, utils/import-caffe.py). The mean in the file is in the same order; one that is ILSVRC's from blue to
red shows that the filters take BGR after all.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from verydeep.machine.documents import parse_json
from verydeep.networks.foreign.caffe import from_caffe
from verydeep.networks.foreign.layouts import TakenWeights, Triple
from verydeep.networks.foreign.named_arrays import NamedArrays
from verydeep.networks.foreign.reader_process import read_apart
from verydeep.networks.foreign.reader_program import VARIABLES
from verydeep.networks.vgg import ILSVRC_MEAN_RGB
from verydeep.numbers import counted, decimal

_SAME_MEAN = 1.0
"""Grey levels within which a mean counts as ILSVRC's."""

_VARIES = 0.05
"""Grey levels from which the variation of a mean image is told."""


def read_matconvnet(path: Path, _taken: TakenWeights) -> NamedArrays:
    """Read the arrays of a `.mat`, `LAYER.weight` [h, w, I, O] and `LAYER.bias`, its mean and its classes.

    Raises:
        ValueError: not MatConvNet's, damaged, or of MATLAB's version 7.3.
    """
    variables = _variables(path)
    layers = variables.get("layers")
    if isinstance(layers, list) and any(isinstance(layer, dict) for layer in layers):
        raise ValueError("it is a DagNN network: only simple ones (SimpleNN) are read")
    if not isinstance(layers, list):
        raise ValueError("it has no cells called layers: only simple networks (SimpleNN) are read")
    arrays: dict[str, Tensor] = {}
    for number, layer in enumerate(layers, 1):
        arrays |= _layer_arrays(number, _structure(layer))
    told = {**_structure(variables.get("meta")), **variables}
    mean, notes = _mean(_structure(told.get("normalization")).get("averageImage"))
    reversed_mean = mean is not None and np.allclose(mean, ILSVRC_MEAN_RGB[::-1], rtol=0, atol=_SAME_MEAN)
    return NamedArrays(
        arrays=arrays,
        layout="matconvnet",
        mean=mean,
        channels="bgr" if reversed_mean else None,
        classes=_classes(_structure(told.get("classes")).get("name")),
        notes=notes,
    )


def from_matconvnet(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the weights under this package's names and in its axes.

    Raises:
        ValueError: an entry that the paper's networks do not have, or one of another number of axes.
    """
    return from_caffe({name: _oihw(value) if name.endswith(".weight") else value for name, value in weights.items()})


def _oihw(value: Tensor) -> Tensor:
    """Transpose a kernel HWIO, whose last axes MATLAB drops if they have length 1; leave any other array as it is."""
    return value.reshape(*value.shape, *[1] * (4 - value.ndim)).permute(3, 2, 0, 1) if 2 <= value.ndim <= 4 else value


def _variables(path: Path) -> dict[str, Any]:
    """Return the variables: text as `str`, cells as lists, structures as lists of dictionaries, arrays as NumPy's."""
    arrays = read_apart("matlab", path)

    def with_arrays(told: Any) -> Any:
        if isinstance(told, int):
            return arrays[str(told)].numpy()
        if isinstance(told, list):
            return [with_arrays(element) for element in told]
        return {name: with_arrays(value) for name, value in told.items()} if isinstance(told, dict) else told

    variables: dict[str, Any] = with_arrays(parse_json(arrays[VARIABLES].numpy().tobytes(), dict[str, Any]))
    return variables


def _layer_arrays(number: int, layer: Mapping[str, Any]) -> dict[str, Tensor]:
    """Return the two arrays of a convolution, and nothing of a layer without weights."""
    name, kind, values = layer.get("name"), layer.get("type"), layer.get("weights")
    if not isinstance(values, list):  # an older network's; or an empty array, of a layer without weights
        values = [layer[key] for key in ("filters", "biases") if key in layer]
    if kind != "conv" and not values:
        return {}
    if kind != "conv" or len(values) != 2 or not isinstance(name, str):
        raise ValueError(
            f"the layer {number} ({name}) is a {kind} with {counted(len(values), 'array')}, which the paper's networks "
            "do not have"
        )
    weight, bias = values
    return {f"{name}.weight": _tensor(f"{name}.weight", weight), f"{name}.bias": _tensor(f"{name}.bias", bias)}


def _structure(value: Any) -> dict[str, Any]:
    """Return a structure of one element, and an empty one for anything else."""
    element = value[0] if isinstance(value, list) and len(value) == 1 else None
    return element if isinstance(element, dict) else {}


def _tensor(name: str, value: Any) -> Tensor:
    if not isinstance(value, np.ndarray):
        raise ValueError(f"{name} is not an array of numbers")
    return torch.from_numpy(value.astype(np.float32, copy=False))


def _mean(image: Any) -> tuple[Triple | None, tuple[str, ...]]:
    """Return the mean of the average image [H, W, 3], its channels in the order of the filters, and notes about it.

    Three numbers in a row or a column are a mean, too.
    """
    if not isinstance(image, np.ndarray) or not image.size or (image.shape[-1] != 3 and image.size != 3):
        what = "has no average image" if image is None else "has an average image of another shape than [H, W, 3]"
        return None, (f"it {what}: ILSVRC's mean is used unless another is given",)
    pixels = image.astype(np.float64).reshape(-1, 3)
    first, second, third = pixels.mean(axis=0)
    varies = float(np.ptp(pixels, axis=0).max())
    notes = (
        (f"the mean image varies by {decimal(varies, 1)} grey levels: its average is used",)
        if varies >= _VARIES
        else ()
    )
    return (float(first), float(second), float(third)), notes


def _classes(names: Any) -> tuple[str, ...] | None:
    """Return WordNet ids, or names."""
    return tuple(map(str, names)) if isinstance(names, list) else None
