"""The layers of a whole Keras model, `Rescaling` too, by its configuration, which is data: nothing in it is called."""

import re
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor

from verydeep.networks.foreign.keras_operations import of_channels, operation_steps, picked_channel
from verydeep.networks.foreign.layers_in_order import LayerStep, StepKind, added, after_pool5, from_layers, way_out
from verydeep.networks.foreign.named_arrays import NamedArrays
from verydeep.numbers import counted

_WITHOUT_EFFECT = (
    "Dropout",
    "SpatialDropout2D",
    "GaussianNoise",
    "GaussianDropout",
    "AlphaDropout",
    "ActivityRegularization",
    "Identity",
)
"""Layers that do nothing once a network is trained, as do those called Random..., which vary training images."""

_RESIZING = ("Resizing", "CenterCrop")

_WITH_ARRAYS = ("Conv2D", "Dense", "BatchNormalization")

_NETWORKS = ("Functional", "Model", "Sequential")

_DEEPEST = 8
"""Levels of networks within networks."""

_ACTIVATIONS: dict[str, tuple[StepKind, ...]] = {
    "linear": (),
    "relu": ("relu",),
    "softmax": ("softmax",),
    "log_softmax": ("softmax",),
    "sigmoid": ("sigmoid",),
}

_KERAS_EPSILON = 1e-3
"""Number that Keras' normalisation adds to the variance where its configuration is silent."""


def keras_network(
    model: Mapping[str, Any], arrays: Mapping[str, list[Tensor]], *, allowed: int, convolutions_only: bool = False
) -> NamedArrays:
    """Return the VGG of a Keras model's configuration and its layers' arrays.

    Args:
        model: the configuration, as it is read from JSON.
        arrays: the arrays of each layer, by its name, or by its place where the file has no names.
        allowed: bytes that the arrays of all layers may have.
        convolutions_only: leave out the layers after pool5.

    Raises:
        ValueError: a layer that the paper's networks do not have, branches, more bytes than allowed, or a damaged
            file; it is named.
    """
    steps: list[LayerStep] = []
    left = allowed
    notes: list[str] = []
    sides: list[int | None] = []
    try:
        by_name = arrays.keys() >= set(_names_with_arrays(model, _DEEPEST))
        for layer in _in_a_row(model, _DEEPEST):
            name, kind = layer["config"]["name"], layer["class_name"]
            if kind == "InputLayer":
                sides.append(_side(layer["config"]))
            elif kind in _RESIZING:
                notes.append(f"its {kind} is left out: images come in the size of the crop")
            elif not kind.startswith("Random") and kind not in _WITHOUT_EFFECT:
                held = arrays.get(name if by_name else layer["place"], [])
                left = added(steps, _steps(kind, layer, held), left)
            if convolutions_only and after_pool5(steps):
                break
    except KeyError as error:
        raise ValueError(f"its configuration is damaged or of an unknown version: there is no {error}") from error
    except (TypeError, AttributeError, IndexError) as error:
        raise ValueError("its configuration is damaged or of an unknown version") from error
    except ValueError as error:
        raise ValueError(f"{error}; {way_out(steps)}") from error
    return from_layers(steps, "keras", side=next(iter(sides), None), notes=notes)


def _names_with_arrays(model: Mapping[str, Any], deepest: int) -> Iterator[str]:
    """Yield the names of layers that have arrays. A file that lacks any of them has places instead of names.

    A place may be the name of another layer: if the session had made a Dense before, those of a network are called
    `dense_1` and `dense_2`, and their places are `dense` and `dense_1`.
    """
    config = model["config"]
    for layer in config if isinstance(config, list) else config["layers"]:
        if layer["class_name"] in _WITH_ARRAYS:
            yield layer["config"]["name"]
        elif layer["class_name"] in _NETWORKS and deepest:
            yield from _names_with_arrays(layer, deepest - 1)


def _in_a_row(model: Mapping[str, Any], deepest: int, above: str = "") -> Iterator[Mapping[str, Any]]:
    """Yield the layers, also those of nested networks; each takes the output of the one before it.

    Each gets `place`, its name in files without names, and `picked`, the channels that it puts together.

    Raises:
        ValueError: branches.
    """
    config = model["config"]
    before, picked, of_kind = "", dict[str, int](), dict[str, int]()
    for layer in config if isinstance(config, list) else config["layers"]:
        name, kind, nodes = layer["config"]["name"], layer["class_name"], layer.get("inbound_nodes") or []
        taken = list(_names_taken(nodes))
        channel = picked_channel(nodes) if kind == "GetItem" else None
        if taken and before and set(taken) - {*picked, before}:
            raise ValueError(f"it has branches: {name} takes {', '.join(sorted(set(taken)))}")
        if channel is not None and taken == [before]:  # one channel of three, which a Stack joins
            picked[name] = channel
            continue
        before, place = name, f"{above}{_place(kind, of_kind)}"
        if kind not in _NETWORKS:
            yield {**layer, "place": place, "picked": [picked[one] for one in taken if one in picked]}
        elif not deepest:
            raise ValueError("its networks are nested too deeply")
        else:
            yield from _in_a_row(layer, deepest - 1, f"{place}/")


def _place(kind: str, of_kind: dict[str, int]) -> str:
    """Return the name under which Keras 3 files a layer, `conv2d_1` for the second Conv2D, and count it."""
    small = re.sub(r"([a-z])([A-Z])", r"\1_\2", re.sub(r"(.)([A-Z][a-z0-9]+)", r"\1_\2", kind)).lower()
    number = of_kind.get(small, 0)
    of_kind[small] = number + 1
    return f"{small}_{number}" if number else small


def _names_taken(nodes: Any) -> Iterator[str]:
    """Yield the names of layers in inbound nodes, of Keras 3 (`keras_history`) and before (`[name, 0, 0, {}]`)."""
    if isinstance(nodes, dict):
        if "keras_history" in nodes:
            yield nodes["keras_history"][0]
        else:
            for value in nodes.values():
                yield from _names_taken(value)
    elif isinstance(nodes, list):
        if len(nodes) >= 3 and isinstance(nodes[0], str) and isinstance(nodes[1], int) and isinstance(nodes[2], int):
            yield nodes[0]
        else:
            for value in nodes:
                yield from _names_taken(value)


def _side(config: Mapping[str, Any]) -> int | None:
    """Return the side of an input [None, side, side, 3]; None where it is free.

    Raises:
        ValueError: another shape.
    """
    shape = config.get("batch_shape") or config["batch_input_shape"]
    _, height, width, channels = shape if isinstance(shape, list) and len(shape) == 4 else [None] * 4
    if channels != 3 or height != width or not isinstance(height, int | None):
        raise ValueError(f"it takes images of the shape {shape}: only square ones with 3 channels are read")
    return height


def _steps(kind: str, layer: Mapping[str, Any], arrays: list[Tensor]) -> Iterator[LayerStep]:
    """Yield a layer's steps.

    Raises:
        ValueError: a step that the paper's networks do not have.
    """
    config = layer["config"]
    name = f"the layer {config['name']}"
    match kind:
        case "Conv2D":
            _check_convolution(name, config)
            yield LayerStep(
                kind="conv", name=name, weight=_kernel(name, arrays, 4).permute(3, 2, 0, 1), bias=_bias(arrays)
            )
        case "Dense":
            yield LayerStep(kind="dense", name=name, weight=_kernel(name, arrays, 2).T, bias=_bias(arrays))
        case "BatchNormalization":
            yield _normalisation(name, config, arrays)
        case "Normalization":
            yield _of_pixels(name, config, arrays)
        case "Rescaling":
            factor, added = (of_channels(name, config[key]) for key in ("scale", "offset"))
            yield LayerStep(kind="scale", name=name, weight=factor, bias=added)
        case "MaxPooling2D":
            if [*config["pool_size"], *(config["strides"] or config["pool_size"])] != [2, 2, 2, 2]:
                raise ValueError(f"{name} pools {config['pool_size']}, where the paper's networks pool 2 x 2")
            yield LayerStep(kind="pool", name=name)
        case "GlobalAveragePooling2D":
            yield LayerStep(kind="mean", name=name)
        case "Flatten":
            yield LayerStep(kind="flatten_hwc", name=name)
        case "ReLU" if not any(config.get(key) for key in ("max_value", "negative_slope", "threshold")):
            yield LayerStep(kind="relu", name=name)
        case "Softmax":
            yield LayerStep(kind="softmax", name=name)
        case "Activation":
            pass
        case _:
            yield from operation_steps(kind, name, layer)
    if kind in ("Conv2D", "Dense", "Activation"):
        yield from _activation(name, config.get("activation", "linear"))


def _activation(name: str, told: Any) -> Iterator[LayerStep]:
    activation = told.get("class_name", told) if isinstance(told, dict) else told
    if activation not in _ACTIVATIONS:
        raise ValueError(
            f"{name} has the activation {activation}, where the paper's networks have ReLUs and a soft-max"
        )
    for kind in _ACTIVATIONS[activation]:
        yield LayerStep(kind=kind, name=name)


def _check_convolution(name: str, config: Mapping[str, Any]) -> None:
    plain = {"strides": [1, 1], "padding": "same", "dilation_rate": [1, 1], "groups": 1, "data_format": "channels_last"}
    for key, usual in plain.items():
        told = config.get(key, usual)
        if (list(told) if isinstance(told, list | tuple) else told) != usual:
            raise ValueError(f"{name} has {key} {told}, where the paper's networks have {usual}")


def _kernel(name: str, arrays: list[Tensor], axes: int) -> Tensor:
    if not 1 <= len(arrays) <= 2 or arrays[0].ndim != axes or any(value.ndim != 1 for value in arrays[1:]):
        raise ValueError(f"{name} has arrays of {[list(value.shape) for value in arrays]}: not its own, or damaged")
    return arrays[0].float()


def _bias(arrays: list[Tensor]) -> Tensor:
    return arrays[1].float() if len(arrays) > 1 else torch.zeros(arrays[0].shape[-1])


def _normalisation(name: str, config: Mapping[str, Any], arrays: list[Tensor]) -> LayerStep:
    """Return a batch normalisation with the statistics of its training, as a factor and a summand."""
    kinds = [kind for kind, key in (("gamma", "scale"), ("beta", "center")) if config.get(key, True)]
    kinds += ["mean", "variance"]
    if [value.ndim for value in arrays] != [1] * len(kinds) or len({len(value) for value in arrays}) > 1:
        raise ValueError(
            f"{name} has {counted(len(arrays), 'array')}, where a batch normalisation of its kind has {len(kinds)}"
        )
    told = {kind: value.double() for kind, value in zip(kinds, arrays, strict=True)}
    factor = told.get("gamma", 1.0) / (told["variance"] + config.get("epsilon", _KERAS_EPSILON)).sqrt()
    added = told.get("beta", 0.0) - told["mean"] * factor
    return LayerStep(kind="scale", name=name, weight=factor.float(), bias=added.float())


def _of_pixels(name: str, config: Mapping[str, Any], arrays: list[Tensor]) -> LayerStep:
    """Return a normalisation of pixels, (x - mean) / sqrt(variance), as a factor and a summand."""
    mean, variance = arrays[:2] if len(arrays) >= 2 else (config.get("mean"), config.get("variance"))
    if mean is None or variance is None or config.get("invert"):
        raise ValueError(f"{name} is a Normalization without a mean and a variance, or the inverse of one")
    deviation = of_channels(name, variance).sqrt()
    return LayerStep(kind="scale", name=name, weight=1 / deviation, bias=-of_channels(name, mean) / deviation)
