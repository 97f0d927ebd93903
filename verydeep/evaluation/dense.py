"""Dense evaluation: whole images through the network as a convolution; those too large for memory in tiles."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from verydeep.networks.arithmetic import describe
from verydeep.networks.configurations import DOWNSAMPLING, STAGE_CHANNELS
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


def pixels_at_once(nets: Sequence[VGG], device: torch.device) -> int:
    """Of how many pixels a batch is best."""
    most = largest_image(nets, device)
    return min(most, AT_ONCE_ON_CPU) if device.type == "cpu" else most


def largest_image(nets: Sequence[VGG], device: torch.device) -> int:
    """How many pixels each of the networks has memory for; an image with more goes through in tiles.

    An exported network does not tell its width, so the paper's is assumed.
    """
    channels = max(len(net.get_parameter("conv1_1.weight")) if has_layers(net) else STAGE_CHANNELS[0] for net in nets)
    per_pixel = 4 * channels * ACTIVATIONS_ALIVE
    free = torch.cuda.mem_get_info(device)[0] // 2 if device.type == "cuda" else CPU_BYTES
    return min(MOST_PIXELS, int(free) // per_pixel)


def has_layers(net: VGG) -> bool:
    """Whether a network's layers can be reached: an exported one has `forward` and `score_map` only."""
    return hasattr(net, "head")


def device_of(net: VGG) -> torch.device:
    """Where a network takes its images. An exported one takes them on the CPU, wherever it runs."""
    return net.mean_rgb.device if has_layers(net) else torch.device("cpu")


@torch.inference_mode()
def dense_posteriors(net: VGG, images: Tensor, *, mirror: bool, pixels: int = MOST_PIXELS) -> Tensor:
    """Posteriors [B, classes], on the CPU, of whole images [B, 3, H, W] in 0..255 of the crop's size or larger.

    The score map is averaged over space, then comes the soft-max, then the average with the mirror image. No more
    than `pixels` go through the first layers at once, larger images in tiles, but for exported networks, which get them
    whole. The network is put into its testing mode.
    """
    net.eval()
    views = [images, images.flip(-1)] if mirror else [images]
    if has_layers(net):
        scores = _score_map(net, torch.cat([_pool5(net, view, pixels) for view in views]))
    else:
        scores = torch.cat([net.score_map(view.float()) for view in views])
    posteriors = scores.mean(dim=(2, 3)).softmax(dim=1).cpu()
    return posteriors.unflatten(0, (len(views), len(images))).mean(dim=0)


@torch.inference_mode()
def score_map(net: VGG, images: Tensor, *, pixels: int = MOST_PIXELS) -> Tensor:
    """`net.score_map(images)`, [B, classes, h, w], without more than `pixels` in the first layers at once.

    What is left out of a tile is beyond the reach of what is kept of it, so the map is the same up to rounding. An
    exported network gets images whole. The network is put into its testing mode.
    """
    net.eval()
    return _score_map(net, _pool5(net, images, pixels)) if has_layers(net) else net.score_map(images.float())


def _score_map(net: VGG, pool5: Tensor) -> Tensor:
    """The fully connected layers, a few rows of the map at a time."""
    window = net.crop // DOWNSAMPLING
    rows = pool5.shape[2] - window + 1
    at_once = max(1, POSITIONS_AT_ONCE // (len(pool5) * pool5.shape[3]))
    parts = [net.head(pool5[:, :, top : top + at_once + window - 1]) for top in range(0, rows, at_once)]
    return torch.cat(parts, dim=2)


def _pool5(net: VGG, images: Tensor, pixels: int) -> Tensor:
    height, width = images.shape[2:]
    if height * width <= pixels:
        return _pool5_of(net, images)
    return torch.cat([_pool5_in_tiles(net, image[None], pixels) for image in images])


def _pool5_of(net: VGG, images: Tensor) -> Tensor:
    images = images.to(net.mean_rgb.device, torch.float32, memory_format=torch.channels_last)
    return net.activations(images, ["pool5"], dense=True)["pool5"]


def _pool5_in_tiles(net: VGG, image: Tensor, pixels: int) -> Tensor:
    """Tiles start at multiples of 32 pixels and are as long as the image modulo 32: so their grid is the image's."""
    height, width = image.shape[2:]
    context = _context(net)
    rows, columns = _tile(height // DOWNSAMPLING, width // DOWNSAMPLING, context, pixels // DOWNSAMPLING**2)
    strips = []
    for top, bottom, lower, upper in _spans(height, rows, context):
        strip = image[:, :, top:bottom]
        parts = []
        for left, right, first, last in _spans(width, columns, context):
            parts.append(_pool5_of(net, strip[:, :, :, left:right])[:, :, lower:upper, first:last])
        strips.append(torch.cat(parts, dim=3))
    return torch.cat(strips, dim=2)


def _context(net: VGG) -> int:
    """Positions of pool5 to each side of one that its receptive field reaches into."""
    field = describe(net.configuration.name, input=net.crop).receptive_field
    return math.ceil((field - DOWNSAMPLING) / 2 / DOWNSAMPLING)


def _tile(height: int, width: int, context: int, positions: int) -> tuple[int, int]:
    """Rows and columns of the map per tile, which with their context have about `positions`: as long as can be."""
    rows = min(height, max(1, math.isqrt(positions) - 2 * context))
    columns = min(width, max(1, positions // (rows + 2 * context) - 2 * context))
    return min(height, max(1, positions // (columns + 2 * context) - 2 * context)), columns


def _spans(side: int, positions: int, context: int) -> list[tuple[int, int, int, int]]:
    """Of every tile along a side: first and last pixel, and which of its positions are kept."""
    whole, rest = divmod(side, DOWNSAMPLING)
    found = []
    for start in range(0, whole, positions):
        stop = min(start + positions, whole)
        low, high = max(0, start - context), min(whole, stop + context)
        found.append((DOWNSAMPLING * low, DOWNSAMPLING * high + rest, start - low, stop - low))
    return found
