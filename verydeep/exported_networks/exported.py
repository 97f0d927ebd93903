"""Exported files, written from models and read back as networks that can be tested and predict.

Nothing in such a file is run except by the runtime that is made for it: ONNX Runtime and OpenVINO know a fixed set of
operators, and neither the program in a `.pt2` (`torch.py`) nor the graph in an `.ncnn.param` (`ncnn.py`) is loaded.
"""

from collections.abc import Iterable, Iterator, Sequence, Set
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from jaxtyping import Float, Float32, Num
from torch import Tensor
from torch.nn.utils.fusion import fuse_conv_bn_weights

from verydeep.exported_networks.formats import FORMATS, Format, format_module, format_of
from verydeep.exported_networks.layers import (
    Compute,
    FileLayers,
    errors_about,
    fully_connected,
    opened_again,
    unchanged,
)
from verydeep.exported_networks.metadata import KEY, Metadata, metadata_of
from verydeep.machine.errors import one_line
from verydeep.machine.libraries import library
from verydeep.machine.runtime import Device, torch_device
from verydeep.networks.grids import DEFAULT_GRID, PoolingGrid
from verydeep.networks.vgg import VGG, LayeredNetwork
from verydeep.numbers import counted, number
from verydeep.runs.model import Model

INPUT, OUTPUTS = "images", ("logits", "score_map")
"""Names of the input and the outputs, in every format."""

CALIBRATED = 300
"""Images that INT8 is calibrated on; NNCF's own choice."""


class ExportedNet:
    """A network of an exported file, on the CPU: a `LayeredNetwork`."""

    def __init__(self, metadata: Metadata, compute: Compute, layers: FileLayers | None = None) -> None:
        self.architecture = metadata.architecture
        self.mean_rgb = torch.tensor(metadata.mean_rgb)
        self.precision = metadata.precision
        self.layer_names = layers.names if layers else ()
        self._layers = layers
        self._computing: dict[tuple[str, ...], Compute] = {OUTPUTS: compute}

    def forward(self, images: Tensor) -> Float[Tensor, "B K"]:
        """Return logits [B, K] of crop-sized images [B, 3, crop, crop] in 0..255.

        Raises:
            ValueError: another shape.
        """
        crop = self.architecture.crop
        if images.ndim != 4 or images.shape[1:] != (3, crop, crop):
            raise ValueError(f"images must be [B, 3, {crop}, {crop}], not {list(images.shape)}")
        return self._tensors(OUTPUTS, images)[0]

    __call__ = forward

    def score_map(self, images: Tensor, *, grid: PoolingGrid = DEFAULT_GRID) -> Float[Tensor, "B K h w"]:
        """Return class scores over space, [B, K, h, w], of images [B, 3, H, W] in 0..255 (`VGG.score_map`).

        Raises:
            ValueError: another shape, a side smaller than the crop, or another grid than the one in the file.
        """
        self.check_grid(grid)
        self._check_whole_images(images)
        return self._tensors(OUTPUTS, images)[1]

    def activations(
        self, images: Tensor, names: Iterable[str], *, dense: bool = False, grid: PoolingGrid = DEFAULT_GRID
    ) -> dict[str, Tensor]:
        """Return named layers' outputs (`VGG.activations`): of crops, or with `dense` of images [B, 3, H, W].

        Raises:
            ValueError: a layer that the file does not give, another shape, a side smaller than the crop, another grid
                than the one in the file, or a file that has changed since it was read.
        """
        self.check_grid(grid)
        asked, crop = tuple(dict.fromkeys(names)), self.architecture.crop
        unknown = [name for name in asked if name not in self.layer_names]
        if unknown or not asked:
            problem = f"no layer {', '.join(map(repr, unknown))}" if unknown else "no layer asked for"
            raise ValueError(f"{problem}: this file gives {', '.join(self.layer_names)}")
        self._check_whole_images(images)
        if not dense and images.shape[2:] != (crop, crop):
            raise ValueError(
                f"images must be [B, 3, {crop}, {crop}], not {list(images.shape)}: use dense=True for them"
            )
        in_order = tuple(name for name in self.layer_names if name in asked)
        found = dict(zip(in_order, self._tensors(in_order, images), strict=True))
        vectors = () if dense else fully_connected(self.architecture)
        return {name: found[name].flatten(1) if name in vectors else found[name] for name in asked}

    def _tensors(self, names: tuple[str, ...], images: Tensor) -> Sequence[Tensor]:
        """Return the outputs of the file, or those of layers, [B, C, h, w] each."""
        if names not in self._computing and self._layers is not None:
            self._computing.clear()  # or memory would hold the weights twice
            self._computing[names] = opened_again(self._layers, names, self.architecture)
        return self._computing[names](_array(images))

    def _check_whole_images(self, images: Tensor) -> None:
        crop = self.architecture.crop
        if images.ndim != 4 or images.shape[1] != 3 or min(images.shape[2:]) < crop:
            raise ValueError(f"images must be [B, 3, H, W] with sides from {crop}, not {list(images.shape)}")

    def check_grid(self, grid: PoolingGrid) -> None:
        """Refuse the grids that are not in the file.

        Raises:
            ValueError: another than the centred one.
        """
        if grid != "centred":
            raise ValueError(f"an exported file has the centred grid only: use the run for --grid {grid}")

    def eval(self) -> Self:
        """Return itself, since it has no other mode."""
        return self

    def to(self, device: torch.device | str, **_: Any) -> Self:
        """Return itself.

        Raises:
            ValueError: another device than the CPU.
        """
        if torch.device(device).type != "cpu":
            raise ValueError(f"an exported network computes on the CPU, not on {device}: use the run, or --device cpu")
        return self


def checked_net(compute: Compute, metadata: Metadata, layers: FileLayers | None = None) -> ExportedNet:
    """Return the network, if a black crop shows that its graph has the crop and the classes of its metadata.

    Raises:
        ValueError: it has others, or cannot be computed.
    """
    crop, classes = metadata.architecture.crop, metadata.architecture.classes
    logits, score_map = compute(np.zeros((1, 3, crop, crop), np.float32))
    if (logits.shape, score_map.shape) != ((1, classes), (1, classes, 1, 1)):
        raise ValueError(
            f"its metadata {KEY!r} say {counted(classes, 'class', 'classes')} at crop {number(crop)}, but its scores "
            f"have the shapes {tuple(logits.shape)} and {tuple(score_map.shape)}"
        )
    return ExportedNet(metadata, compute, layers)


def check_operators(found: Set[str], known: Set[str]) -> None:
    """Refuse graphs of others, before a runtime sees them.

    Raises:
        ValueError: there are operators that `write` does not write.
    """
    if others := found - known:
        names = ", ".join(sorted(others))
        raise ValueError(f"its graph has operators that verydeep export does not write: {names}")


def convolution_as_tested(net: VGG, name: str) -> tuple[Float[Tensor, "O I k k"], Float[Tensor, " O"]]:
    """Return weights and biases, with the batch normalisation that follows multiplied in."""
    convolution: Any = net.get_submodule(name)
    if not net.architecture.batch_norm:
        return convolution.weight, convolution.bias
    norm: Any = net.get_submodule(name.replace("conv", "bn"))
    return fuse_conv_bn_weights(
        convolution.weight, convolution.bias, norm.running_mean, norm.running_var, norm.eps, norm.weight, norm.bias
    )


@contextmanager
def errors_of_runtime(file: Path) -> Iterator[None]:
    """Turn a runtime's own errors, which do not name the file, into a ValueError that does."""
    try:
        yield
    except Exception as error:
        raise ValueError(f"the runtime cannot compute {file.name}: {one_line(error)}") from error


def batch_of_one(image: Num[Tensor, "3 H W"]) -> Float32[np.ndarray, "1 3 H W"]:
    """Return an image as libraries take it for calibration."""
    return _array(image[None])


def _array(images: Num[Tensor, "B 3 H W"]) -> Float32[np.ndarray, "B 3 H W"]:
    return images.float().contiguous().cpu().numpy()


def write_exported(
    model: Model, file: Path, *, to: Format, calibration: Sequence[Tensor] | None = None, bf16: bool = False
) -> None:
    """Write a file, unchecked; in INT8 if there are images uint8 [3, H, W] to calibrate on, or for bfloat16."""
    metadata = metadata_of(model, int8=calibration is not None, bf16=bf16)
    format_module(to).write(model, metadata, calibration or (), file)


def is_exported(path: str | Path) -> bool:
    """Return whether this is a file, as exported networks are, and not a run folder."""
    return Path(path).is_file()


def load_exported(path: str | Path, device: Device = "cpu") -> Model[LayeredNetwork]:
    """Read the network of a file that `verydeep export` wrote, with the names of its outputs.

    The network of a `.pt2` is a `VGG`, on any device. That of an `.onnx`, `.xml` or `.ncnn.param` is an `ExportedNet`,
    computed on the CPU with as many threads as PyTorch has; `auto` means the CPU too.

    Raises:
        ValueError: another kind of file, a damaged one, one that `verydeep export` did not write, a missing library,
            an impossible device, or a file that is replaced at that moment.
    """
    path = Path(path)
    to = format_of(path)
    if to is None:
        known = ", ".join(one.suffix for one in FORMATS.values())
        raise ValueError(f"{path} is neither a run folder nor an exported network ({known})")
    with errors_about(path), unchanged(path):
        net, metadata, sha256 = format_module(to).read(path)
        net = net.to(torch.device("cpu") if device == "auto" and to != "torch" else torch_device(device))
    runtime = FORMATS[to].runtime
    return Model(
        net=net,
        classes=metadata.classes,
        scale=metadata.scale,
        flip=metadata.flip,
        weights_sha256=metadata.weights_sha256,
        exported=(sha256, *([f"{runtime} {library(runtime).__version__}"] if runtime else [])),
    )
