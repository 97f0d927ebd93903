"""Keras: legacy `.h5` of weights or whole models, and Keras 3's `.weights.h5` and `.keras`.

Names blockN_convM with kernels HWIO; fc1 (inputs in h, w, c order), fc2, predictions IO.
"""

import re
from collections.abc import Mapping
from pathlib import Path

from torch import Tensor

from verydeep.machine.libraries import library
from verydeep.networks.architecture import CONFIGURATIONS
from verydeep.networks.foreign.named_arrays import NamedArrays
from verydeep.networks.foreign.reader_process import read_apart
from verydeep.networks.foreign.recognition import HEAD, fc6_window, last_channels


def read_keras(path: Path) -> NamedArrays:
    """Read the arrays of a Keras file, `LAYER.kernel` and `LAYER.bias`, in the order of the layers.

    Raises:
        ValueError: not Keras', damaged, layers with other arrays than a kernel and a bias, or h5py is missing.
    """
    library("h5py", needed_by="it")
    arrays = read_apart("keras", path)
    return NamedArrays(arrays={name.partition("/")[2]: value for name, value in arrays.items()}, layout="keras")


def from_keras(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the weights under this package's names and in its axes.

    Raises:
        ValueError: an array that a VGG of Keras does not have.
    """
    convolutions = [name for name, value in weights.items() if value.ndim == 4]
    dense = [name for name, value in weights.items() if value.ndim == 2]
    if len(dense) not in (0, 3):
        raise ValueError(f"it has {len(dense)} fully connected layers: a VGG has three (or, for features only, none)")
    if any(weights[name].shape[0] != weights[name].shape[1] for name in convolutions):
        raise ValueError("its kernels are in Theano's order of axes, which is not read")
    ours: dict[str, Tensor] = {}
    for kernel, layer in (_convolution_names(weights, convolutions) | dict(zip(dense, HEAD, strict=False))).items():
        value = weights[kernel]
        ours[f"{layer}.weight"] = value.permute(3, 2, 0, 1) if value.ndim == 4 else value.T
        bias = f"{kernel.removesuffix('.kernel')}.bias"
        if bias in weights:
            ours[f"{layer}.bias"] = weights[bias]
    if dense:
        side, rows = fc6_window(ours), ours["fc6.weight"]
        maps = rows.reshape(len(rows), side, side, last_channels(ours))
        ours["fc6.weight"] = maps.permute(0, 3, 1, 2).flatten(1)
    return ours


def _convolution_names(weights: Mapping[str, Tensor], convolutions: list[str]) -> dict[str, str]:
    """Return this package's names of convolutions: by Keras' own where they tell the stage, else by their order."""
    matches = {name: re.fullmatch(r"block(\d)_conv(\d+)\.kernel", name) for name in convolutions}
    if convolutions and all(matches.values()):
        return {name: f"conv{match[1]}_{match[2]}" for name, match in matches.items() if match}
    stages = enumerate(_kernels_by_stage([weights[name].shape[0] for name in convolutions]), 1)
    ours = [f"conv{stage}_{position}" for stage, sides in stages for position in range(1, len(sides) + 1)]
    return dict(zip(convolutions, ours, strict=True))


def _kernels_by_stage(sides: list[int]) -> tuple[tuple[int, ...], ...]:
    for configuration in CONFIGURATIONS.values():
        if sides == [side for stage in configuration.kernels for side in stage]:
            return configuration.kernels
    raise ValueError(f"no network of the paper has {len(sides)} convolutions with kernels of {sides}")
