"""The same weights as other libraries lay them out: names, axes and preprocessing, in and out. Pure functions.

torchvision  features.N OIHW; classifier.0, .3, .6 OI. RGB in 0..1, minus mean, divided by std.
timm         features.N OIHW; pre_logits.fc1, .fc2 as convolutions, head.fc OI. The same.
Keras        blockN_convM HWIO; fc1 (inputs in h, w, c order), fc2, predictions IO. BGR in 0..255, minus mean.
Caffe        convN_M OIHW; fc6, fc7, fc8 OI. BGR in 0..255, minus mean.
MatConvNet   convN_M HWIO; fc6, fc7, fc8 as convolutions. RGB in 0..255, minus mean.

All of them pad with zeros after the mean is subtracted, as this package does, so mean, order of channels and division
by std go into `mean_rgb` and the weights of conv1_1 without any loss but rounding.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from verydeep.networks.configurations import CONFIGURATIONS, Configuration
from verydeep.networks.foreign.layouts import Channels, ForeignLayout, Layout, Triple, White
from verydeep.networks.vgg import ILSVRC_MEAN_RGB

WHITE: White = 255
"""The largest pixel value, as images come."""


@dataclass(frozen=True, kw_only=True)
class Preprocessing:
    """What a library does to the pixels of an image: (x * white / 255 - mean) / std, in its order of channels."""

    channels: Channels
    white: White
    mean: Triple
    std: Triple = (1.0, 1.0, 1.0)


_TORCH = Preprocessing(channels="rgb", white=1, mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))
_CAFFE = Preprocessing(channels="bgr", white=WHITE, mean=ILSVRC_MEAN_RGB[::-1])
PREPROCESSING: dict[Layout, Preprocessing] = {
    "torchvision": _TORCH,
    "timm": _TORCH,
    "keras": _CAFFE,
    "caffe": _CAFFE,
    "matconvnet": Preprocessing(channels="rgb", white=WHITE, mean=ILSVRC_MEAN_RGB),
}
"""Of the weights that each library publishes."""

TORCHVISION_FEATURES = Preprocessing(
    channels="rgb", white=1, mean=(0.48235, 0.45882, 0.40784), std=(1 / WHITE, 1 / WHITE, 1 / WHITE)
)
"""Of torchvision's VGG16_Weights.IMAGENET1K_FEATURES, which were trained elsewhere and have NaN for a classifier."""

_HEADS: dict[ForeignLayout, dict[str, str]] = {
    "torchvision": {"fc6": "classifier.0", "fc7": "classifier.3", "fc8": "classifier.6"},
    "timm": {"fc6": "pre_logits.fc1", "fc7": "pre_logits.fc2", "fc8": "head.fc"},
}

_STAGES = 5

FOREIGN_NETWORKS = {"A": "vgg11", "B": "vgg13", "D": "vgg16", "E": "vgg19"}
"""What torchvision and timm call the networks that they have; with `_bn` for batch normalisation."""


def layout_of(names: Mapping[str, Tensor]) -> Layout:
    """Whose names these are, of those whose files do not tell.

    Raises:
        ValueError: of no network that this package knows.
    """
    if "conv1_1.weight" in names:
        return "verydeep"
    if any(name.startswith(("pre_logits.", "head.fc.")) for name in names):
        return "timm"
    if "features.0.weight" in names:
        return "torchvision"
    few = ", ".join(list(names)[:3]) or "nothing"
    raise ValueError(f"it holds {few} ..., which is no VGG in the names of torchvision, timm or this package")


def in_our_layout(weights: Mapping[str, Tensor], layout: Layout) -> dict[str, Tensor]:
    """Weights under this package's names and in its axes; values, channels and their order as they were.

    Raises:
        ValueError: an entry that a VGG in this layout does not have, or one of another number of axes.
    """
    match layout:
        case "verydeep":
            return dict(weights)
        case "torchvision" | "timm":
            return _from_numbers(weights, layout)
        case "keras":
            return _from_keras(weights)
        case "caffe" | "matconvnet":
            return _from_names(weights, layout)


def in_layout(weights: Mapping[str, Tensor], layout: ForeignLayout) -> dict[str, Tensor]:
    """The reverse of `in_our_layout`, without `mean_rgb`, for which there is no place."""
    names = _numbers(weights) | _HEADS[layout]
    found = {}
    for name, value in weights.items():
        layer, _, kind = name.rpartition(".")
        if layer:
            found[f"{names[layer]}.{kind}"] = value
    if layout == "timm":
        window = round((weights["fc6.weight"].shape[1] / _last_channels(weights)) ** 0.5)
        for layer, side in (("fc6", window), ("fc7", 1)):
            rows = weights[f"{layer}.weight"]
            found[f"{names[layer]}.weight"] = rows.reshape(rows.shape[0], -1, side, side)
    return found


def fold(weights: Mapping[str, Tensor], preprocessing: Preprocessing) -> dict[str, Tensor]:
    """Weights in our layout for RGB in 0..255, with `mean_rgb`, from weights for images preprocessed otherwise.

    Exact up to the rounding of conv1_1's weights and of the mean to float32; where there is nothing to divide by,
    conv1_1 only changes the order of its channels.
    """
    turned = preprocessing.channels == "bgr"
    first = weights["conv1_1.weight"].double()
    factors = _factors(preprocessing)
    mean = torch.tensor(preprocessing.mean, dtype=torch.float64) * WHITE / preprocessing.white
    scaled = first * factors[:, None, None]
    return {
        **weights,
        "conv1_1.weight": (scaled.flip(1) if turned else scaled).float(),
        "mean_rgb": (mean.flip(0) if turned else mean).float(),
    }


def unfold(weights: Mapping[str, Tensor], layout: ForeignLayout) -> tuple[dict[str, Tensor], Preprocessing]:
    """Weights in our layout for a library that divides by its std, and what it has to do to images.

    The mean stays that of the weights: with zero padding no other mean can stand for it. What `fold` made of
    weights comes back within one unit in the last place of conv1_1's weights, all else to the bit.
    """
    theirs = PREPROCESSING[layout]
    red, green, blue = map(_shortest, weights["mean_rgb"].tolist())
    preprocessing = Preprocessing(channels="rgb", white=1, mean=(red, green, blue), std=theirs.std)
    first = weights["conv1_1.weight"].double() / _factors(preprocessing)[:, None, None]
    return {**weights, "conv1_1.weight": first.float()}, preprocessing


def _shortest(value: float) -> float:
    """Of white, with the fewest digits that become the same float32 again."""
    tried = (float(f"{value / WHITE:.{digits}g}") for digits in range(1, 10))
    return next((part for part in tried if torch.tensor(part * WHITE).item() == value), value / WHITE)


def _factors(preprocessing: Preprocessing) -> Tensor:
    """By which each of the library's channels is multiplied."""
    return preprocessing.white / WHITE / torch.tensor(preprocessing.std, dtype=torch.float64)


def _places(weights: Mapping[str, Tensor]) -> list[str]:
    """`1_1`, `1_2`, ...: the convolutions in their order."""
    found = [match[1] for name in weights if (match := re.fullmatch(r"conv(\d_\d+)\.weight", name))]
    return sorted(found, key=lambda place: [int(number) for number in place.split("_")])


def kernels(weights: Mapping[str, Tensor]) -> tuple[tuple[int, ...], ...]:
    """Sides of the kernels of each of the five stages, of weights in our layout."""
    places = _places(weights)
    return tuple(
        tuple(weights[f"conv{place}.weight"].shape[-1] for place in places if place.startswith(f"{stage}_"))
        for stage in range(1, _STAGES + 1)
    )


def _last_channels(weights: Mapping[str, Tensor]) -> int:
    return weights[f"conv{_places(weights)[-1]}.weight"].shape[0]


def _numbers(weights: Mapping[str, Tensor]) -> dict[str, str]:
    """Names in torchvision's and timm's sequences of convolutions, normalisations, ReLUs and poolings."""
    batch_norm = any(name.startswith("bn") for name in weights)
    names, number, before = {}, 0, "1"
    for place in _places(weights):
        stage = place.partition("_")[0]
        number += stage != before  # a pooling
        names[f"conv{place}"] = f"features.{number}"
        if batch_norm:
            names[f"bn{place}"] = f"features.{number + 1}"
        number, before = number + 2 + batch_norm, stage
    return names


def _from_numbers(weights: Mapping[str, Tensor], layout: ForeignLayout) -> dict[str, Tensor]:
    numbered: dict[int, dict[str, Tensor]] = {}
    found: dict[str, Tensor] = {}
    heads = {theirs: ours for ours, theirs in _HEADS[layout].items()}
    for name, value in weights.items():
        layer, _, kind = name.rpartition(".")
        if match := re.fullmatch(r"features\.(\d{1,4})", layer):
            numbered.setdefault(int(match[1]), {})[kind] = value
        elif layer in heads:
            found[f"{heads[layer]}.{kind}"] = value.flatten(1) if kind == "weight" and value.ndim == 4 else value
        else:
            raise ValueError(f"it holds {name}, for which there is no place in {layout}'s VGG")
    convolutions = sorted(n for n, entries in numbered.items() if entries.get("weight", torch.empty(0)).ndim == 4)
    batch_norm = any("running_mean" in entries for entries in numbered.values())
    stage, position, before = 1, 0, -2 - batch_norm
    for number in convolutions:
        match number - before - batch_norm:
            case 2:
                position += 1
            case 3:  # a pooling between them
                stage, position = stage + 1, 1
            case _:
                raise ValueError(f"its convolutions are features.{', .'.join(map(str, convolutions))}: no VGG")
        before = number
        for layer, entries in (("conv", numbered.pop(number)), ("bn", numbered.pop(number + 1, {}))):
            found |= {f"{layer}{stage}_{position}.{kind}": value for kind, value in entries.items()}
            if "running_mean" in entries:  # old files do not count batches
                found.setdefault(f"{layer}{stage}_{position}.num_batches_tracked", torch.tensor(0))
    if numbered:
        raise ValueError(f"it holds features.{min(numbered)}, for which there is no place in {layout}'s VGG")
    return found


def _from_keras(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    convolutions = [name for name, value in weights.items() if value.ndim == 4]
    dense = [name for name, value in weights.items() if value.ndim == 2]
    if len(dense) not in (0, 3):
        raise ValueError(f"it has {len(dense)} fully connected layers: a VGG has three (or, for features only, none)")
    if any(weights[name].shape[0] != weights[name].shape[1] for name in convolutions):
        raise ValueError("its kernels are in Theano's order of axes: not read")
    renamed = _keras_names(weights, convolutions) | dict(zip(dense, ("fc6", "fc7", "fc8"), strict=False))
    found: dict[str, Tensor] = {}
    for kernel, ours in renamed.items():
        value = weights[kernel]
        found[f"{ours}.weight"] = value.permute(3, 2, 0, 1) if value.ndim == 4 else value.T
        bias = f"{kernel.removesuffix('.kernel')}.bias"
        if bias in weights:
            found[f"{ours}.bias"] = weights[bias]
    if dense:
        channels, rows = _last_channels(found), found["fc6.weight"]
        side = round((rows.shape[1] / max(1, channels)) ** 0.5)
        if side < 1 or rows.shape[1] != channels * side**2:
            raise ValueError(f"its first fully connected layer has {rows.shape[1]:,} inputs: no square of {channels}")
        found["fc6.weight"] = rows.reshape(len(rows), side, side, channels).permute(0, 3, 1, 2).flatten(1)
    return found


def _keras_names(weights: Mapping[str, Tensor], convolutions: list[str]) -> dict[str, str]:
    """Our names of Keras' convolutions: by its own where they tell the stage, else by their order."""
    told = {name: re.fullmatch(r"block(\d)_conv(\d+)\.kernel", name) for name in convolutions}
    if convolutions and all(told.values()):
        return {name: f"conv{match[1]}_{match[2]}" for name, match in told.items() if match}
    configuration = _of_kernels(tuple(weights[name].shape[0] for name in convolutions))
    stages = enumerate(configuration.kernels, 1)
    ours = [f"conv{stage}_{place}" for stage, sides in stages for place in range(1, len(sides) + 1)]
    return dict(zip(convolutions, ours, strict=True))


def _of_kernels(sides: tuple[int, ...]) -> Configuration:
    """The network whose convolutions have kernels of these sides, in order."""
    for configuration in CONFIGURATIONS.values():
        if sides == sum(configuration.kernels, ()):
            return configuration
    raise ValueError(f"no network of the paper has {len(sides)} convolutions with kernels of {list(sides)}")


def _from_names(weights: Mapping[str, Tensor], layout: Layout) -> dict[str, Tensor]:
    """From Caffe's and MatConvNet's names, which are the paper's; `fc8_flowers`, say, counts as fc8."""
    found: dict[str, Tensor] = {}
    for name, value in weights.items():
        layer, _, kind = name.rpartition(".")
        match = re.fullmatch(r"(conv\d_\d+|fc[678])(?:[-_].*)?", layer)
        if not match or kind not in ("weight", "bias") or f"{match[1]}.{kind}" in found:
            raise ValueError(f"it holds the layer {layer}, for which there is no place in the paper's networks")
        if kind == "weight" and not 2 <= value.ndim <= 4:
            raise ValueError(f"{name} has the shape {list(value.shape)}, which no layer of the paper's networks has")
        if kind == "bias":
            value = value.flatten()
        elif layout == "matconvnet":
            value = value.reshape(*value.shape, *[1] * (4 - value.ndim)).permute(3, 2, 0, 1)  # MATLAB drops last ones
        if kind == "weight" and match[1].startswith("fc"):
            value = _rows(value)
        found[f"{match[1]}.{kind}"] = value
    return found


def _rows(value: Tensor) -> Tensor:
    """A fully connected layer as a matrix: [O, I], Caffe's old [1, 1, O, I], or a convolution [O, C, h, w]."""
    old = value.ndim == 4 and value.shape[:2] == (1, 1)
    return value[0, 0] if old else value.flatten(1)
