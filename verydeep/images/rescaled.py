"""Decoded images of a source with their shorter side at S, whole or cropped; those that fit are kept in memory."""

from collections.abc import Callable, Collection, Generator, Sequence
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
from verydeep.machine.runtime import Execution
from verydeep.numbers import number

Rescaled = tuple[int, UInt8[Tensor, "3 _ _"] | UnusableImageError]
"""Index and pixels of a whole image, or why there are none."""


class RescaledImages:
    """The decoded images of a source with their shorter side at S; those that fit into memory are kept.

    With a fixed S they are kept rescaled; if S varies they are kept as decoded, at each size that was asked for.
    """

    def __init__(
        self,
        source: Source,
        *,
        max_pixels: int = MAX_PIXELS,
        memory: float = Execution.image_memory,
        varying: bool = False,
    ) -> None:
        """Prepare to decode: `memory`, in GiB, bounds the images kept; `varying` says whether S varies."""
        self.source, self.max_pixels, self._varying = source, max_pixels, varying
        self._rescaled: dict[tuple[int, int], Pixels] = {}
        self._decoded: dict[int, list[Decoded]] = {}
        self._bytes_left = int(memory * 2**30)

    def whole(self, index: int, scale: int) -> Pixels:
        """Return one image, which must not be written to.

        Raises:
            UnusableImageError: it cannot be decoded, or is too large at this scale.
        """
        if (index, scale) in self._rescaled:
            return self._rescaled[index, scale]
        decoded = self.decoded(index, scale)
        height, width = rescaled_size(decoded.size, scale)
        if height * width > (most := max(self.max_pixels, MAX_PIXELS)):
            detail = f"{width} x {height} pixels when rescaled, more than {number(most)}"
            raise UnusableImageError(self.source.ids[index], "too large", detail)
        image = rescale(decoded, scale)
        if not self._varying and self._has_room(image.nbytes):
            self._rescaled[index, scale] = image
        return image

    def crop(self, index: int, scale: int, size: int, locate: Callable[[Size], tuple[int, int]]) -> Pixels:
        """Return `size` x `size` pixels; `locate` says where, (top, left), in an image of the rescaled size.

        They are to the bit those of the whole image; of images that are not kept only the pixels needed are computed.

        Raises:
            UnusableImageError: the image cannot be decoded.
        """
        image = self._rescaled.get((index, scale))
        if image is None:
            decoded = self.decoded(index, scale)
            height, width = rescaled_size(decoded.size, scale)
            if self._varying or not self._has_room(3 * height * width):
                top, left = locate((height, width))
                return rescaled_crop(decoded, scale, size, top=top, left=left)
            image = self._rescaled[index, scale] = rescale(decoded, scale)
        top, left = locate((image.shape[0], image.shape[1]))
        return crop(image, size, top=top, left=left)

    def decoded(self, index: int, scale: int) -> Decoded:
        """Decode one image for a scale.

        Raises:
            UnusableImageError: it cannot be decoded.
        """
        kept = self._decoded.get(index, [])
        for decoded in kept:
            if decoded.reduction == decoded.reduction_for(scale):
                return decoded
        data, _, name = self.source[index]
        decoded = decode_for(data, name, shorter_side=scale, max_pixels=self.max_pixels)
        if self._varying and self._has_room(decoded.pixels.nbytes):
            self._decoded[index] = [*kept, decoded]
        return decoded

    def _has_room(self, size: int) -> bool:
        """Return whether `size` more bytes fit into memory, and count them if so."""
        fits = size <= self._bytes_left
        self._bytes_left -= size * fits
        return fits


class SharedImages:
    """The rescaled images of a source for networks that look at them one after the other; those that fit are kept.

    An image that is kept is what it was when it was decoded; one that cannot be used is tried again for each network.
    """

    def __init__(
        self,
        source: Source,
        *,
        max_pixels: int = MAX_PIXELS,
        workers: int = 0,
        memory: float = Execution.image_memory,
    ) -> None:
        """Prepare to decode: `memory`, in GiB, bounds the images kept."""
        self.source, self._options = source, {"max_pixels": max_pixels, "workers": workers}
        self._kept: dict[tuple[int, int], UInt8[Tensor, "3 _ _"]] = {}
        self._bytes_left = int(memory * 2**30)

    def decoder(self, *, later: Collection[int]) -> Callable[[int, Sequence[int]], Generator[Rescaled]]:
        """Return a function that yields images for one network, at a shorter side in pixels, under distinct indices.

        Images at the sides of `later` networks are kept; others are let go as they are yielded.

        Raises:
            WorkerDiedError: a worker was killed, for example; raised by the generators.
        """
        return partial(self._images, later=later)

    def _images(self, side: int, indices: Sequence[int], *, later: Collection[int]) -> Generator[Rescaled]:
        missing = [index for index in indices if (side, index) not in self._kept]
        with closing(rescaled_images(self.source, side, indices=missing, **self._options)) as decoded:
            for index in indices:
                kept = self._kept.pop((side, index), None)
                self._bytes_left += 0 if kept is None else kept.nbytes
                image = next(decoded)[1] if kept is None else kept
                if side in later and isinstance(image, Tensor) and image.nbytes <= self._bytes_left:
                    self._kept[side, index] = image
                    self._bytes_left -= image.nbytes
                yield index, image


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
    whole = partial(RescaledImages(source, max_pixels=max_pixels, memory=0).whole, scale=scale)
    wanted = range(len(source)) if indices is None else indices
    # Workers send arrays, which are copied to this process: a tensor would keep a file open here as long as it lives.
    with closing(single_items(whole, wanted, workers=workers)) as items:
        for index, image in zip(wanted, items, strict=True):
            yield index, image if isinstance(image, UnusableImageError) else torch.from_numpy(image).permute(2, 0, 1)
