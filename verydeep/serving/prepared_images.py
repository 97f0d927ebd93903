"""Images of requests, decoded and rescaled as a network takes them."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import UInt8
from torch import Tensor

from verydeep.images.decode import UNNAMED, Size, UnusableImageError, decode_for, stored_size
from verydeep.images.views import rescale, rescaled_size
from verydeep.numbers import number
from verydeep.serving.options import Limits


@dataclass(frozen=True, kw_only=True)
class PreparedImage:
    """An image as the network takes it, at each of the scales."""

    pixels: dict[int, UInt8[Tensor, "3 _ _"]]
    """By shorter side."""

    @property
    def sizes(self) -> tuple[tuple[int, ...], ...]:
        """Shapes at all scales; images of the same ones can share a batch."""
        return tuple(tuple(image.shape) for image in self.pixels.values())

    @property
    def area(self) -> int:
        """Pixels at the largest scale."""
        return max(image[0].numel() for image in self.pixels.values())


def prepared(data: bytes, sides: Sequence[int], limits: Limits, name: str = UNNAMED) -> PreparedImage:
    """Decode an image and rescale it to each of the shorter sides, to the bit as `predict` does.

    Raises:
        UnusableImageError: as `decode`, or it has too many pixels when rescaled, which its head alone tells.
    """
    size, most = stored_size(data, name, max_pixels=limits.max_pixels), limits.rescaled_pixels(sides)
    for side in sides:
        _check_rescaled(name, size, side, most)
    pixels = {}
    for side in sides:
        decoded = decode_for(data, name, shorter_side=side, max_pixels=limits.max_pixels)
        pixels[side] = torch.from_numpy(rescale(decoded, side)).permute(2, 0, 1)
    return PreparedImage(pixels=pixels)


def _check_rescaled(name: str, size: Size, side: int, most: int) -> None:
    height, width = rescaled_size(size, side)
    if height * width > most:
        detail = f"{width} x {height} pixels when rescaled to a shorter side of {side}, more than {number(most)}"
        raise UnusableImageError(name, "too large", detail)
