"""A network in a runtime of its own, under the names by which a `VGG` is tested and predicts."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

from verydeep.export.metadata import KEY, Metadata
from verydeep.machine.errors import one_line

INPUT, OUTPUTS = "images", ("logits", "score_map")
"""Names of what goes in and comes out, in every format."""

CALIBRATED = 300
"""Images that INT8 is calibrated on; NNCF's own choice."""

Compute = Callable[[NDArray[np.float32]], tuple[Tensor, Tensor]]
"""Computes `logits` and `score_map` of images [B, 3, H, W]."""


class ExportedNet:
    """A network of an exported file, on the CPU: a `ScoringNetwork`."""

    def __init__(self, metadata: Metadata, compute: Compute) -> None:
        self.architecture = metadata.architecture
        self.mean_rgb = torch.tensor(metadata.mean_rgb)
        self._compute = compute

    def forward(self, images: Tensor) -> Float[Tensor, "B K"]:
        """Return logits [B, K] of crop-sized images [B, 3, crop, crop] in 0..255.

        Raises:
            ValueError: another shape.
        """
        crop = self.architecture.crop
        if images.ndim != 4 or images.shape[1:] != (3, crop, crop):
            raise ValueError(f"images must be [B, 3, {crop}, {crop}], not {list(images.shape)}")
        return self._compute(_array(images))[0]

    __call__ = forward

    def score_map(self, images: Tensor) -> Float[Tensor, "B K h w"]:
        """Return class scores over space, [B, K, h, w], of images [B, 3, H, W] in 0..255 (`VGG.score_map`).

        Raises:
            ValueError: another shape, or a side smaller than the crop.
        """
        crop = self.architecture.crop
        if images.ndim != 4 or images.shape[1] != 3 or min(images.shape[2:]) < crop:
            raise ValueError(f"images must be [B, 3, H, W] with sides from {crop}, not {list(images.shape)}")
        return self._compute(_array(images))[1]

    def eval(self) -> Self:
        """Return itself: it knows no other mode."""
        return self

    def to(self, device: torch.device | str, **_: Any) -> Self:
        """Return itself.

        Raises:
            ValueError: another device than the CPU.
        """
        if torch.device(device).type != "cpu":
            raise ValueError(f"an exported network computes on the CPU, not on {device}: use the run, or --device cpu")
        return self


def checked_net(compute: Compute, metadata: Metadata) -> ExportedNet:
    """Return the network, if a black crop shows that its graph has the crop and the classes of its metadata.

    Raises:
        ValueError: it has others, or cannot be computed.
    """
    crop, classes = metadata.architecture.crop, metadata.architecture.classes
    logits, score_map = compute(np.zeros((1, 3, crop, crop), np.float32))
    if (logits.shape, score_map.shape) != ((1, classes), (1, classes, 1, 1)):
        raise ValueError(
            f"its metadata {KEY!r} say {classes:,} classes at crop {crop}, for which it gives scores of shapes "
            f"{tuple(logits.shape)} and {tuple(score_map.shape)}"
        )
    return ExportedNet(metadata, compute)


@contextmanager
def errors_of_runtime(file: Path) -> Iterator[None]:
    """Turn a runtime's own errors, which do not name the file, into a ValueError that does."""
    try:
        yield
    except Exception as error:
        raise ValueError(f"the runtime cannot compute {file.name}: {one_line(error)}") from error


def batch_of_one(image: Tensor) -> NDArray[np.float32]:
    """Return an image [3, H, W] as libraries take it for calibration, [1, 3, H, W]."""
    return _array(image[None])


def _array(images: Tensor) -> NDArray[np.float32]:
    return images.float().contiguous().numpy()
