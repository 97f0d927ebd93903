"""Dense evaluation: whole images through the network as a convolution; those too large for memory in tiles."""

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor

from verydeep.networks.arithmetic import describe
from verydeep.networks.configurations import DOWNSAMPLING
from verydeep.networks.scoring import ScoringNetwork
from verydeep.networks.vgg import VGG

ACTIVATIONS_ALIVE = 4
"""Outputs of conv1_1's size that take up memory at once: a layer's input and output, and what it works with."""

CPU_BYTES = 2**30
"""For those outputs."""

AT_ONCE_ON_CPU = 2**18
"""Pixels; more at once are slower there, by 8% for D and by half for small networks (docs/LOG.md)."""

MOST_PIXELS = 64 * 256 * 256
"""At once on any device."""

POSITIONS_AT_ONCE = 4096
"""Of a score map; each holds the outputs of fc6 and fc7."""


class PixelLimits(NamedTuple):
    """How many pixels go through a network at once."""

    batch: int
    """Of a batch, as is fastest."""
    image: int
    """Of an image, as there is memory for; a larger one goes through in tiles."""


def pixel_limits(nets: Sequence[ScoringNetwork], device: torch.device) -> PixelLimits:
    """Return the limits for networks that test the same batches on a device."""
    return PixelLimits(batch=pixels_at_once(nets, device), image=largest_image(nets, device))


def pixels_at_once(nets: Sequence[ScoringNetwork], device: torch.device) -> int:
    """Of how many pixels a batch is best."""
    most = largest_image(nets, device)
    return min(most, AT_ONCE_ON_CPU) if device.type == "cpu" else most


def largest_image(nets: Sequence[ScoringNetwork], device: torch.device) -> int:
    """How many pixels each of the networks has memory for; an image with more goes through in tiles."""
    channels = max(net.architecture.layers()[0].outputs for net in nets)
    per_pixel = 4 * channels * ACTIVATIONS_ALIVE
    free = torch.cuda.mem_get_info(device)[0] // 2 if device.type == "cuda" else CPU_BYTES
    return min(MOST_PIXELS, int(free) // per_pixel)


NO_LIMITS = PixelLimits(batch=MOST_PIXELS, image=MOST_PIXELS)


@torch.inference_mode()
def dense_posteriors(net: ScoringNetwork, images: Tensor, *, mirror: bool, limits: PixelLimits = NO_LIMITS) -> Tensor:
    """Posteriors [B, classes], on the CPU, of whole images [B, 3, H, W] in 0..255 of the crop's size or larger.

    The score map is averaged over space, then comes the soft-max, then the average with the mirror image. Images of
    more than `limits.image` pixels go through in tiles. The network is put into its testing mode.
    """
    net.eval()
    views = [images, images.flip(-1)] if mirror else [images]
    posteriors = _score_map(net, views, limits.image).mean(dim=(2, 3)).softmax(dim=1).cpu()
    return posteriors.unflatten(0, (len(views), len(images))).mean(dim=0)


@torch.inference_mode()
def score_map(net: ScoringNetwork, images: Tensor, *, pixels: int = MOST_PIXELS) -> Tensor:
    """`net.score_map(images)`, [B, classes, h, w], without more than `pixels` in the first layers at once.

    What is left out of a tile is beyond the reach of what is kept of it, so the map is the same up to rounding. The
    network is put into its testing mode.
    """
    net.eval()
    return _score_map(net, [images], pixels)


def _score_map(net: ScoringNetwork, views: Sequence[Tensor], pixels: int) -> Tensor:
    """Of several batches, one after the other. An exported network has no `pool5` to go on from: its map is its own."""
    if isinstance(net, VGG):
        pool5 = [_mapped(net, view, pixels, partial(_pool5_of, net), window=1) for view in views]
        return _head(net, torch.cat(pool5))
    window = net.architecture.window
    return torch.cat([_mapped(net, view, pixels, net.score_map, window=window) for view in views])


def _head(net: VGG, pool5: Tensor) -> Tensor:
    """The fully connected layers, a few rows of the map at a time."""
    window = net.architecture.window
    rows = pool5.shape[2] - window + 1
    at_once = max(1, POSITIONS_AT_ONCE // (len(pool5) * pool5.shape[3]))
    parts = [net.head(pool5[:, :, top : top + at_once + window - 1]) for top in range(0, rows, at_once)]
    return torch.cat(parts, dim=2)


def _pool5_of(net: VGG, images: Tensor) -> Tensor:
    images = images.to(net.mean_rgb.device, torch.float32, memory_format=torch.channels_last)
    return net.activations(images, ["pool5"], dense=True)["pool5"]


def _mapped(
    net: ScoringNetwork, images: Tensor, pixels: int, compute: Callable[[Tensor], Tensor], *, window: int
) -> Tensor:
    """`compute(images)`, a map whose positions see `window` x `window` of `pool5`; of large images in tiles."""
    height, width = images.shape[2:]
    if height * width <= pixels:
        return compute(images)
    return torch.cat([_in_tiles(net, image[None], pixels, compute, window) for image in images])


def _in_tiles(
    net: ScoringNetwork, image: Tensor, pixels: int, compute: Callable[[Tensor], Tensor], window: int
) -> Tensor:
    """Tiles start at multiples of 32 pixels and are as long as the image modulo 32: so their grid is the image's."""
    context, (height, width) = _context(net), image.shape[2:]
    high, wide = (side // DOWNSAMPLING - window + 1 for side in (height, width))
    rows, columns = _tile(high, wide, context + window // 2, pixels // DOWNSAMPLING**2)
    strips = []
    for top, bottom, lower, upper in _spans(height, rows, context, window):
        strip = image[:, :, top:bottom]
        parts = []
        for left, right, first, last in _spans(width, columns, context, window):
            parts.append(compute(strip[:, :, :, left:right])[:, :, lower:upper, first:last])
        strips.append(torch.cat(parts, dim=3))
    return torch.cat(strips, dim=2)


def _context(net: ScoringNetwork) -> int:
    """Positions of pool5 to each side of one that its receptive field reaches into."""
    field = describe(net.architecture).receptive_field
    return math.ceil((field - DOWNSAMPLING) / 2 / DOWNSAMPLING)


def _tile(height: int, width: int, context: int, positions: int) -> tuple[int, int]:
    """Rows and columns of the map per tile, which with their context have about `positions`: as long as can be."""
    rows = min(height, max(1, math.isqrt(positions) - 2 * context))
    columns = min(width, max(1, positions // (rows + 2 * context) - 2 * context))
    return min(height, max(1, positions // (columns + 2 * context) - 2 * context)), columns


def _spans(side: int, positions: int, context: int, window: int = 1) -> list[tuple[int, int, int, int]]:
    """Of every tile along a side: first and last pixel, and which of its positions are kept."""
    whole, rest = divmod(side, DOWNSAMPLING)
    found = []
    for start in range(0, whole - window + 1, positions):
        stop = min(start + positions, whole - window + 1)
        low, high = max(0, start - context), min(whole, stop + window - 1 + context)
        found.append((DOWNSAMPLING * low, DOWNSAMPLING * high + rest, start - low, stop - low))
    return found
