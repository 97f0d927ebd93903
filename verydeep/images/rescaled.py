"""Decoded images of a source with their shorter side at S, whole or cropped; small sources are kept in memory."""

from collections.abc import Callable, Generator, Sequence
from contextlib import closing
from functools import partial

import torch
from jaxtyping import UInt8
from torch import Tensor

from verydeep.images.decode import Decoded, Pixels, Size, UnusableImageError, decode_for
from verydeep.images.sources.source import Source
from verydeep.images.tolerance import MAX_PIXELS
from verydeep.images.views import crop, rescale, rescaled_crop, rescaled_size
from verydeep.images.workers import single_items

CACHE_BYTES = 256 * 2**20
"""Pixels that a process keeps, so that small sources are decoded once."""

_BYTES_PER_SQUARE = 3 * 2
"""Bytes of a rescaled image for each pixel of the square on its shorter side: three channels, at most twice as long."""

Rescaled = tuple[int, UInt8[Tensor, "3 _ _"] | UnusableImageError]
"""Index and pixels of a whole image, or why there are none."""


class RescaledImages:
    """The decoded images of a source with their shorter side at S; small sources are kept unless `once` is set.

    With `once` each image is wanted a single time.
    """

    def __init__(self, source: Source, *, max_pixels: int = MAX_PIXELS, once: bool = False) -> None:
        self.source, self.max_pixels = source, max_pixels
        self._kept: dict[tuple[int, int], Pixels] = {}
        self._bytes_left = 0 if once else CACHE_BYTES

    def whole(self, index: int, scale: int) -> Pixels:
        """Return one image, which must not be written to.

        Raises:
            UnusableImageError: it cannot be decoded, or is too large at this scale.
        """
        if (index, scale) in self._kept:
            return self._kept[index, scale]
        decoded = self.decoded(index, scale)
        height, width = rescaled_size(decoded.size, scale)
        if height * width > max(self.max_pixels, MAX_PIXELS):
            detail = f"{width} x {height} pixels when rescaled, more than {MAX_PIXELS:,}"
            raise UnusableImageError(self.source.ids[index], "too large", detail)
        image = rescale(decoded, scale)
        if self._small(scale) and image.nbytes <= self._bytes_left:
            self._bytes_left -= image.nbytes
            self._kept[index, scale] = image
        return image

    def crop(self, index: int, scale: int, size: int, locate: Callable[[Size], tuple[int, int]]) -> Pixels:
        """Return `size` x `size` pixels; `locate` says where, (top, left), in an image of the rescaled size.

        They are to the bit those of the whole image; of images that are not kept only the pixels needed are computed.

        Raises:
            UnusableImageError: the image cannot be decoded.
        """
        if self._small(scale):
            image = self.whole(index, scale)
            top, left = locate((image.shape[0], image.shape[1]))
            return crop(image, size, top=top, left=left)
        decoded = self.decoded(index, scale)
        top, left = locate(rescaled_size(decoded.size, scale))
        return rescaled_crop(decoded, scale, size, top=top, left=left)

    def decoded(self, index: int, scale: int) -> Decoded:
        """Decode one image for a scale.

        Raises:
            UnusableImageError: it cannot be decoded.
        """
        data, _, name = self.source[index]
        return decode_for(data, name, shorter_side=scale, max_pixels=self.max_pixels)

    def _small(self, scale: int) -> bool:
        return len(self.source) * scale**2 * _BYTES_PER_SQUARE <= CACHE_BYTES


def rescaled_images(
    source: Source,
    scale: int,
    *,
    indices: Sequence[int] | None = None,
    max_pixels: int = MAX_PIXELS,
    workers: int = 0,
) -> Generator[Rescaled]:
    """Yield images (all, without `indices`), in order, their shorter side at `scale` pixels.

    Raises:
        WorkerDiedError: a worker was killed, for example.
    """
    whole = partial(RescaledImages(source, max_pixels=max_pixels, once=True).whole, scale=scale)
    wanted = range(len(source)) if indices is None else indices
    # Arrays, for they are copied to this process: a tensor keeps a file open there as long as it lives.
    with closing(single_items(whole, wanted, workers=workers)) as items:
        for index, image in zip(wanted, items, strict=True):
            yield index, image if isinstance(image, UnusableImageError) else torch.from_numpy(image).permute(2, 0, 1)
