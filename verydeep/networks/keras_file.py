"""Keras' files: legacy `.h5` of weights or whole models, and Keras 3's `.weights.h5` and `.keras`."""

import io
import re
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from verydeep.networks.named_arrays import NamedArrays, allowed_bytes

_IN_ARCHIVE = "model.weights.h5"
_DEEPEST = 8
"""Networks within networks that are looked into."""


def read_keras(path: Path) -> NamedArrays:
    """The arrays of a Keras file, `LAYER.kernel` and `LAYER.bias`, in the order of the layers.

    Raises:
        ValueError: not Keras', damaged, layers with other arrays than a kernel and a bias, or h5py is missing.
    """
    try:
        import h5py
    except ImportError:
        raise ValueError("it needs the package h5py: pip install 'verydeep[keras]'") from None
    allowed = allowed_bytes(path.stat().st_size)
    opened: Any = path
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            if archive.getinfo(_IN_ARCHIVE).file_size > allowed:
                raise ValueError(f"{_IN_ARCHIVE} in it claims to hold more than it can")
            with archive.open(_IN_ARCHIVE) as member:
                opened = io.BytesIO(member.read(allowed))
    arrays: dict[str, Tensor] = {}
    with h5py.File(opened, "r") as file:
        for layer, values in _layers(file):
            for value in values:
                allowed -= value.nbytes
                if allowed < 0 or value.id.get_storage_size() == 0 or value.external or value.is_virtual:
                    raise ValueError(f"{layer} claims to hold more than there is in the file")
            _add(arrays, layer, [np.asarray(value[()]) for value in values])
    return NamedArrays(arrays=arrays, layout="keras")


def _add(arrays: dict[str, Tensor], layer: str, values: list[Any]) -> None:
    """A layer's arrays under their names; a layer has a kernel and perhaps a bias."""
    kinds = [{1: "bias", 2: "kernel", 4: "kernel"}.get(value.ndim, "") for value in values]
    if kinds not in (["kernel"], ["kernel", "bias"]):
        raise ValueError(f"the layer {layer} has arrays of {[list(value.shape) for value in values]}: no VGG's")
    for kind, value in zip(kinds, values, strict=True):
        if f"{layer}.{kind}" in arrays:
            raise ValueError(f"the layer {layer} comes twice")
        arrays[f"{layer}.{kind}"] = torch.from_numpy(np.ascontiguousarray(value))


def _layers(file: Any) -> Iterator[tuple[str, list[Any]]]:
    """Layers with arrays, in order."""
    root = _child(file, "model_weights") if "model_weights" in file else file
    if "layer_names" in root.attrs:
        for name in map(_text, root.attrs["layer_names"]):
            group = _child(root, name)
            yield from _grouped(name, group, [_text(weight) for weight in group.attrs["weight_names"]])
    else:
        yield from _of_keras_3(root, _DEEPEST)


def _grouped(name: str, group: Any, weights: list[str]) -> Iterator[tuple[str, list[Any]]]:
    """The layers of a group: one, or those of a network within the network."""
    found: dict[str, list[Any]] = {}
    for weight in weights:
        *above, _ = weight.split("/")
        found.setdefault(above[-1] if above else name, []).append(_child(group, weight))
    yield from found.items()


def _of_keras_3(group: Any, deepest: int) -> Iterator[tuple[str, list[Any]]]:
    """Layers of `layers/CLASS_N/vars`; newer files have their names as an attribute."""
    for name in sorted(group, key=_natural):
        child = _child(group, name)
        if not hasattr(child, "keys") or name == "optimizer":
            continue
        if name == "vars":
            values = [_child(child, number) for number in sorted(child, key=_natural)]
            if values:
                yield _text(child.attrs.get("name", group.name.rpartition("/")[2])), values
        elif deepest:
            yield from _of_keras_3(child, deepest - 1)


def _natural(name: str) -> tuple[str, int]:
    """`conv2d`, `conv2d_1`, ..., `conv2d_10`."""
    match = re.fullmatch(r"(.*?)_?(\d{0,9})", name, flags=re.DOTALL)
    return (name, 0) if match is None else (match[1], int(match[2] or 0))


def _child(group: Any, path: str) -> Any:
    """What is called so in the file; links to other files are not followed."""
    import h5py

    for part in path.split("/"):
        if not hasattr(group, "keys") or not isinstance(group.get(part, getlink=True), h5py.HardLink):
            raise ValueError(f"it has no {path}")
        group = group[part]
    return group


def _text(name: Any) -> str:
    return name.decode() if isinstance(name, bytes) else str(name)
