"""Dense evaluation: whole images through the network as a convolution; those too large for memory in tiles."""

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple

import torch
from jaxtyping import Float, Num
from torch import Tensor

from verydeep.evaluation.bfloat16 import BFloat16Network
from verydeep.evaluation.pixel_limits import MOST_PIXELS, NO_LIMITS, PixelLimits
from verydeep.networks.architecture import DOWNSAMPLING
from verydeep.networks.arithmetic import describe_architecture
from verydeep.networks.grids import DEFAULT_GRID, PoolingGrid, positions_along
from verydeep.networks.vgg import VGG, ScoringNetwork

_POSITIONS_AT_ONCE = 4096
"""Positions of a score map at once; each holds the outputs of fc6 and fc7."""


def dense_posteriors(
    net: ScoringNetwork,
    images: Num[Tensor, "B 3 H W"],
    *,
    mirror: bool,
    limits: PixelLimits = NO_LIMITS,
    grid: PoolingGrid = DEFAULT_GRID,
) -> Float[Tensor, "B K"]:
    """Return the posteriors, on the CPU, of whole images in 0..255 of the crop's size or larger.

    The score map is averaged over space, then comes the soft-max, then the average with the mirror image. Images of
    more than `limits.image` pixels go through in tiles. The network is put into its testing mode.
    """
    return dense_posteriors_and_map(net, images, mirror=mirror, limits=limits, grid=grid)[0]


@torch.inference_mode()
def dense_posteriors_and_map(
    net: ScoringNetwork,
    images: Num[Tensor, "B 3 H W"],
    *,
    mirror: bool,
    limits: PixelLimits = NO_LIMITS,
    grid: PoolingGrid = DEFAULT_GRID,
) -> tuple[Float[Tensor, "B K"], Float[Tensor, "B K h w"]]:
    """Return the result of `dense_posteriors`, and the score map of the images, not mirrored, from the same pass."""
    net.eval()
    views = [images, images.flip(-1)] if mirror else [images]
    scores = _score_map(net, views, limits.image, grid)
    posteriors = scores.mean(dim=(2, 3)).softmax(dim=1).cpu()
    return posteriors.unflatten(0, (len(views), len(images))).mean(dim=0), scores[: len(images)]


@torch.inference_mode()
def score_map(
    net: ScoringNetwork, images: Num[Tensor, "B 3 H W"], *, pixels: int = MOST_PIXELS, grid: PoolingGrid = DEFAULT_GRID
) -> Float[Tensor, "B K h w"]:
    """Return `net.score_map(images, grid=grid)` without more than `pixels` in the first layers at once.

    The part of a tile that is left out is beyond the reach of the part that is kept, so the map is the same up to
    rounding. The network is put into its testing mode.
    """
    net.eval()
    return _score_map(net, [images], pixels, grid)


def _score_map(net: ScoringNetwork, views: Sequence[Tensor], pixels: int, grid: PoolingGrid) -> Tensor:
    """Return the score maps of several batches, one after the other.

    An exported network has no `pool5` to go on from, so its own score maps are put together.
    """
    if isinstance(net, VGG | BFloat16Network):
        compute = partial(_pool5, net, grid)
        return _head(net, torch.cat([_mapped(net, view, pixels, compute, grid, window=1) for view in views]))
    compute, window = partial(net.score_map, grid=grid), net.architecture.window
    return torch.cat([_mapped(net, view, pixels, compute, grid, window=window) for view in views])


def _pool5(net: VGG | BFloat16Network, grid: PoolingGrid, images: Tensor) -> Tensor:
    images = images.to(net.mean_rgb.device, torch.float32, memory_format=torch.channels_last)
    return net.activations(images, ["pool5"], dense=True, grid=grid)["pool5"]


def _head(net: VGG | BFloat16Network, pool5: Tensor) -> Tensor:
    """Apply the fully connected layers to a few rows of the map at a time."""
    window = net.architecture.window
    rows = pool5.shape[2] - window + 1
    at_once = max(1, _POSITIONS_AT_ONCE // (len(pool5) * pool5.shape[3]))
    strips = [net.head(pool5[:, :, top : top + at_once + window - 1]) for top in range(0, rows, at_once)]
    return torch.cat(strips, dim=2)


def _mapped(
    net: ScoringNetwork,
    images: Tensor,
    pixels: int,
    compute: Callable[[Tensor], Tensor],
    grid: PoolingGrid,
    *,
    window: int,
) -> Tensor:
    """Return `compute(images)`, a map whose positions see `window` x `window` of `pool5`; large images in tiles."""
    height, width = images.shape[2:]
    if height * width <= pixels:
        return compute(images)
    return torch.cat([_in_tiles(net, image[None], pixels, compute, grid, window) for image in images])


def _in_tiles(
    net: ScoringNetwork,
    image: Tensor,
    pixels: int,
    compute: Callable[[Tensor], Tensor],
    grid: PoolingGrid,
    window: int,
) -> Tensor:
    """Put a map together from tiles, whose grid is the image's."""
    context, (height, width) = _context(net), image.shape[2:]
    high, wide = (positions_along(side, window, grid) for side in (height, width))
    rows, columns = _tile_size(high, wide, context + window // 2, pixels // DOWNSAMPLING**2)
    strips = []
    for across in _spans(height, rows, context, grid, window):
        strip = image[:, :, across.start : across.stop]
        tiles = []
        for along in _spans(width, columns, context, grid, window):
            tile = compute(strip[:, :, :, along.start : along.stop])
            tiles.append(tile[:, :, across.first : across.last, along.first : along.last])
        strips.append(torch.cat(tiles, dim=3))
    return torch.cat(strips, dim=2)


def _context(net: ScoringNetwork) -> int:
    """Return how many positions of pool5 the receptive field of one reaches into to each side."""
    field = describe_architecture(net.architecture).receptive_field
    return math.ceil((field - DOWNSAMPLING) / 2 / DOWNSAMPLING)


def _tile_size(height: int, width: int, context: int, positions: int) -> tuple[int, int]:
    """Return rows and columns of the map per tile, so long that with their context they have about `positions`."""
    rows = min(height, max(1, math.isqrt(positions) - 2 * context))
    columns = min(width, max(1, positions // (rows + 2 * context) - 2 * context))
    return min(height, max(1, positions // (columns + 2 * context) - 2 * context)), columns


class _Span(NamedTuple):
    """A tile along one side."""

    start: int
    """Pixel that it starts at."""
    stop: int
    first: int
    """First position of the tile's map that is kept."""
    last: int
    """Position after the last one that is kept."""


def _spans(side: int, positions: int, context: int, grid: PoolingGrid, window: int = 1) -> list[_Span]:
    """Return the tiles along a side of so many pixels, each of which contributes `positions` of the map.

    They start at multiples of 32 pixels. Modulo 32 they are as long as the side, since a centred grid begins at half of
    that rest; by `ceil` only the last one has the rest, and the others are multiples of 32.
    """
    count, rest = positions_along(side, window, grid), side % DOWNSAMPLING
    spans = []
    for start in range(0, count, positions):
        stop = min(start + positions, count)
        low, high = max(0, start - context), min(count + window - 1, stop + window - 1 + context)
        end = min(side, DOWNSAMPLING * high + (0 if grid == "ceil" else rest))
        spans.append(_Span(DOWNSAMPLING * low, end, start - low, stop - low))
    return spans
