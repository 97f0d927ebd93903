"""Layers of a network in the graph of a file: which of them it computes, and as which of its tensors."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np
from jaxtyping import Float32
from torch import Tensor

from verydeep.exported_networks.formats import files_of
from verydeep.machine.errors import one_line
from verydeep.machine.regular_files import file_stamp
from verydeep.networks.architecture import Architecture, Layer, LayerKind
from verydeep.networks.arithmetic import output_shapes

Compute = Callable[[Float32[np.ndarray, "B 3 H W"]], Sequence[Float32[Tensor, "B ..."]]]
"""Computes tensors of a file from images."""

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class FileLayers:
    """The layers that a file can give."""

    names: tuple[str, ...]
    """Names by the paper, in order."""
    file: Path
    sha256: str
    """SHA-256 of the file when these layers were found in it."""
    opened: Callable[[Path, Sequence[str]], tuple[Compute, str]]
    """Opens the file and returns what computes layers, or the file's outputs, and nothing after them; and its SHA-256.
    Raises ValueError, without the name of the file."""
    channels_last: bool
    """Whether fully connected layers are [B, h, w, C] in this format, not [B, C, h, w]."""


def computed_layers(architecture: Architecture) -> list[Layer]:
    """Return the layers that a file computes: batch normalisation is in a convolution's weights, dropout is none."""
    return [layer for layer in architecture.layers() if layer.kind not in ("batch_norm", "dropout")]


def tensors_of_layers(architecture: Architecture, steps: Iterable[tuple[LayerKind, T | None]]) -> dict[str, T]:
    """Return the tensor of each layer, by the order of a graph, since a name in a file may stand for anything.

    A convolution that is normalised is known by the name of its normalisation, dropout by what it leaves as it is.

    Args:
        architecture: the network's.
        steps: the kinds of the graph's layers from the images to the scores, each with its tensor; None where it
            has none. If they are not the network's no tensor is known.
    """
    kinds, tensors = zip(*steps, strict=True) if (steps := list(steps)) else ((), ())
    if list(kinds) != [layer.kind for layer in computed_layers(architecture)]:
        return {}
    left, found, before = iter(tensors), dict[str, T | None](), ""
    for layer in architecture.layers():
        match layer.kind:
            case "batch_norm":
                found[layer.name] = found.pop(before)
            case "dropout":
                found[layer.name] = found[before]
            case _:
                found[layer.name] = next(left)
        before = layer.name
    return {name: tensor for name, tensor in found.items() if tensor is not None}


def fully_connected(architecture: Architecture) -> frozenset[str]:
    """Return the names of the layers from `fc6` on."""
    return frozenset(name for name, shape in output_shapes(architecture).items() if len(shape) == 1)


def opened_again(layers: FileLayers, names: Sequence[str], architecture: Architecture) -> Compute:
    """Return what computes layers [B, C, h, w], or a file's outputs, if a black crop gives the network's shapes.

    Raises:
        ValueError: it gives others, or the file has changed or cannot be computed.
    """
    with errors_about(layers.file), unchanged(layers.file):
        compute, sha256 = layers.opened(layers.file, names)
        if sha256 != layers.sha256:
            raise ValueError("it has changed since it was opened")
    moved = fully_connected(architecture) if layers.channels_last else frozenset()

    def in_order(images: Float32[np.ndarray, "B 3 H W"]) -> Sequence[Float32[Tensor, "B ..."]]:
        values = zip(names, compute(images), strict=True)
        return [value.movedim(-1, 1) if name in moved else value for name, value in values]

    black = np.zeros((1, 3, architecture.crop, architecture.crop), np.float32)
    found = {name: tuple(value.shape[1:]) for name, value in zip(names, in_order(black), strict=True)}
    for name, shape in output_shapes(architecture).items():
        expected = (*shape, 1, 1)[:3]
        if found.get(name, expected) != expected:
            raise ValueError(
                f"{layers.file} cannot be used: {name} of a crop is {list(expected)} by its metadata, but "
                f"{list(found[name])} by its graph"
            )
    return in_order


@contextmanager
def unchanged(file: Path) -> Iterator[None]:
    """Refuse a file, or its weights beside it, that is replaced in the block: the two halves may be of two networks.

    Raises:
        ValueError: one was replaced.
    """
    before = [file_stamp(path) for path in files_of(file)]
    yield
    if [file_stamp(path) for path in files_of(file)] != before:
        raise ValueError("it was replaced while it was opened: try again")


@contextmanager
def errors_about(file: Path) -> Iterator[None]:
    """Raise errors about what is in a file with its name."""
    try:
        yield
    except (ValueError, OSError) as error:
        raise ValueError(f"{file} cannot be used: {one_line(error)}") from error
