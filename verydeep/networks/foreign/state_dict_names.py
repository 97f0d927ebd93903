"""The VGG in a state dict, by the names that libraries and training scripts give to its layers."""

import re
from collections.abc import Mapping, Sequence
from itertools import pairwise, permutations

from torch import Tensor

from verydeep.networks.foreign.checkpoints import chosen_of
from verydeep.networks.foreign.heads import Affine, Head
from verydeep.networks.foreign.layouts import Layout
from verydeep.networks.foreign.named_arrays import NamedArrays
from verydeep.networks.foreign.torchvision import HEADS
from verydeep.numbers import number

_WRAPPERS = ("module", "_orig_mod")
"""Parts of names where a network or a part of it was wrapped: for several devices, by the compiler."""

_FIRST = re.compile(r"(|.*?\.)(features\.0|conv1_1|slice1\.0|0)\.weight")
"""Names of the first convolution: torchvision's and timm's, the paper's, LPIPS', and a sequence without a name."""

_LARGEST_STEP = 4
"""Largest difference of the numbers of two layers in a head: normalisation, ReLU and dropout may lie between them."""

_MOST_ORDERED = 5
"""Fully connected layers that are put in order, by trying all of them."""

_SHOWN = 3


def vgg_in(state: Mapping[str, Tensor], *, ema: bool = False) -> NamedArrays:
    """Return the VGG of a state dict, without the names of wrappers and of the class that it was trained in.

    Raises:
        ValueError: several VGGs, or none.
    """
    named = {".".join(part for part in name.split(".") if part not in _WRAPPERS): state[name] for name in state}
    if len(named) < len(state):  # of a network beside its wrapped self
        named = dict(state)
    prefix, notes = _prefix(named, ema=ema)
    if prefix is None and named:
        few = ", ".join([*named][:_SHOWN])
        raise ValueError(f"it holds {few} ..., which is not a VGG in the names of torchvision, timm or this package")
    if prefix is None:
        return NamedArrays(arrays={}, layout="verydeep")
    kind = next(match[2] for name in named if (match := _FIRST.fullmatch(name)) and match[1] == prefix)
    if kind == "conv1_1":
        return _papers_names(named, prefix, notes)
    layers, others = _features(named, prefix, kind)
    return _with_head(layers, others, prefix if kind == "features.0" else "", notes)


def _prefix(named: Mapping[str, Tensor], *, ema: bool) -> tuple[str | None, tuple[str, ...]]:
    """Return the prefix of the name of the first convolution, and notes; None if there is no such name.

    Raises:
        ValueError: several VGGs.
    """
    firsts = [match[1] for name in named if (match := _FIRST.fullmatch(name)) and named[name].ndim == 4]
    whole = tuple(dict.fromkeys(firsts))
    return chosen_of(whole, ema=ema) if len(whole) > 1 or (whole and ema) else (next(iter(whole), None), ())


def _papers_names(named: Mapping[str, Tensor], prefix: str, notes: tuple[str, ...]) -> NamedArrays:
    """Return weights under the paper's names: this package's own, which have their mean, or those of Caffe's kind."""
    weights = {name.removeprefix(prefix): value for name, value in named.items() if name.startswith(prefix)}
    left = [name for name in named if not name.startswith(prefix)]
    layout: Layout = "verydeep" if "mean_rgb" in weights else "caffe"
    return NamedArrays(arrays=weights, layout=layout, notes=(*notes, *_left_out(left, prefix)))


def _features(named: Mapping[str, Tensor], prefix: str, kind: str) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Return the convolutions and their normalisations as `features.N.KIND`, and all other entries."""
    patterns = {"features.0": r"features\.(\d+\.\w+)", "slice1.0": r"slice\d\.(\d+\.\w+)", "0": r"(\d+\.\w+)"}
    of_features = re.compile(re.escape(prefix) + patterns[kind])
    layers = {f"features.{match[1]}": value for name, value in named.items() if (match := of_features.fullmatch(name))}
    return layers, {name: value for name, value in named.items() if not of_features.fullmatch(name)}


def _with_head(
    layers: dict[str, Tensor], others: dict[str, Tensor], prefix: str, notes: tuple[str, ...]
) -> NamedArrays:
    """Return the VGG of the convolutions and of the other entries under `prefix`; the rest is left out."""
    inside = {name.removeprefix(prefix): value for name, value in others.items() if name.startswith(prefix)}
    left = [name for name in others if not name.startswith(prefix)]
    for layout, names in HEADS.items():
        if {name.rpartition(".")[0] for name in inside} == {*names.values()}:
            return NamedArrays(arrays=layers | inside, layout=layout, notes=(*notes, *_left_out(left, prefix)))
    connected = [name for name, value in inside.items() if name.endswith(".weight") and value.ndim == 2]
    if not connected:
        notes = (*notes, *_left_out([*left, *inside], prefix))
        return NamedArrays(arrays=layers, layout="torchvision", notes=notes)
    notes = (*notes, *_left_out(left, prefix))
    try:
        head, assumed = _head(_in_order([name.rpartition(".")[0] for name in connected], inside), inside)
    except ValueError as error:
        return NamedArrays(arrays=layers, layout="torchvision", notes=notes, unread_head=str(error))
    return NamedArrays(arrays=layers, layout="torchvision", notes=(*notes, *assumed), head=head)


def _left_out(names: list[str], prefix: str) -> tuple[str, ...]:
    what = f"what is under {prefix}" if prefix else "the convolutions"
    few = ", ".join(names[:_SHOWN])
    return (f"ignored everything but {what}: {few} ({number(len(names))} in all)",) if names else ()


def _in_order(connected: list[str], entries: Mapping[str, Tensor]) -> list[str]:
    """Return fully connected layers in the order in which each takes as many numbers as the one before gives.

    safetensors files have them by name. Where no order fits, or several do, that of the file stays.
    """
    shapes = {name: entries[f"{name}.weight"].shape for name in connected}

    def fits(names: Sequence[str]) -> bool:
        return all(shapes[name][0] == shapes[following][1] for name, following in pairwise(names))

    if fits(connected) or len(connected) > _MOST_ORDERED:
        return connected
    fitting = [list(names) for names in permutations(connected) if fits(names)]
    return fitting[0] if len(fitting) == 1 else connected


def _head(connected: list[str], entries: Mapping[str, Tensor]) -> tuple[Head, tuple[str, ...]]:
    """Return the fully connected layers of a head, and notes about assumptions.

    Raises:
        ValueError: there are other layers in it.
    """
    strange = [name for name in entries if name.rpartition(".")[0] not in connected]
    if strange:
        raise ValueError(f"its head has {strange[0]}, and a state dict does not say where ReLUs stand beside it")
    layers: list[Affine] = []
    assumed = False
    for name, following in zip(connected, [*connected[1:], None], strict=True):
        weight = entries[f"{name}.weight"]
        step = _step(name, following)
        if step > _LARGEST_STEP:
            raise ValueError(f"between {name} and {following} layers are missing")
        assumed = assumed or step > 1
        bias = entries.get(f"{name}.bias", weight.new_zeros(len(weight)))
        layers.append(Affine(weight=weight.float(), bias=bias.float(), relu=step > 1))
    note = f"ReLUs are assumed after {', '.join(connected[:-1])}, since a state dict does not say where they are"
    return Head(layers=tuple(layers), sigmoid=len(layers[-1].bias) == 1), (note,) if assumed else ()


def _step(name: str, following: str | None) -> int:
    """Return by how much the numbers of two layers of a sequence differ; 2, as with a ReLU, for layers with names."""
    if following is None:
        return 0
    (above, _, number), (other, _, next_number) = name.rpartition("."), following.rpartition(".")
    numbered = above == other and number.isdecimal() and next_number.isdecimal()
    return int(next_number) - int(number) if numbered and len(next_number) < 4 else 2
