"""Heads of fine-tuned networks, written as the paper's three fully connected layers with the same scores.

pool5 is never negative, and a ReLU leaves such numbers as they are. So a mean over positions and an identity can
take the place of a missing layer: a mean over positions and Dense(133) become an fc6 that takes the mean of each
channel, an fc7 that passes it on, and the file's layer as fc8. Outputs that a head does not have are 0.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor

from verydeep.networks.architecture import DOWNSAMPLING, PAPER_CROP
from verydeep.networks.foreign.recognition import HEAD, architecture_of, last_channels
from verydeep.numbers import counted, number

CONVOLUTIONS_ALONE = "for its convolutions alone add --convolutions-only"
"""Advice for a head that cannot be written this way."""

_RELUS = len(HEAD) - 1

_MOST_NUMBERS = 2**29
"""Numbers of a matrix that is larger than the layer that it comes from: two gigabytes."""


@dataclass(frozen=True, kw_only=True)
class Affine:
    """weight [O, I] x + bias [O]: a fully connected layer, or a normalisation with the statistics of its training."""

    weight: Tensor
    bias: Tensor
    relu: bool = False
    """Whether a ReLU follows."""


@dataclass(frozen=True, kw_only=True)
class Head:
    """The layers after pool5, which take all its positions (in c, h, w order) or their mean."""

    layers: tuple[Affine, ...]
    pooled: Literal["flatten", "mean"] | None = None
    """None if the file does not say."""
    sigmoid: bool = False
    """Whether the last layer has one output, the logit of the second of two classes."""


def normalisation(weight: Tensor, bias: Tensor) -> Affine:
    """Return a layer that multiplies numbers by weight [C] and adds bias [C].

    Raises:
        ValueError: there are so many that its matrix has no place.
    """
    if len(weight) ** 2 > _MOST_NUMBERS:
        raise ValueError(
            f"its head multiplies {number(len(weight))} numbers, each by its own, and adds none of them up"
        )
    return Affine(weight=weight.diag(), bias=bias)


def channels_first(layer: Affine, channels: int) -> Affine:
    """Return a layer that takes pool5 in c, h, w order, from one that takes it in h, w, c order.

    One whose inputs are not a square of positions with so many channels stays as it is.
    """
    side = round((layer.weight.shape[1] / max(1, channels)) ** 0.5)
    if layer.weight.shape[1] != channels * side**2:
        return layer
    maps = layer.weight.reshape(-1, side, side, channels).permute(0, 3, 1, 2)
    return replace(layer, weight=maps.flatten(1))


def _window_of(head: Head, *, channels: int, crop: int | None) -> int:
    """Return the side of the square of pool5's positions that a head sees; `crop` is None where it is not known.

    Raises:
        ValueError: the first layer takes another number of values, or the crop must be given.
    """
    inputs = head.layers[0].weight.shape[1]
    side = round((inputs / channels) ** 0.5)
    if inputs != channels * side**2 or side < 1:
        raise ValueError(
            f"its head takes {counted(inputs, 'number')}, which are not a square of positions of pool5's "
            f"{counted(channels, 'channel')}"
        )
    told = None if crop is None else crop // DOWNSAMPLING
    if side > 1 and head.pooled != "mean":
        if told not in (None, side):
            raise ValueError(
                f"its head takes {side} x {side} positions of pool5: its crop is {side * DOWNSAMPLING}, not {crop}"
            )
        return side
    if side > 1:
        raise ValueError(f"its head takes {counted(inputs, 'number')}, where the mean of pool5 has {number(channels)}")
    if told is None:
        raise ValueError(
            f"its head takes {counted(channels, 'number')}: all of pool5 at crop {DOWNSAMPLING}, or the mean over "
            f"the positions of a larger crop: say which by --crop {DOWNSAMPLING} or --crop {PAPER_CROP}"
        )
    return told


def _fully_connected(head: Head, *, channels: int, window: int, hidden: int) -> dict[str, Tensor]:
    """Return weights and biases of fc6, fc7 and fc8 with the scores of a head.

    Args:
        head: the layers after pool5.
        channels: channels of pool5.
        window: side of the square of pool5's positions at the crop.
        hidden: outputs of fc6 and fc7.

    Raises:
        ValueError: layers that do not fit each other, or more or wider ones than fc6, fc7 and fc8.
    """
    mean = head.layers[0].weight.shape[1] == channels
    stages = _between_relus(head.layers, channels * (1 if mean else window**2))
    if len(stages) - 1 > _RELUS:
        raise ValueError(
            f"its head has {len(stages)} layers with ReLUs between them, where the paper's have {len(HEAD)}"
        )
    for stage in stages[:-1]:
        if len(stage.bias) > hidden:
            raise ValueError(
                f"its head has a layer of {counted(len(stage.bias), 'unit')}, where fc6 and fc7 have {number(hidden)}"
            )
    last = _for_two_classes(stages[-1]) if head.sigmoid else stages[-1]
    if len(stages) == 1:
        if not mean and 2 * len(last.bias) > hidden:
            raise ValueError(
                f"its head is one layer of {number(len(last.bias))} outputs, of which fc6, fc7 and fc8 can have "
                f"{number(hidden // 2)}"
            )
        last, stages = (last, [_identity(channels), last]) if mean else _split_by_sign(last)
    first = _at_every_position(stages[0], window) if mean else stages[0]
    second = stages[1] if len(stages) > len(HEAD) - 1 else _identity(len(stages[0].bias))
    layers = {"fc6": _padded(first, hidden), "fc7": _padded(second, hidden, inputs=hidden)}
    layers["fc8"] = _padded(last, len(last.bias), inputs=hidden)
    return {f"{name}.{kind}": getattr(layer, kind) for name, layer in layers.items() for kind in ("weight", "bias")}


def _between_relus(layers: Sequence[Affine], inputs: int) -> list[Affine]:
    """Return one affine map for all layers between two ReLUs; they are multiplied in float64."""
    stages: list[Affine] = []
    current: Affine | None = None
    for layer in layers:
        taken = layer.weight.shape[1]
        if taken != inputs or len(layer.bias) != len(layer.weight):
            raise ValueError(f"a layer of its head takes {counted(taken, 'number')}, where there are {number(inputs)}")
        current = layer if current is None else _product(layer, current)
        inputs = len(layer.bias)
        if layer.relu:
            stages.append(current)
            current = None
    if current is None:
        raise ValueError("its head ends in a ReLU, which leaves no scores below 0")
    return [*stages, current]


def _product(second: Affine, first: Affine) -> Affine:
    _check_size(len(second.weight), first.weight.shape[1], first, second)
    weight, bias = first.weight.double(), first.bias.double()
    factor = second.weight.double()
    return replace(second, weight=(factor @ weight).float(), bias=(factor @ bias + second.bias).float())


def _for_two_classes(layer: Affine) -> Affine:
    """Return two scores, 0 and the layer's, whose soft-max is the sigmoid of the latter."""
    return replace(
        layer, weight=torch.cat([layer.weight * 0, layer.weight]), bias=torch.cat([layer.bias * 0, layer.bias])
    )


def _split_by_sign(layer: Affine) -> tuple[Affine, list[Affine]]:
    """Return a last layer and those before it, so that x passes the ReLUs as max(0, x) and max(0, -x)."""
    both = replace(layer, weight=torch.cat([layer.weight, -layer.weight]), bias=torch.cat([layer.bias, -layer.bias]))
    outputs = len(layer.bias)
    eye = torch.eye(outputs)
    last = Affine(weight=torch.cat([eye, -eye], dim=1), bias=torch.zeros(outputs))
    return last, [both, last]


def _identity(size: int) -> Affine:
    return Affine(weight=torch.eye(size), bias=torch.zeros(size))


def _at_every_position(layer: Affine, window: int) -> Affine:
    """Return a layer of all positions of a window, from one of their mean."""
    _check_size(len(layer.weight), layer.weight.shape[1] * window**2, layer)
    return replace(layer, weight=(layer.weight / window**2).repeat_interleave(window**2, dim=1))


def _check_size(rows: int, columns: int, *layers: Affine) -> None:
    """Refuse a matrix that is far larger than the layers of the file that it would be made of."""
    if rows * columns > max(_MOST_NUMBERS, *(layer.weight.numel() for layer in layers)):
        raise ValueError(f"its head would become a layer of {number(rows)} x {number(columns)} numbers")


def _padded(layer: Affine, outputs: int, *, inputs: int | None = None) -> Affine:
    """Return a layer with zeros for the inputs and outputs that it lacks."""
    rows, columns = layer.weight.shape
    _check_size(outputs, inputs or columns, layer)
    weight = layer.weight.new_zeros(outputs, inputs or columns)
    weight[:rows, :columns] = layer.weight
    return replace(layer, weight=weight, bias=torch.cat([layer.bias, layer.bias.new_zeros(outputs - rows)]))


def written_head(
    convolutions: Mapping[str, Tensor], head: Head, *, network: str | None, crop: int | None
) -> tuple[dict[str, Tensor], tuple[str, ...]]:
    """Return convolutions with a head as fc6, fc7 and fc8, and notes about it.

    Raises:
        ValueError: no network of the paper, or a head that these layers cannot express.
    """
    channels = last_channels(convolutions)
    window = _window_of(head, channels=channels, crop=crop)
    by_name = {layer.name: layer for layer in architecture_of(convolutions, network).layers()}
    written = _fully_connected(head, channels=channels, window=window, hidden=by_name["fc7"].outputs)
    mean = head.layers[0].weight.shape[1] == channels and window > 1
    widths = [len(layer.bias) for layer in head.layers[:-1] if layer.relu]
    if widths == [by_name[name].outputs for name in HEAD[:-1]] and not mean and not head.sigmoid:
        return {**convolutions, **written}, ()
    sizes = ", ".join(number(len(layer.bias)) for layer in head.layers)
    sigmoid = "; the sigmoid of its one output is the second of two classes" if head.sigmoid else ""
    note = f"its head, {'the mean of pool5' if mean else 'pool5'} and layers of {sizes}, is written as fc6, fc7 and fc8"
    return {**convolutions, **written}, (note + sigmoid,)
