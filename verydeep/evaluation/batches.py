"""Rescaled images into batches of exactly one size: dense evaluation never pads images."""

from collections.abc import Iterator

import torch
from jaxtyping import UInt8
from torch import Tensor

_PIXELS_WAITING = 64 * 2**20
"""Pixels of all images together that wait for others of their size (three bytes each)."""

SameSizeBatch = tuple[list[int], UInt8[Tensor, "B 3 H W"]]
"""Images and their indices in the source."""


class SameSizeBatches:
    """Collector of images until those of one size fill a batch of up to about `pixels` pixels."""

    def __init__(self, pixels: int, *, waiting: int = _PIXELS_WAITING) -> None:
        self._pixels, self._limit = pixels, waiting
        self._waiting: dict[tuple[int, ...], list[tuple[int, Tensor]]] = {}
        self._pixels_waiting = 0

    def add(self, index: int, image: UInt8[Tensor, "3 H W"]) -> SameSizeBatch | None:
        """Add an image; return a batch if there is one to be computed now."""
        size, area = tuple(image.shape), image[0].numel()
        same = self._waiting.setdefault(size, [])
        same.append((index, image))
        self._pixels_waiting += area
        if (len(same) + 1) * area > self._pixels:
            return self._take(size)
        if self._pixels_waiting > self._limit:
            return self._take(max(self._waiting, key=lambda size: len(self._waiting[size]) * size[1] * size[2]))
        return None

    def rest(self) -> Iterator[SameSizeBatch]:
        """Yield the images that still wait."""
        for size in list(self._waiting):
            yield self._take(size)

    def _take(self, size: tuple[int, ...]) -> SameSizeBatch:
        batch = self._waiting.pop(size)
        images = torch.stack([image for _, image in batch])
        self._pixels_waiting -= images[:, 0].numel()
        return [index for index, _ in batch], images
