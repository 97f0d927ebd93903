"""How many pixels go through a network at once: as many as is fastest, and as many as there is memory for."""

from collections.abc import Sequence
from typing import NamedTuple

import torch

from verydeep.networks.vgg import ScoringNetwork

MOST_PIXELS = 64 * 256 * 256
"""Pixels at once on any device."""

_ACTIVATIONS_ALIVE = 4
"""Outputs of conv1_1's size that take up memory at once: a layer's input, output and working memory."""

_CPU_BYTES = 2**30
"""Memory for those outputs."""

_AT_ONCE_ON_CPU = 2**18
"""Pixels; with more at once it is slower there, by 8% for D and by half for small networks (docs/LOG.md)."""


class PixelLimits(NamedTuple):
    """Most pixels at once."""

    batch: int
    """In a batch, as is fastest."""
    image: int
    """In an image, as there is memory for; a larger one goes through in tiles."""


NO_LIMITS = PixelLimits(batch=MOST_PIXELS, image=MOST_PIXELS)


def pixel_limits(nets: Sequence[ScoringNetwork]) -> PixelLimits:
    """Return the limits for networks that test the same batches, each on its device."""
    devices = {net.mean_rgb.device for net in nets}
    return PixelLimits(
        batch=min(pixels_at_once(nets, device) for device in devices),
        image=min(largest_image(nets, device) for device in devices),
    )


def pixels_at_once(nets: Sequence[ScoringNetwork], device: torch.device) -> int:
    """Return how many pixels in a batch are fastest."""
    most = largest_image(nets, device)
    return min(most, _AT_ONCE_ON_CPU) if device.type == "cpu" else most


def largest_image(nets: Sequence[ScoringNetwork], device: torch.device) -> int:
    """Return how many pixels each of the networks has memory for; an image with more goes through in tiles."""
    channels = max(net.architecture.layers()[0].outputs for net in nets)
    per_pixel = 4 * channels * _ACTIVATIONS_ALIVE
    free = torch.cuda.mem_get_info(device)[0] // 2 if device.type == "cuda" else _CPU_BYTES
    return min(MOST_PIXELS, int(free) // per_pixel)
