"""Keras: legacy `.h5` of weights or whole models, and Keras 3's `.weights.h5` and `.keras`.

Names blockN_convM with kernels HWIO; fc1 (inputs in h, w, c order), fc2, predictions IO.
"""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from verydeep.machine.documents import parse_json
from verydeep.machine.libraries import library
from verydeep.networks.architecture import CONFIGURATIONS
from verydeep.networks.foreign.heads import Affine, Head, channels_first
from verydeep.networks.foreign.keras_layers import keras_network
from verydeep.networks.foreign.layouts import Layout, TakenWeights
from verydeep.networks.foreign.named_arrays import NamedArrays, allowed_bytes
from verydeep.networks.foreign.reader_process import read_apart
from verydeep.networks.foreign.reader_program import CONFIGURATION
from verydeep.networks.foreign.recognition import HEAD, fc6_window, last_channels
from verydeep.numbers import counted

_HEADS = (HEAD, ("fc1", "fc2", "predictions"))
"""The paper's and Keras' names of the fully connected layers."""


def read_keras(path: Path, taken: TakenWeights) -> NamedArrays:
    """Read a Keras file: of a whole model its layers, else arrays, `LAYER.kernel` and `LAYER.bias`, in their order.

    Raises:
        ValueError: not Keras', damaged, layers that a VGG does not have, or h5py is missing.
    """
    library("h5py", needed_by="it")
    arrays = read_apart("keras", path)
    told = arrays.pop(CONFIGURATION).numpy().tobytes()
    layers: dict[str, list[Tensor]] = {}
    for name, value in arrays.items():
        layers.setdefault(name.partition("/")[2].rpartition(".")[0], []).append(value)
    model = _configuration(told)
    if model is not None:
        allowed = allowed_bytes(path.stat().st_size)
        return keras_network(model, layers, allowed=allowed, convolutions_only=taken.convolutions_only)
    return _from_kernels(_kernels(layers), "keras")


def _from_kernels(weights: Mapping[str, Tensor], layout: Layout) -> NamedArrays:
    """Return arrays `LAYER.kernel` and `LAYER.bias`, with fully connected layers that are not three as a head.

    Such a file does not name activations: ReLUs are assumed between these layers, and noted.
    """
    dense = _fully_connected_layers(weights)
    if len(dense) in (0, len(HEAD)):
        return NamedArrays(arrays=dict(weights), layout=layout)
    others = {name: value for name, value in weights.items() if name.rpartition(".")[0] not in dense}
    channels = next((weights[name].shape[-1] for name in reversed(_convolutions(others))), 0)
    layers = [_dense(weights, name, relu=name != dense[-1]) for name in dense]
    layers[0] = channels_first(layers[0], channels)
    note = f"ReLUs are assumed between {', '.join(dense)}, since its file does not say where they are"
    head = Head(layers=tuple(layers), sigmoid=len(layers[-1].bias) == 1)
    return NamedArrays(arrays=others, layout=layout, head=head, notes=(note,) if len(dense) > 1 else ())


def read_numpy(path: Path, _taken: TakenWeights) -> NamedArrays:
    """Read a `.npz` or `.npy` of the paper's layers as scripts for TensorFlow have them: conv1_1_W HWIO, fc6_W IO.

    Raises:
        ValueError: another format, damaged, or layers with other arrays than weights and a bias.
    """
    layers: dict[str, list[Tensor]] = {}
    for name, value in read_apart("numpy", path).items():
        layers.setdefault(name.partition("/")[2].rpartition(".")[0], []).append(value)
    return _from_kernels(_kernels(layers), "numpy")


def from_keras(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the weights under this package's names and in its axes.

    Raises:
        ValueError: an array that a VGG of Keras does not have.
    """
    convolutions = _convolutions(weights)
    dense = [f"{layer}.kernel" for layer in _fully_connected_layers(weights)]
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
        fc6_window(ours)  # raises if there is none
        first = Affine(weight=ours["fc6.weight"], bias=torch.zeros(0))
        ours["fc6.weight"] = channels_first(first, last_channels(ours)).weight
    return ours


def _configuration(told: bytes) -> dict[str, Any] | None:
    """Return a file's configuration of its layers; None for files of weights alone."""
    model = parse_json(told, dict[str, Any]) if told else {}
    config = model.get("config")
    layers = config if isinstance(config, list) else config.get("layers") if isinstance(config, dict) else None
    return model if layers else None


def _kernels(layers: Mapping[str, list[Tensor]]) -> dict[str, Tensor]:
    """Return arrays as `LAYER.kernel` and `LAYER.bias`.

    Raises:
        ValueError: a layer with other arrays.
    """
    named: dict[str, Tensor] = {}
    for layer, values in layers.items():
        kinds = [{1: "bias", 2: "kernel", 4: "kernel"}.get(value.ndim, "") for value in values]
        if kinds not in (["kernel"], ["kernel", "bias"]):
            raise ValueError(
                f"the layer {layer} has arrays of {[list(value.shape) for value in values]}, which no VGG has"
            )
        named |= {f"{layer}.{kind}": value for kind, value in zip(kinds, values, strict=True)}
    return named


def _dense(weights: Mapping[str, Tensor], name: str, *, relu: bool) -> Affine:
    kernel = weights[f"{name}.kernel"]
    bias = weights.get(f"{name}.bias", kernel.new_zeros(kernel.shape[1]))
    return Affine(weight=kernel.T, bias=bias, relu=relu)


def _fully_connected_layers(weights: Mapping[str, Tensor]) -> list[str]:
    """Return the names of fully connected layers in the network's order: by their names where these tell it.

    Scripts of Python 2 wrote dictionaries, which had no order of their own. Other names go by their order.
    """
    layers = [name.removesuffix(".kernel") for name, value in weights.items() if value.ndim == 2]
    for names in _HEADS:
        if {*layers} <= {*names}:
            return sorted(layers, key=names.index)
    return layers


def _convolutions(weights: Mapping[str, Tensor]) -> list[str]:
    """Return the names of kernels of convolutions in the network's order: by stage and position where all tell it."""
    kernels = [name for name, value in weights.items() if value.ndim == 4]
    places = _places(kernels)
    return sorted(kernels, key=lambda name: places[name]) if places else kernels


def _places(kernels: list[str]) -> dict[str, tuple[int, int]]:
    """Return stages and positions of convolutions by their names; none if these do not tell all of them."""
    matches = {name: re.fullmatch(r"(?:block(\d)_conv|conv(\d)_)(\d{1,4})\.kernel", name) for name in kernels}
    places = {name: (int(match[1] or match[2]), int(match[3])) for name, match in matches.items() if match}
    return places if len(places) == len(kernels) else {}


def _convolution_names(weights: Mapping[str, Tensor], convolutions: list[str]) -> dict[str, str]:
    """Return this package's names of convolutions: by Keras' own where these have the stage, else by their order."""
    if places := _places(convolutions):
        return {name: f"conv{stage}_{position}" for name, (stage, position) in places.items()}
    stages = enumerate(_kernels_by_stage([weights[name].shape[0] for name in convolutions]), 1)
    ours = [f"conv{stage}_{position}" for stage, sides in stages for position in range(1, len(sides) + 1)]
    return dict(zip(convolutions, ours, strict=True))


def _kernels_by_stage(sides: list[int]) -> tuple[tuple[int, ...], ...]:
    for configuration in CONFIGURATIONS.values():
        if sides == [side for stage in configuration.kernels for side in stage]:
            return configuration.kernels
    raise ValueError(f"no network of the paper has {counted(len(sides), 'convolution')} with kernels of {sides}")
