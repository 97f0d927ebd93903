"""A network as a program of torch.export that takes any batch, height and width."""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram

from verydeep.export.metadata import KEY, Metadata
from verydeep.networks.configurations import DOWNSAMPLING
from verydeep.networks.vgg import VGG

LONGEST_SIDE, LARGEST_BATCH = 2**20, 2**20
"""torch.export wants limits."""


class Logits(nn.Module):
    """`logits` [B, classes] and `score_map` [B, classes, h, w] of `images` [B, 3, H, W] in 0..255.

    What `VGG.score_map` computes, written so that tracing leaves H and W open: the digits that the poolings take are
    values of the program, not shapes that it would be specialised to.
    """

    def __init__(self, net: VGG) -> None:
        super().__init__()
        self.net = net

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """The score map's mean over space, and the map."""
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
    """A pooling's input without the row and the column that its digits leave out, and the digits that are left."""
    for axis, offset in zip((2, 3), offsets, strict=True):
        digit: Any = (offset % 2).item()
        torch._check(digit >= 0)
        torch._check(digit <= 1)
        x = x.narrow(axis, digit, x.shape[axis] - digit)
    return x, [offset // 2 for offset in offsets]


def _windows(pool5: Tensor, window: int) -> Tensor:
    """[B, h, w, C * window**2], all windows of `pool5`, as rows."""
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
    """[N], 0, 1, 2, ..., wherever `line` [N] is: `arange` would be traced with the device of the example."""
    return torch.ones_like(line, dtype=torch.int64).cumsum(0) - 1


def exported_program(net: VGG) -> ExportedProgram:
    """The program of a network in its testing mode, on the CPU; `program.module().to(device)` computes elsewhere."""
    net, crop = net.eval().cpu(), net.architecture.crop
    example = torch.zeros(2, 3, crop + 45, crop + 77)  # nothing about these numbers is special
    sizes = {
        0: Dim("batch", min=1, max=LARGEST_BATCH),
        2: Dim("height", min=crop, max=LONGEST_SIDE),
        3: Dim("width", min=crop, max=LONGEST_SIDE),
    }
    with torch.no_grad():
        return torch.export.export(Logits(net), (example,), dynamic_shapes={"images": sizes})


def write_program(program: ExportedProgram, metadata: Metadata, file: Path) -> None:
    """Writes a `.pt2` with the metadata as an extra file."""
    torch.export.save(program, file, extra_files={f"{KEY}.json": metadata.to_json()})
