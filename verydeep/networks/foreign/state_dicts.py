"""State dicts: PyTorch's and safetensors' files of them, and the VGG in one."""

import re
import warnings
import zipfile
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from verydeep.machine.documents import parse_json
from verydeep.networks.foreign.layouts import Layout, Taken, Triple
from verydeep.networks.foreign.named_arrays import NamedArrays

_WRAPPERS = ("module", "_orig_mod")
"""Parts of names where a network or a part of it was wrapped: for several devices, by the compiler."""

_STATE_DICTS = ("state_dict", "model_state_dict", "model")
"""Names under which checkpoints keep the weights beside other things."""

_DEEPEST = 4
"""Levels of state dicts within each other that are searched."""


def read_safetensors(path: Path, taken: Taken) -> NamedArrays:
    """Read the VGG of a safetensors file, with mean, std and class names where its metadata tell them.

    Raises:
        ValueError: several VGGs, or none.
    """
    from safetensors import safe_open

    with safe_open(path, framework="pt") as file:
        told: Mapping[str, str] = file.metadata() or {}
        arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (no mapping)
    return replace(
        _state_dict(arrays),
        mean=_triple(told.get("mean")),
        std=_triple(told.get("std")),
        classes=_names(told.get("classes")),
    )


def _triple(text: str | None) -> Triple | None:
    """Return numbers as `write_weights` leaves them in metadata; there may be anything in it."""
    try:
        first, second, third = map(float, (text or "").split(","))
    except ValueError:
        return None
    return first, second, third


def _names(text: str | None) -> tuple[str, ...] | None:
    """Return the list of names that `write_weights` leaves in metadata."""
    try:
        return parse_json(text or "", tuple[str, ...])
    except ValueError:
        return None


def read_torch(path: Path, taken: Taken) -> NamedArrays:
    """Read the VGG of a PyTorch file by its restricted unpickler, which knows tensors and plain values only.

    Raises:
        ValueError: damaged, anything that would run code, several VGGs, or none.
    """
    import argparse

    if zipfile.is_zipfile(path):
        _check_stored(path)
    try:
        # PyTorch warns of formats that it then refuses. Training scripts keep their options, a Namespace, beside the
        # weights: a class without code of its own.
        with warnings.catch_warnings(), torch.serialization.safe_globals([argparse.Namespace]):
            warnings.simplefilter("ignore")
            content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        raise ValueError(_torch_reason(str(error))) from error
    for _ in range(_DEEPEST):
        if isinstance(content, Mapping):
            content = next((content[name] for name in _STATE_DICTS if isinstance(content.get(name), Mapping)), content)
    if not isinstance(content, Mapping):
        raise ValueError(f"it holds a {type(content).__name__}, not a state dict")
    arrays = {str(name): value.detach() for name, value in content.items() if isinstance(value, Tensor)}
    return _state_dict(arrays)


def _check_stored(path: Path) -> None:
    """Refuse archives with compressed files, or several in one place, which could hold anything; PyTorch's are plain.

    Raises:
        ValueError: an archive of that kind.
    """
    with zipfile.ZipFile(path) as archive:
        members = archive.infolist()
    packed = [member.filename for member in members if member.compress_type != zipfile.ZIP_STORED]
    if packed:
        raise ValueError(f"it is an archive with compressed files ({packed[0]}), not PyTorch's")
    if sum(member.file_size for member in members) > path.stat().st_size:
        raise ValueError("the files in it claim to be larger than it is: damaged, or not PyTorch's")


def _torch_reason(error: str) -> str:
    """Return why PyTorch refused, without its advice to run what is in the file."""
    if wanted := re.search(r"GLOBAL ([\w.]+)", error):
        return f"it holds {wanted[1]} and would run its code; only tensors are read: save net.state_dict()"
    if "legacy .tar format" in error:
        return "it is in PyTorch's oldest format, which cannot be read safely: save it again with a newer PyTorch"
    if "TorchScript" in error:
        return "it is a TorchScript program: save net.state_dict()"
    return f"it is cut off, damaged or not PyTorch's ({error.partition('. ')[0][:120]})"


def _state_dict(arrays: Mapping[str, Tensor]) -> NamedArrays:
    """Return the VGG of a state dict, without the names of wrappers and of the class that it was trained in.

    Raises:
        ValueError: several VGGs, or none.
    """
    named = {".".join(part for part in name.split(".") if part not in _WRAPPERS): arrays[name] for name in arrays}
    if named and all(re.fullmatch(r"\d+\.\w+", name) for name in named):  # net.features.state_dict()
        named = {f"features.{name}": value for name, value in named.items()}
    firsts = (re.fullmatch(r"(|.*\.)(features\.0|conv1_1)\.weight", name) for name in named)
    prefixes = sorted({first[1] for first in firsts if first})
    if len(prefixes) > 1:
        raise ValueError(f"it holds several VGGs, {', '.join(map(repr, prefixes))}...: save one of them")
    prefix = "".join(prefixes)
    weights = {name.removeprefix(prefix): value for name, value in named.items() if name.startswith(prefix)}
    others = [name for name in named if not name.startswith(prefix)]
    note = f"left out is what is not under {prefix}: {', '.join(others[:3])} ({len(others)} in all)"
    return NamedArrays(arrays=weights, layout=_layout(weights), notes=(note,) if others else ())


def _layout(names: Mapping[str, Tensor]) -> Layout:
    """Return whose names these are.

    Raises:
        ValueError: those of no network that this package knows.
    """
    if not names or "conv1_1.weight" in names:
        return "verydeep"
    if any(name.startswith(("pre_logits.", "head.fc.")) for name in names):
        return "timm"
    if "features.0.weight" in names:
        return "torchvision"
    few = ", ".join(list(names)[:3])
    raise ValueError(f"it holds {few} ..., which is no VGG in the names of torchvision, timm or this package")
