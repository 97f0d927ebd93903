"""Files of weights to named arrays. Nothing in a file is run, and nothing is allocated that it could not hold."""

import json
import re
import warnings
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from verydeep.networks.foreign.caffe_file import read_caffe
from verydeep.networks.foreign.keras_file import read_keras
from verydeep.networks.foreign.layouts import Triple
from verydeep.networks.foreign.matconvnet_file import read_matconvnet
from verydeep.networks.foreign.named_arrays import NamedArrays, allowed_bytes
from verydeep.networks.foreign.weights import layout_of

WRAPPERS = ("module", "_orig_mod")
"""Parts of names where a network or a part of it was wrapped: for several devices, by the compiler."""

STATE_DICTS = ("state_dict", "model_state_dict", "model")
"""Under which checkpoints keep the weights beside other things."""

_DEEPEST = 4
"""State dicts within each other that are looked into."""


def read_weights(path: Path) -> NamedArrays:
    """The arrays of a file of weights; its format follows from its suffix.

    Raises:
        ValueError: not weights, damaged, cut off, or a package is missing to read it; one line that says which.
        OSError: the file cannot be read.
    """
    if not path.is_file():
        raise ValueError(f"there is no file or folder {path}")
    reader = _READERS.get(path.suffix.lower())
    if reader is None:
        raise ValueError(f"{path} is no file of weights: name one that ends in {', '.join(_READERS)}")
    if not path.stat().st_size:
        raise ValueError(f"{path} is empty: fetch it again")
    try:
        found = reader(path)
        if not found.arrays:
            raise ValueError("it holds no weights")
        for name, value in found.arrays.items():
            _check_plain(name, value)
        if sum(value.nbytes for value in found.arrays.values()) > allowed_bytes(path.stat().st_size):
            raise ValueError("its arrays claim to be many times as large as the file")
    except OSError as error:
        if error.errno is not None:
            raise
        raise ValueError(f"{path} cannot be read: {_one_line(error)}") from error
    except Exception as error:  # readers raise almost anything at damaged files
        raise ValueError(f"{path} cannot be read: {_one_line(error)}") from error
    return found


def _one_line(error: BaseException) -> str:
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= 200 else f"{text[:200]} ..."


def _check_plain(name: str, value: Tensor) -> None:
    if not name.isprintable():
        raise ValueError(f"it is damaged: it holds a name that is no text, {name!a}")
    if value.layout != torch.strided or value.is_quantized or value.is_meta:
        raise ValueError(f"{name} is no plain array of numbers: weights that were quantised are not read")
    if not value.is_floating_point() and not name.endswith("num_batches_tracked"):
        raise ValueError(f"{name} holds {value.dtype}, where weights are fractions")


def _read_safetensors(path: Path) -> NamedArrays:
    from safetensors import safe_open

    with safe_open(path, framework="pt") as file:
        told: Mapping[str, str] = file.metadata() or {}
        arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (no mapping)
    found = _state_dict(arrays)
    return replace(
        found, mean=_triple(told.get("mean")), std=_triple(told.get("std")), classes=_names(told.get("classes"))
    )


def _triple(text: str | None) -> Triple | None:
    """Numbers as `write_weights` leaves them in metadata; there may be anything in it."""
    try:
        first, second, third = map(float, (text or "").split(","))
    except ValueError:
        return None
    return first, second, third


def _names(text: str | None) -> tuple[str, ...] | None:
    """The list of names that `write_weights` leaves in metadata."""
    try:
        found = json.loads(text or "")
    except (ValueError, RecursionError):
        return None
    return tuple(found) if isinstance(found, list) and all(isinstance(name, str) for name in found) else None


def _read_torch(path: Path) -> NamedArrays:
    """By PyTorch's restricted unpickler, which knows tensors and plain values only."""
    import argparse

    if zipfile.is_zipfile(path):
        _check_stored(path)
    try:
        # PyTorch warns of formats that it then refuses. Training scripts keep their options, a Namespace, beside the
        # weights: a class without code of its own.
        with warnings.catch_warnings(), torch.serialization.safe_globals([argparse.Namespace]):
            warnings.simplefilter("ignore")
            found = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        raise ValueError(_torch_reason(error)) from error
    for _ in range(_DEEPEST):
        if isinstance(found, Mapping):
            found = next((found[name] for name in STATE_DICTS if isinstance(found.get(name), Mapping)), found)
    if not isinstance(found, Mapping):
        raise ValueError(f"it holds a {type(found).__name__}, no state dict")
    arrays = {str(name): value.detach() for name, value in found.items() if isinstance(value, Tensor)}
    return _state_dict(arrays)


def _check_stored(path: Path) -> None:
    """PyTorch stores without compression; what is compressed, or stands for several files, could be of any size."""
    with zipfile.ZipFile(path) as archive:
        members = archive.infolist()
    packed = [member.filename for member in members if member.compress_type != zipfile.ZIP_STORED]
    if packed:
        raise ValueError(f"it is an archive with compressed files ({packed[0]}), none of PyTorch's")
    if sum(member.file_size for member in members) > path.stat().st_size:
        raise ValueError("the files in it claim to be larger than it is: damaged, or none of PyTorch's")


def _torch_reason(error: Exception) -> str:
    """Why PyTorch refused, without its advice to run what is in the file."""
    text = _one_line(error)
    if wanted := re.search(r"GLOBAL ([\w.]+)", str(error)):
        return f"it holds {wanted[1]} and would run its code; only tensors are read: save net.state_dict()"
    if "legacy .tar format" in text:
        return "it is in PyTorch's oldest format, which cannot be read safely: save it again with a newer PyTorch"
    if "TorchScript" in text:
        return "it is a TorchScript program: save net.state_dict()"
    return f"it is cut off, damaged or none of PyTorch's ({text.partition('. ')[0][:120]})"


def _state_dict(arrays: Mapping[str, Tensor]) -> NamedArrays:
    """The VGG of a state dict, under its own names: without those of wrappers and of the class that it was trained in.

    Raises:
        ValueError: several VGGs, or none.
    """
    named = {".".join(part for part in name.split(".") if part not in WRAPPERS): arrays[name] for name in arrays}
    if named and all(re.fullmatch(r"\d+\.\w+", name) for name in named):  # net.features.state_dict()
        named = {f"features.{name}": value for name, value in named.items()}
    firsts = (re.fullmatch(r"(|.*\.)(features\.0|conv1_1)\.weight", name) for name in named)
    prefixes = sorted({first[1] for first in firsts if first})
    if len(prefixes) > 1:
        raise ValueError(f"it holds several VGGs, {', '.join(map(repr, prefixes))}...: save one of them")
    prefix = "".join(prefixes)
    found = {name.removeprefix(prefix): value for name, value in named.items() if name.startswith(prefix)}
    others = [name for name in named if not name.startswith(prefix)]
    notes = (f"left out is what is not under {prefix}: {', '.join(others[:3])} ({len(others)} in all)",)
    layout = layout_of(found) if found else "verydeep"
    return NamedArrays(arrays=found, layout=layout, notes=notes if others else ())


_READERS: dict[str, Callable[[Path], NamedArrays]] = {
    **dict.fromkeys((".pth", ".pt", ".ckpt", ".bin", ".tar"), _read_torch),
    ".safetensors": _read_safetensors,
    **dict.fromkeys((".h5", ".hdf5", ".keras"), read_keras),
    ".caffemodel": read_caffe,
    ".mat": read_matconvnet,
}


def read_config(path: Path) -> dict[str, Any]:
    """What a `config.json` beside weights says.

    Raises:
        ValueError: no JSON, or no object.
    """
    try:
        told = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} cannot be read: {_one_line(error)}") from error
    if not isinstance(told, dict):
        raise ValueError(f"{path} cannot be read: it holds a {type(told).__name__}, no object")
    return told


def told_by_timm(config: Mapping[str, Any]) -> dict[str, Any]:
    """Mean, std and class names of timm's `config.json`, as fields of `NamedArrays`.

    Raises:
        ValueError: other things than numbers and names.
    """
    try:
        told = {**config, **(config.get("pretrained_cfg") or {})}
        found: dict[str, Any] = {}
        for name in ("mean", "std"):
            if name in told:
                red, green, blue = map(float, told[name])
                found[name] = (red, green, blue)
        if told.get("label_names"):
            found["classes"] = tuple(map(str, told["label_names"]))
    except (ValueError, TypeError, AttributeError) as error:
        raise ValueError(f"the config.json beside it cannot be used: {_one_line(error)}") from error
    return found
