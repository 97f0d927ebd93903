"""How a network is tested: images at one or several scales Q to posteriors (section 3.2).

Only posteriors are ever averaged: over the mirror, over scales, and over networks.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from verydeep.images.loader import rescaled_images
from verydeep.images.quarantine import Quarantine
from verydeep.images.sources import Source
from verydeep.networks.configurations import PAPER_CROP
from verydeep.networks.scales import middle_scale, scale_in_pixels, scale_range
from verydeep.networks.vgg import VGG

SCALE_STEP = 32
"""A net trained at a fixed S is tested at S - 32, S and S + 32."""

PIXELS_AT_ONCE = 64 * 256 * 256
"""Images of one size go through the network together, up to about this many pixels."""

PIXELS_WAITING = 64 * 2**20
"""Images wait for others of their size, up to so many pixels in all (three bytes each)."""


@dataclass(frozen=True, kw_only=True)
class DenseProtocol:
    """The whole image at each scale: score map averaged over space, soft-max, averaged with the mirror."""

    scales: tuple[int, ...]
    """Q, for a crop of 224."""

    mirror: bool = True
    """Average with the mirrored image; off for nets trained without mirrored images."""

    name: ClassVar[str] = "dense"

    def __post_init__(self) -> None:
        """Raises ValueError for no scales, or one below the crop."""
        if not self.scales or min(self.scales) < PAPER_CROP:
            raise ValueError(f"scales are whole numbers from {PAPER_CROP} (the crop) up, not {list(self.scales)}")


def single_scale(trained: str) -> tuple[int, ...]:
    """The paper's one test scale for a net trained at `256`, say: Q = S, or the middle of S's range."""
    return (middle_scale(trained),)


def paper_scales(trained: str) -> tuple[int, ...]:
    """The paper's three test scales: {S-32, S, S+32}, or {Smin, middle, Smax} of a range such as `256:512`."""
    low, high = scale_range(trained)
    if low == high:
        return tuple(q for q in (low - SCALE_STEP, low, low + SCALE_STEP) if q >= PAPER_CROP)
    return low, middle_scale(trained), high


def posteriors(
    net: VGG,
    source: Source,
    protocol: DenseProtocol,
    *,
    quarantine: Quarantine | None = None,
    workers: int = 0,
    advance: Callable[[int], None] = lambda images: None,
) -> NDArray[np.float64]:
    """The posterior of every image of a source, [N, classes], in the source's order; rows add up to 1.

    Images of the same size share a batch, none is padded. Images that cannot be used are in the quarantine, and their
    rows are NaN. `advance` is told how many images are through, for each scale anew.

    Raises:
        TooManyBadImagesError: the quarantine is full.
        ValueError: the network's scores are no numbers.
    """
    quarantine = quarantine or Quarantine(len(source))
    total = np.zeros((len(source), net.classes))
    for scale in protocol.scales:
        found = np.full_like(total, np.nan)
        side = scale_in_pixels(scale, net.crop)
        for indices, images in same_size_batches(source, side, quarantine=quarantine, workers=workers):
            found[indices] = dense_posteriors(net, images, mirror=protocol.mirror).cpu().double().numpy()
            if np.isnan(found[indices]).any():
                raise ValueError("the network's scores are not finite: its training has diverged")
            advance(len(indices))
        total += found
    return total / len(protocol.scales)


@torch.inference_mode()
def dense_posteriors(net: VGG, images: Tensor, *, mirror: bool) -> Tensor:
    """Posteriors [B, classes] of whole images [B, 3, H, W] in 0..255, which stay on their side of the crop or more."""
    net.eval()
    images = images.to(net.mean_rgb.device, torch.float32, memory_format=torch.channels_last)
    views = (images, images.flip(-1)) if mirror else (images,)
    return torch.stack([net.score_map(view).mean(dim=(2, 3)).softmax(dim=1) for view in views]).mean(dim=0)


def same_size_batches(
    source: Source, shorter_side: int, *, quarantine: Quarantine | None = None, workers: int = 0
) -> Iterator[tuple[list[int], Tensor]]:
    """Every usable image of a source once, rescaled, uint8 [B, 3, H, W], with others of exactly its size."""
    waiting: dict[tuple[int, ...], list[tuple[int, Tensor]]] = {}
    pixels = 0
    for index, image in rescaled_images(source, shorter_side, quarantine=quarantine, workers=workers):
        batch = waiting.setdefault(tuple(image.shape), [])
        batch.append((index, image))
        pixels += image[0].numel()
        full = (len(batch) + 1) * image[0].numel() > PIXELS_AT_ONCE
        if full or pixels > PIXELS_WAITING:
            size = tuple(image.shape) if full else max(waiting, key=lambda size: len(waiting[size]) * size[1] * size[2])
            indices, images = _stack(waiting.pop(size))
            pixels -= images[:, 0].numel()
            yield indices, images
    for batch in waiting.values():
        yield _stack(batch)


def _stack(batch: list[tuple[int, Tensor]]) -> tuple[list[int], Tensor]:
    return [index for index, _ in batch], torch.stack([image for _, image in batch])
