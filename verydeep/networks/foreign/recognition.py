"""Recognition of the architecture that weights are of, by their names and shapes."""

import re
from collections.abc import Mapping

from torch import Tensor

from verydeep.networks.architecture import (
    CONFIGURATIONS,
    DOWNSAMPLING,
    ILSVRC_CLASSES,
    PAPER_CROP,
    STAGE_CHANNELS,
    Architecture,
)
from verydeep.networks.vgg import vgg_without_weights
from verydeep.numbers import counted

HEAD = ("fc6", "fc7", "fc8")

_DIGITS = 12
"""Decimals within which a width follows from shapes."""


def architecture_of(
    weights: Mapping[str, Tensor], network: str | None = None, *, crop: int = PAPER_CROP
) -> Architecture:
    """Return the architecture of weights in this package's layout.

    Without fully connected layers it has the paper's classes, and `crop`. `network` tells A-LRN from A, whose weights
    have the same shapes.

    Raises:
        ValueError: no network of the paper, another one than `network`, or a layer that is missing or does not fit
            the others; the message names it.
    """
    name = _network(weights)
    if network is not None:
        asked = Architecture(network=network)
        if asked.configuration.kernels != CONFIGURATIONS[name].kernels:
            raise ValueError(f"it holds the weights of {name}, not of {asked.network}")
        name = asked.network
    in_paper = _paper_channels(name)
    for layer in in_paper:
        if layer not in HEAD and f"{layer}.weight" not in weights:
            raise ValueError(f"{layer} is missing, which {name} has")
    headless = not any(f"{layer}.weight" in weights for layer in HEAD)
    if not headless:
        _check_head(weights)
    architecture = Architecture(
        network=name,
        classes=ILSVRC_CLASSES if headless else weights["fc8.weight"].shape[0],
        crop=crop if headless else fc6_window(weights) * DOWNSAMPLING,
        batch_norm=any(entry.startswith("bn") for entry in weights),
        width=_width(weights, in_paper),
    )
    _check_shapes(weights, architecture, headless=headless)
    return architecture


def with_biases(weights: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], tuple[str, ...]]:
    """Return weights with zeros where no convolution has a bias, as is usual beside normalisations, and a note of it.

    Where only some have none, they stay missing.
    """
    convolutions = [f"conv{position}" for position in convolution_positions(weights)]
    if not convolutions or any(f"{name}.bias" in weights for name in convolutions):
        return dict(weights), ()
    zeros = {f"{name}.bias": (kernel := weights[f"{name}.weight"]).new_zeros(kernel.shape[:1]) for name in convolutions}
    return {**weights, **zeros}, ("its convolutions have no biases, which are taken as 0",)


def convolution_positions(weights: Mapping[str, Tensor]) -> list[str]:
    """Return the positions of the convolutions in order: `1_1`, `1_2`, ..."""
    positions = [match[1] for name in weights if (match := re.fullmatch(r"conv(\d_\d+)\.weight", name))]
    return sorted(positions, key=lambda position: [int(number) for number in position.split("_")])


def last_channels(weights: Mapping[str, Tensor]) -> int:
    """Return how many channels pool5 has."""
    return weights[f"conv{convolution_positions(weights)[-1]}.weight"].shape[0]


def fc6_window(weights: Mapping[str, Tensor]) -> int:
    """Return the side of the square of pool5 that fc6 covers.

    Raises:
        ValueError: fc6's inputs are not a square of positions.
    """
    inputs, channels = weights["fc6.weight"].shape[1], last_channels(weights)
    side = round((inputs / max(1, channels)) ** 0.5)
    if side < 1 or inputs != channels * side**2:
        raise ValueError(
            f"fc6 has {counted(inputs, 'input')}, which are not a square of positions with "
            f"{counted(channels, 'channel')} each"
        )
    return side


def _kernels(weights: Mapping[str, Tensor]) -> tuple[tuple[int, ...], ...]:
    """Return the sides of the kernels of each of the five stages."""
    positions = convolution_positions(weights)
    return tuple(
        tuple(weights[f"conv{position}.weight"].shape[-1] for position in positions if position[0] == str(stage))
        for stage in range(1, len(STAGE_CHANNELS) + 1)
    )


def _network(weights: Mapping[str, Tensor]) -> str:
    """Return the network whose convolutions these are, without LRN."""
    for name, value in weights.items():
        if name.startswith("conv") and name.endswith(".weight") and value.ndim != 4:
            raise ValueError(f"{name} has the shape {list(value.shape)}, which no convolution has")
    sides = _kernels(weights)
    for known in CONFIGURATIONS.values():
        if known.kernels == sides and not known.lrn:
            return known.name
    stages = ", ".join("+".join(map(str, stage)) or "none" for stage in sides)
    raise ValueError(f"no network of the paper has convolutions of these sides in its five stages: {stages}")


def _check_head(weights: Mapping[str, Tensor]) -> None:
    for layer in HEAD:
        value = weights.get(f"{layer}.weight")
        if value is None:
            raise ValueError(f"it has no {layer}")
        if value.ndim != 2:
            raise ValueError(
                f"{layer} has weights of the shape {list(value.shape)}, which no fully connected layer has"
            )


def _paper_channels(network: str) -> dict[str, int]:
    """Return how many outputs each hidden layer with weights has in the paper."""
    layers = Architecture(network=network).layers()
    return {layer.name: layer.outputs for layer in layers if layer.weight_count and layer.name != HEAD[-1]}


def _width(weights: Mapping[str, Tensor], in_paper: Mapping[str, int]) -> float:
    """Return the roundest width that gives the channels of all hidden layers, or the one that gives most of them."""
    channels = [
        (paper, weights[f"{layer}.weight"].shape[0])
        for layer, paper in in_paper.items()
        if f"{layer}.weight" in weights
    ]

    def misfits(width: float) -> int:
        return sum(max(1, round(paper * width)) != here for paper, here in channels)

    if len({here / paper for paper, here in channels}) == 1:
        return channels[0][1] / channels[0][0]
    # For each layer: the ratio itself, then the ends of what is rounded to the same number.
    tried = [(here + part) / paper for part in (0, -0.4999, 0.4999) for paper, here in channels if here]
    best = min(tried, key=misfits, default=1.0)
    for digits in range(_DIGITS):
        rounded = round(best, digits)
        if rounded > 0 and misfits(rounded) <= misfits(best):
            return rounded
    return best


def _check_shapes(weights: Mapping[str, Tensor], architecture: Architecture, *, headless: bool) -> None:
    expected = {
        name: list(value.shape)
        for name, value in vgg_without_weights(architecture).state_dict().items()
        if name != "mean_rgb" and not (headless and name.startswith(HEAD))
    }
    name = architecture.network
    for entry, shape in expected.items():
        if entry not in weights:
            raise ValueError(f"{entry} is missing, which {name} has")
        if list(weights[entry].shape) != shape:
            raise ValueError(f"{entry} has the shape {list(weights[entry].shape)}, where {name} has {shape}")
    for entry in weights:
        if entry not in expected and entry != "mean_rgb":
            raise ValueError(f"it holds {entry}, which {name} does not have")
