"""torchvision's and timm's VGGs: their names, in and out, and timm's `config.json`.

torchvision  features.N OIHW; classifier.0, .3, .6 OI.
timm         features.N OIHW; pre_logits.fc1, .fc2 as convolutions, head.fc OI.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from verydeep.machine.documents import converted
from verydeep.networks.foreign.layouts import ForeignLayout, Triple
from verydeep.networks.foreign.recognition import convolution_positions, fc6_window

HEADS: dict[ForeignLayout, dict[str, str]] = {
    "torchvision": {"fc6": "classifier.0", "fc7": "classifier.3", "fc8": "classifier.6"},
    "timm": {"fc6": "pre_logits.fc1", "fc7": "pre_logits.fc2", "fc8": "head.fc"},
}
"""Their names of the fully connected layers."""

_Features = dict[int, dict[str, Tensor]]
"""Entries by the number of the layer in `features`, then by their own name."""


def from_torchvision(weights: Mapping[str, Tensor], layout: ForeignLayout) -> dict[str, Tensor]:
    """Return the weights under this package's names and in its axes.

    Raises:
        ValueError: an entry that a VGG in this layout does not have.
    """
    features: _Features = {}
    ours: dict[str, Tensor] = {}
    heads = {theirs: layer for layer, theirs in HEADS[layout].items()}
    for name, value in weights.items():
        layer, _, kind = name.rpartition(".")
        if match := re.fullmatch(r"features\.(\d{1,4})", layer):
            features.setdefault(int(match[1]), {})[kind] = value
        elif layer in heads:
            ours[f"{heads[layer]}.{kind}"] = value.flatten(1) if kind == "weight" and value.ndim == 4 else value
        else:
            raise ValueError(f"it holds {name}, which {layout}'s VGG does not have")
    return ours | _from_features(features, layout)


def to_torchvision(weights: Mapping[str, Tensor], layout: ForeignLayout) -> dict[str, Tensor]:
    """Return weights in the names and axes of the library, without `mean_rgb`, which has no place there."""
    names = _feature_names(weights) | HEADS[layout]
    theirs = {}
    for name, value in weights.items():
        layer, _, kind = name.rpartition(".")
        if layer:
            theirs[f"{names[layer]}.{kind}"] = value
    if layout == "timm":
        for layer, side in (("fc6", fc6_window(weights)), ("fc7", 1)):
            rows = weights[f"{layer}.weight"]
            theirs[f"{names[layer]}.weight"] = rows.reshape(rows.shape[0], -1, side, side)
    return theirs


def _feature_names(weights: Mapping[str, Tensor]) -> dict[str, str]:
    """Return their names of layers: a sequence of convolutions, normalisations, ReLUs and poolings, numbered."""
    batch_norm = any(name.startswith("bn") for name in weights)
    names, number, before = {}, 0, "1"
    for position in convolution_positions(weights):
        stage = position.partition("_")[0]
        number += stage != before  # a pooling
        names[f"conv{position}"] = f"features.{number}"
        if batch_norm:
            names[f"bn{position}"] = f"features.{number + 1}"
        number, before = number + 2 + batch_norm, stage
    return names


def _from_features(features: _Features, layout: ForeignLayout) -> dict[str, Tensor]:
    left = dict(features)
    ours: dict[str, Tensor] = {}
    for number, position in _positions(features):
        for layer, entries in (("conv", left.pop(number)), ("bn", left.pop(number + 1, {}))):
            ours |= {f"{layer}{position}.{kind}": value for kind, value in entries.items()}
            if "running_mean" in entries:  # old files do not count batches
                ours.setdefault(f"{layer}{position}.num_batches_tracked", torch.tensor(0))
    if left:
        raise ValueError(f"it holds features.{min(left)}, which {layout}'s VGG does not have")
    return ours


def _positions(features: _Features) -> Iterator[tuple[int, str]]:
    """Yield the number and the position, `1_1`, of each convolution: after a pooling a new stage begins."""
    numbers = sorted(n for n, entries in features.items() if entries.get("weight", torch.empty(0)).ndim == 4)
    batch_norm = any("running_mean" in entries for entries in features.values())
    stage, position, before = 1, 0, -2 - batch_norm
    for number in numbers:
        match number - before - batch_norm:
            case 2:
                position += 1
            case 3:  # a pooling between them
                stage, position = stage + 1, 1
            case _:
                raise ValueError(f"its convolutions are features.{', .'.join(map(str, numbers))}, which no VGG has")
        before = number
        yield number, f"{stage}_{position}"


@dataclass(frozen=True, kw_only=True)
class _Stated:
    """The fields of timm's `config.json`, in it or in its `pretrained_cfg`, which takes precedence."""

    mean: Triple | None = None
    std: Triple | None = None
    label_names: tuple[str, ...] | None = None


@dataclass(frozen=True, kw_only=True)
class _Config(_Stated):
    pretrained_cfg: _Stated | None = None


def timm_config(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return mean, std and class names of timm's `config.json`, as fields of `NamedArrays`.

    Raises:
        ValueError: something other than numbers and names.
    """
    try:
        told = converted(config, _Config)
    except ValueError as error:
        raise ValueError(f"the config.json beside it cannot be used: {error}") from error
    within = told.pretrained_cfg or _Stated()
    fields = {
        "mean": within.mean or told.mean,
        "std": within.std or told.std,
        "classes": within.label_names or told.label_names,
    }
    return {name: value for name, value in fields.items() if value}
