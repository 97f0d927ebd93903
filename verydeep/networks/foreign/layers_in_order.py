"""Networks given as a list of layers, by Keras' configuration or an ONNX graph, and the VGG in them."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import torch
from torch import Tensor

from verydeep.networks.architecture import DOWNSAMPLING, STAGE_CHANNELS
from verydeep.networks.foreign.heads import CONVOLUTIONS_ALONE, Affine, Head, channels_first, normalisation
from verydeep.networks.foreign.layouts import Channels, Layout, Triple
from verydeep.networks.foreign.named_arrays import NamedArrays
from verydeep.numbers import counted, number

StepKind = Literal[
    "scale", "reverse", "conv", "relu", "pool", "flatten_hwc", "flatten_chw", "mean", "dense", "softmax", "sigmoid"
]


@dataclass(frozen=True, kw_only=True)
class LayerStep:
    """One layer of a network without branches.

    `scale` multiplies each channel by weight [C] and adds bias [C]; `reverse` turns the order of the channels; `conv`
    has weight [O, I, k, k], `dense` [O, I], and both bias [O].
    """

    kind: StepKind
    name: str
    weight: Tensor = field(default_factory=lambda: torch.ones(1))
    bias: Tensor = field(default_factory=lambda: torch.zeros(1))


def added(steps: list[LayerStep], more: Iterable[LayerStep], left: int) -> int:
    """Add layers to those that were read before; return how many of the `left` bytes their arrays leave.

    Raises:
        ValueError: none, since layers share an array of the file, of which each may need a copy.
    """
    for step in more:
        left -= step.weight.nbytes + step.bias.nbytes
        if left < 0:
            raise ValueError(
                f"with {step.name} its layers need many times the bytes of the file: several of them share an array, "
                "which those of the paper's networks do not"
            )
        steps.append(step)
    return left


def from_layers(steps: Sequence[LayerStep], layout: Layout, *, side: int | None, notes: Sequence[str]) -> NamedArrays:
    """Return the VGG in a list of layers, with its preprocessing where the list begins with it.

    Args:
        steps: all layers, in order.
        layout: whose file they come from.
        side: side of the input images; None where it is not known.
        notes: sentences about layers that are left out.

    Raises:
        ValueError: a layer that the paper's networks do not have; the message names it.
    """
    first = next((place for place, step in enumerate(steps) if step.kind == "conv"), len(steps))
    pools = [place for place, step in enumerate(steps) if step.kind == "pool"]
    if len(pools) != len(STAGE_CHANNELS):
        raise ValueError(
            f"it has {counted(len(pools), 'pooling')} of 2 x 2, where the paper's networks have {len(STAGE_CHANNELS)}"
        )
    pixels = _pixels(steps[:first])
    convolutions = _convolutions(steps[first : pools[-1] + 1])
    last = [value for name, value in convolutions.items() if name.endswith(".weight")][-1]
    try:
        head = _head(steps[pools[-1] + 1 :], len(last))
    except ValueError as error:
        raise ValueError(f"{error}; {way_out(steps)}") from error
    crop = None if side is None else side // DOWNSAMPLING * DOWNSAMPLING
    told = [*notes]
    if crop != side:
        told.append(
            f"its images are of {side} x {side}, which is not a multiple of {DOWNSAMPLING}: the network takes "
            f"{crop} x {crop}, where pool5 has as many positions"
        )
    return NamedArrays(arrays=convolutions, layout=layout, ours=True, head=head, crop=crop, notes=tuple(told), **pixels)


def after_pool5(steps: Sequence[LayerStep]) -> bool:
    """Return whether these layers reach to pool5."""
    return sum(step.kind == "pool" for step in steps) == len(STAGE_CHANNELS)


def way_out(steps: Sequence[LayerStep]) -> str:
    """Return advice for a file whose layer after these cannot be read."""
    if after_pool5(steps):
        return CONVOLUTIONS_ALONE
    if any(step.kind == "conv" for step in steps):
        return "only the paper's networks are read"
    return "save its weights alone, and describe the preprocessing of images by --mean, --std, --white and --channels"


def _pixels(steps: Sequence[LayerStep]) -> dict[str, Any]:
    """Return mean, std and channel order of the preprocessing of pixels in 0..255, or {} if there is none."""
    if not steps:
        return {}
    factor, added, channels = torch.ones(3, dtype=torch.float64), torch.zeros(3, dtype=torch.float64), "rgb"
    for step in steps:
        if step.kind == "reverse":
            channels = "bgr" if channels == "rgb" else "rgb"
            factor, added = factor.flip(0), added.flip(0)
        elif step.kind == "scale":
            factor, added = factor * step.weight.double(), added * step.weight.double() + step.bias.double()
        else:
            raise ValueError(f"{step.name} comes before its first convolution, which no VGG has")
    if not (factor > 0).all():
        raise ValueError("its first layers multiply pixels by numbers that are not above 0")
    order: Channels = "bgr" if channels == "bgr" else "rgb"
    return {"channels": order, "white": 255, "mean": _triple(0 - added / factor), "std": _triple(1 / factor)}


def _triple(values: Tensor) -> Triple:
    first, second, third = values.tolist()
    return first, second, third


def _convolutions(steps: Sequence[LayerStep]) -> dict[str, Tensor]:
    """Return the convolutions; normalisations between them and their ReLUs are folded in, which is exact."""
    ours: dict[str, Tensor] = {}
    stage, position, open_layer = 1, 0, ""
    for step in steps:
        match step.kind:
            case "conv" if not open_layer:
                position += 1
                open_layer = f"conv{stage}_{position}"
                ours |= {f"{open_layer}.weight": step.weight, f"{open_layer}.bias": step.bias}
            case "scale" if open_layer:
                weight, bias = (ours[f"{open_layer}.{kind}"] for kind in ("weight", "bias"))
                if len(step.weight) not in (1, len(bias)):
                    raise ValueError(
                        f"{step.name} has {number(len(step.weight))} channels, {open_layer} {number(len(bias))}"
                    )
                ours[f"{open_layer}.weight"] = weight * step.weight[:, None, None, None]
                ours[f"{open_layer}.bias"] = bias * step.weight + step.bias
            case "relu" if position:
                open_layer = ""
            case "pool" if position and not open_layer:
                stage, position = stage + 1, 0
            case _:
                raise ValueError(f"{step.name} is a {step.kind} where the paper's networks have none")
    return ours


def _head(steps: Sequence[LayerStep], channels: int) -> Head | None:
    """Return the layers after pool5; None if there are none."""
    kinds = [step.kind for step in steps]
    if not {"dense", "scale"} & set(kinds):
        return None
    pooled, *others = _with_scales_in_layers(steps)
    if pooled.kind not in ("flatten_hwc", "flatten_chw", "mean"):
        raise ValueError(
            f"{pooled.name} is a {pooled.kind} after pool5, where all positions or their mean are expected"
        )
    layers: list[Affine] = []
    sigmoid = False
    for step in others:
        if step.kind == "dense":
            layers.append(Affine(weight=step.weight, bias=step.bias))
        elif step.kind == "scale":
            layers.append(normalisation(step.weight, step.bias))
        elif step.kind == "relu" and layers:
            layers[-1] = replace(layers[-1], relu=True)
        elif step.kind in ("softmax", "sigmoid") and step is steps[-1]:
            sigmoid = step.kind == "sigmoid"
        elif step.kind not in ("relu", "flatten_hwc", "flatten_chw"):  # of what has no positions and no negative values
            raise ValueError(f"{step.name} is a {step.kind} in its head, which the paper's networks do not have")
    return _checked(
        Head(layers=tuple(layers), pooled="mean" if pooled.kind == "mean" else "flatten", sigmoid=sigmoid),
        hwc=pooled.kind == "flatten_hwc",
        channels=channels,
    )


def _with_scales_in_layers(steps: Sequence[LayerStep]) -> list[LayerStep]:
    """Return layers without the normalisations that a fully connected one follows, which are part of it then.

    As a matrix, one of all of pool5 at a crop of 224 would have 2.5 GB.
    """
    folded: list[LayerStep] = []
    for step in steps:
        while folded and step.kind == "dense" and folded[-1].kind == "scale":
            before = folded[-1]
            if step.weight.shape[1] != len(before.weight):
                break
            weight = step.weight.double()
            bias = weight @ before.bias.double() + step.bias
            step = replace(step, weight=(weight * before.weight).float(), bias=bias.float())
            folded.pop()
        folded.append(step)
    return folded


def _checked(head: Head, *, hwc: bool, channels: int) -> Head:
    """Return a head whose first layer takes positions in c, h, w order, and whose outputs tell classes apart."""
    outputs = len(head.layers[-1].bias)
    if head.sigmoid and outputs > 1:
        raise ValueError(f"its {number(outputs)} outputs have a sigmoid each, so its images may have several classes")
    if outputs == 1 and not head.sigmoid:
        raise ValueError("its one output has no sigmoid, so it estimates a number and does not tell classes apart")
    if not hwc:
        return head
    return replace(head, layers=(channels_first(head.layers[0], channels), *head.layers[1:]))
