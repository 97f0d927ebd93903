"""Files of torch.export: a program that takes any batch, height and width, in float32.

A `.pt2` is not read as PyTorch reads it: torch.export.load unpickles anything in it and evaluates its
expressions as Python, so any file could do anything (PyTorch 2.13). Only its numbers and its metadata are taken, and
the network that the metadata name is built from scratch.
"""

import io
import math
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram

from verydeep.exported_networks.exported import ExportedNet
from verydeep.exported_networks.metadata import KEY, Metadata, from_json
from verydeep.machine.documents import MOST_BYTES, parse_json
from verydeep.networks.architecture import DOWNSAMPLING
from verydeep.networks.vgg import VGG, vgg_without_weights
from verydeep.numbers import counted, number
from verydeep.runs.model import Model, file_sha256

_LONGEST_SIDE, _LARGEST_BATCH = 2**20, 2**20
"""Longest side in pixels, and largest batch, of a program: torch.export asks for limits."""


def write(model: Model, metadata: Metadata, calibration: Sequence[Tensor], file: Path) -> None:
    """Write a `.pt2` with the metadata as an extra file; there is nothing to calibrate."""
    torch.export.save(_program(model.net), file, extra_files={f"{KEY}.json": metadata.to_json()})


@dataclass(frozen=True, kw_only=True)
class _WeightFile:
    path_name: str


@dataclass(frozen=True, kw_only=True)
class _Weights:
    """PyTorch's list of the weights."""

    config: dict[str, _WeightFile]


def read(file: Path) -> tuple[VGG, Metadata, str]:
    """Read the weights and the metadata of a file that `write` made.

    Raises:
        ValueError: it is another file, or a damaged one.
    """
    return *_read(file), file_sha256(file)


def _read(file: Path) -> tuple[VGG, Metadata]:
    try:
        with zipfile.ZipFile(file) as archive:
            root = archive.namelist()[0].partition("/")[0]
            extra = f"{root}/extra/{KEY}.json"
            metadata = from_json(_document(archive, extra) if extra in archive.namelist() else None)
            net = vgg_without_weights(metadata.architecture)
            folder = f"{root}/data/weights"
            listed = parse_json(_document(archive, f"{folder}/model_weights_config.json"), _Weights).config
            weights = {
                name: _tensor(archive, f"{folder}/{listed[f'net.{name}'].path_name}", like)
                for name, like in net.state_dict().items()
            }
        net.load_state_dict(weights, assign=True)
    except ValueError:
        raise
    except Exception as error:  # zipfile, zlib and struct have their own
        raise ValueError(f"it is not a torch.export file, or it is damaged ({error})") from error
    return net.eval(), metadata


def reread(file: Path) -> ExportedNet:
    """Return the network of a file just written, run by PyTorch; never of a file of unknown origin."""
    _, metadata = _read(file)
    program = torch.export.load(file).module()
    return ExportedNet(metadata, lambda images: program(torch.from_numpy(images)))


class _Logits(nn.Module):
    """`logits` [B, classes] and `score_map` [B, classes, h, w] of `images` [B, 3, H, W] in 0..255.

    It computes `VGG.score_map`, written so that tracing leaves H and W open: the digits that the poolings take are
    values of the program, not shapes that it would be specialised to.
    """

    def __init__(self, net: VGG) -> None:
        super().__init__()
        self.net = net

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Return the score map's mean over space, and the map."""
        net, window = self.net, self.net.architecture.window
        x = images - net.mean_rgb[:, None, None]
        offsets = [torch.scalar_tensor(side % DOWNSAMPLING // 2, dtype=torch.int64) for side in images.shape[2:]]
        for name in net.layer_names:
            if name.startswith("pool"):
                x, offsets = _on_its_grid(x, offsets)
            if name == "fc6":
                x = _windows(x, window)
            x = net.get_submodule(name)(x)
        score_map = x.permute(0, 3, 1, 2)
        return score_map.mean(dim=(2, 3)), score_map


def _on_its_grid(x: Tensor, offsets: list[Tensor]) -> tuple[Tensor, list[Tensor]]:
    """Return a pooling's input without the row and column that its digits leave out, and the remaining digits."""
    for axis, offset in zip((2, 3), offsets, strict=True):
        digit: Any = (offset % 2).item()
        torch._check(digit >= 0)
        torch._check(digit <= 1)
        x = x.narrow(axis, digit, x.shape[axis] - digit)
    return x, [offset // 2 for offset in offsets]


def _windows(pool5: Tensor, window: int) -> Tensor:
    """Return all windows of `pool5` as rows, [B, h, w, C * window**2]."""
    batch, channels, height, width = pool5.shape
    torch._check(height >= window)
    torch._check(width >= window)
    rows, columns = height - window + 1, width - window + 1
    x = pool5
    for axis, count, line in ((2, rows, pool5[0, 0, :, 0]), (3, columns, pool5[0, 0, 0])):
        numbers = _numbers(line)
        x = x.index_select(axis, (numbers[:count, None] + numbers[:window]).flatten())
    x = x.reshape(batch, channels, rows, window, columns, window)
    return x.permute(0, 2, 4, 1, 3, 5).flatten(3)


def _numbers(line: Tensor) -> Tensor:
    """Return 0, 1, 2, ..., [N], where `line` [N] is: `arange` would be traced with the device of the example."""
    return torch.ones_like(line, dtype=torch.int64).cumsum(0) - 1


def _program(net: VGG) -> ExportedProgram:
    """Return the program of a network in its testing mode, on the CPU; `program.module().to(device)` moves it."""
    weights = {name: value.cpu().contiguous() for name, value in net.state_dict().items()}  # as stored, not as computed
    net, crop = net.with_weights(weights).eval(), net.architecture.crop
    example = torch.zeros(2, 3, crop + 45, crop + 77)  # nothing about these numbers is special
    sizes = {
        0: Dim("batch", min=1, max=_LARGEST_BATCH),
        2: Dim("height", min=crop, max=_LONGEST_SIDE),
        3: Dim("width", min=crop, max=_LONGEST_SIDE),
    }
    with torch.no_grad():
        return torch.export.export(_Logits(net), (example,), dynamic_shapes={"images": sizes})


def _document(archive: zipfile.ZipFile, name: str) -> bytes:
    if (size := archive.getinfo(name).file_size) > MOST_BYTES:  # a compressed one can claim anything
        raise ValueError(f"{name} has {counted(size, 'byte')}, more than the {number(MOST_BYTES)} that are read")
    return archive.read(name)


def _tensor(archive: zipfile.ZipFile, name: str, like: Tensor) -> Tensor:
    """Read a contiguous tensor as torch.export stores it: its bytes, whose checksum `zipfile` compares."""
    size = math.prod(like.shape) * like.element_size()
    entry = archive.getinfo(name)
    if entry.file_size != size or entry.compress_type != zipfile.ZIP_STORED:  # a compressed one can claim anything
        raise ValueError(f"{name} is not stored as {counted(size, 'byte')}")
    with archive.open(name) as file:
        data = io.BytesIO(file.read()).getbuffer()
    return torch.frombuffer(data, dtype=like.dtype).view(like.shape)
