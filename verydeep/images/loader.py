"""A source and its views to batches, in an order that depends on nothing but (seed, epoch, index)."""

import math
from collections.abc import Generator, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from verydeep.images.boxes.geometry import (
    Boxes,
    ObjectNotShownError,
    boxes_in_crop,
    mirrored_boxes,
    random_place_showing,
    rescaled_boxes,
)
from verydeep.images.colour import colour_shift
from verydeep.images.decode import Decoded, Pixels, Size, UnusableImageError, decode_for
from verydeep.images.quarantine import Quarantine
from verydeep.images.sources.source import Source
from verydeep.images.tolerance import MAX_PIXELS
from verydeep.images.views import (
    centre_place,
    crop,
    random_flip,
    random_place,
    random_scale,
    rescale,
    rescaled_crop,
    rescaled_size,
)
from verydeep.images.workers import as_it_is, from_workers

_ORDER, _SAMPLE = 0, 1
"""Which of an epoch's random streams: that of the order, or those of the samples."""

CACHE_BYTES = 256 * 2**20
"""Pixels that a process remembers, so that small sources are decoded once."""

BYTES_PER_SQUARE = 3 * 2
"""Of a rescaled image, for each pixel of the square on its shorter side: three channels, at most twice as long."""


@dataclass(frozen=True, kw_only=True)
class TrainingView:
    """What is drawn for each image of each epoch (section 3.1)."""

    crop: int
    """Pixels."""
    scale: tuple[int, int]
    """Smallest and largest S in pixels; equal for a fixed S."""
    flip: bool
    colour_sd: float
    colour_components: NDArray[np.float64]
    """[3, 3], as `images.colour.shift_components` gives them."""


class Draw(NamedTuple):
    """What one image is in one epoch."""

    image: Pixels
    """[crop, crop, 3]."""
    mirrored: bool
    shift: NDArray[np.float64]
    """[3], grey levels."""
    label: int
    box: Boxes | None = None
    """[4] in units of the crop, once that is mirrored if it is to be; None where sources have no boxes."""


class Batch(NamedTuple):
    """Crops as they leave the loader; `images.on_device` mirrors and shifts them, the network subtracts the mean."""

    images: Tensor
    """uint8 [B, 3, crop, crop]."""
    mirrored: Tensor
    """bool [B], which of them are to be mirrored."""
    shifts: Tensor
    """float32 [B, 3], grey levels to add to every pixel."""
    places: Tensor
    """int64 [B], where each stands in the whole batch: 0, 1, ..., but for unusable images and other processes'."""
    labels: Tensor
    """int64 [B]."""


Rescaled = tuple[int, Tensor | UnusableImageError]
"""Index and pixels of a whole image, uint8 [3, H, W], or why there are none."""


class BoxedBatch(NamedTuple):
    """Crops of images with boxes."""

    crops: Batch
    boxes: Tensor
    """float32 [B, 4], (x, y, width, height) in units of the crops, once those are mirrored that are to be."""


def batches_per_epoch(images: int, batch: int) -> int:
    """Steps in an epoch: every image once, the last batch as large as what is left."""
    return math.ceil(images / batch)


def epoch_order(images: int, *, seed: int, epoch: int) -> NDArray[np.int64]:
    """The permutation of 0..images-1 in which an epoch goes through a source."""
    return _generator(seed, epoch, _ORDER, 0).permutation(images)


class RescaledImages:
    """The decoded images of a source with their shorter side at S pixels; small sources are kept in memory.

    Unless each is wanted only `once`.
    """

    def __init__(self, source: Source, *, max_pixels: int = MAX_PIXELS, once: bool = False) -> None:
        self.source, self.max_pixels = source, max_pixels
        self._boxes = source.boxes
        self._kept: dict[tuple[int, int], Pixels] = {}
        self._bytes_left = 0 if once else CACHE_BYTES

    def whole(self, index: int, scale: int) -> Pixels:
        """One image, [H, W, 3]; not to be written to."""
        if (index, scale) in self._kept:
            return self._kept[index, scale]
        decoded = self._decoded(index, scale)
        height, width = rescaled_size(decoded.size, scale)
        if height * width > max(self.max_pixels, MAX_PIXELS):
            what = f"{width} x {height} pixels when rescaled, more than {MAX_PIXELS:,}"
            raise UnusableImageError(self.source.ids[index], "too large", what)
        image = rescale(decoded, scale)
        if self._small(scale) and image.nbytes <= self._bytes_left:
            self._bytes_left -= image.nbytes
            self._kept[index, scale] = image
        return image

    def centre_crop(self, index: int, scale: int, size: int) -> Pixels:
        """The `size` x `size` pixels in the middle of one image at S = `scale`."""
        return self._crop(index, scale, size, centre_place)

    def random_crop(self, index: int, scale: int, size: int, rng: np.random.Generator) -> Pixels:
        """`size` x `size` pixels at a random place of one image at S = `scale`."""
        return self._crop(index, scale, size, partial(random_place, rng=rng))

    @property
    def boxed(self) -> bool:
        """Whether each image has a box."""
        return self._boxes is not None

    def centre_crop_and_box(self, index: int, scale: int, size: int) -> tuple[Pixels, Boxes]:
        """`centre_crop`, and the box of its object in it, whether it shows the object or not."""
        box, whole = self._box(index, scale)
        top, left = centre_place(whole, size)
        return self.centre_crop(index, scale, size), boxes_in_crop(box, size, top=top, left=left)

    def random_crop_and_box(self, index: int, scale: int, size: int, rng: np.random.Generator) -> tuple[Pixels, Boxes]:
        """`random_crop` of a place that shows the object, and its box there.

        Raises:
            ObjectNotShownError: none of the places that were drawn does.
        """
        box, whole = self._box(index, scale)
        place = random_place_showing(box, whole, size, rng)
        image = self._crop(index, scale, size, lambda *_: place)
        return image, boxes_in_crop(box, size, top=place[0], left=place[1])

    def _box(self, index: int, scale: int) -> tuple[Boxes, Size]:
        """The box of an image at S = `scale`, and the image's size there."""
        assert self._boxes is not None
        box, size = self._boxes[index]
        if size is None:
            self._decoded(index, scale)  # says why
            raise UnusableImageError(self.source.ids[index], "unreadable", "its file has changed meanwhile")
        whole = rescaled_size(size, scale)
        return rescaled_boxes(box, size, whole), whole

    def _crop(self, index: int, scale: int, size: int, place: Any) -> Pixels:
        """The same pixels either way; of images that are not kept, no more are computed than needed."""
        if self._small(scale):
            image = self.whole(index, scale)
            top, left = place((image.shape[0], image.shape[1]), size)
            return crop(image, size, top=top, left=left)
        decoded = self._decoded(index, scale)
        top, left = place(rescaled_size(decoded.size, scale), size)
        return rescaled_crop(decoded, scale, size, top=top, left=left)

    def _small(self, scale: int) -> bool:
        return len(self.source) * scale**2 * BYTES_PER_SQUARE <= CACHE_BYTES

    def _decoded(self, index: int, scale: int) -> Decoded:
        data, _, name = self.source[index]
        return decode_for(data, name, shorter_side=scale, max_pixels=self.max_pixels)


def draw(images: RescaledImages, index: int, view: TrainingView, *, seed: int, epoch: int) -> Draw:
    """What one image is in one epoch.

    Raises:
        UnusableImageError: it cannot be decoded.
        ObjectNotShownError: it has a box, of which the crops that were drawn show too little.
    """
    rng = _generator(seed, epoch, _SAMPLE, index)
    scale, box = random_scale(*view.scale, rng), None
    if images.boxed:
        image, box = images.random_crop_and_box(index, scale, view.crop, rng)
    else:
        image = images.random_crop(index, scale, view.crop, rng)
    mirrored = view.flip and random_flip(rng)
    shift = colour_shift(view.colour_components, view.colour_sd, rng)
    if box is not None and mirrored:
        box = mirrored_boxes(box)
    return Draw(image, mirrored, shift, images.source.labels[index], box)


def training_batches(
    source: Source,
    view: TrainingView,
    *,
    batch: int,
    epochs: int,
    seed: int,
    quarantine: Quarantine | None = None,
    first_step: int = 0,
    workers: int = 0,
    share: tuple[int, int] = (0, 1),
) -> Generator[Batch | BoxedBatch]:
    """The batches of a whole training from step `first_step` on, the same for any number of `workers`.

    Images that cannot be used are missing from their batch, and are in the quarantine. Where images have boxes, one
    whose object no crop shows that was drawn is missing too, in that epoch.

    Args:
        source: training images.
        view: what is drawn for each.
        batch: images per step, over all processes.
        epochs: times that every image is shown.
        seed: of the order and of all draws.
        quarantine: where images go that cannot be used; without one, any such image is an error.
        first_step: steps that lie behind.
        workers: processes that decode and crop.
        share: (rank, processes): this process has the images rank, rank + processes, ... of each batch, perhaps none.

    Raises:
        TooManyBadImagesError: the quarantine is full.
        WorkerDiedError: a worker was killed, say.
    """
    quarantine = quarantine or Quarantine(len(source))
    keys = _batch_keys(len(source), batch=batch, epochs=epochs, seed=seed, first_step=first_step, share=share)
    draws = _Draws(RescaledImages(source, max_pixels=quarantine.tolerance.max_pixels), view, seed)
    collate = partial(_collate, crop=view.crop, share=share)
    loaded = from_workers(draws, workers=workers, batch_sampler=keys, collate_fn=collate)
    yield from _quarantining(loaded, quarantine)


def centre_batches(
    images: RescaledImages, *, crop: int, scale: int, batch: int, quarantine: Quarantine | None = None, workers: int = 0
) -> Generator[Batch | BoxedBatch]:
    """Every usable image once, in order: its centre crop at S = `scale` pixels, neither mirrored nor shifted.

    Raises:
        TooManyBadImagesError: the quarantine is full.
        WorkerDiedError: a worker was killed, say.
    """
    loaded = from_workers(
        _CentreCrops(images, crop, scale), workers=workers, batch_size=batch, collate_fn=partial(_collate, crop=crop)
    )
    yield from _quarantining(loaded, quarantine or Quarantine(len(images.source)))


def rescaled_images(
    source: Source,
    scale: int,
    *,
    indices: Sequence[int] | None = None,
    max_pixels: int = MAX_PIXELS,
    workers: int = 0,
) -> Generator[Rescaled]:
    """Images (all, if no `indices` are given), in order, their shorter side at `scale` pixels.

    Raises:
        WorkerDiedError: a worker was killed, say.
    """
    items = from_workers(
        _Whole(RescaledImages(source, max_pixels=max_pixels, once=True), scale),
        workers=workers,
        sampler=range(len(source)) if indices is None else indices,
        batch_size=None,
        collate_fn=as_it_is,
    )
    with closing(items):
        for index, image in items:
            yield index, image if isinstance(image, UnusableImageError) else torch.from_numpy(image).permute(2, 0, 1)


def _quarantining(
    loaded: Generator[tuple[Batch | BoxedBatch, list[UnusableImageError]]], quarantine: Quarantine
) -> Generator[Batch | BoxedBatch]:
    with closing(loaded):
        for batch, refusals in loaded:
            for refusal in refusals:
                quarantine.add(refusal)
            yield batch


def _batch_keys(
    images: int, *, batch: int, epochs: int, seed: int, first_step: int, share: tuple[int, int]
) -> Iterator[list[tuple[int, int]]]:
    """(epoch, index) of every image of every batch from `first_step` on, as far as they are this process's."""
    rank, processes = share
    first_epoch, steps_done = divmod(first_step, batches_per_epoch(images, batch))
    for epoch in range(first_epoch, epochs):
        order = epoch_order(images, seed=seed, epoch=epoch)
        for start in range(steps_done * batch if epoch == first_epoch else 0, images, batch):
            yield [(epoch, int(index)) for index in order[start : start + batch][rank::processes]]


@dataclass(frozen=True)
class _Draws(Dataset[Any]):
    """Adapts `draw` to the DataLoader, which asks for items by (epoch, index). Refusals are items too."""

    images: RescaledImages
    view: TrainingView
    seed: int

    def __getitem__(self, key: tuple[int, int]) -> Draw | UnusableImageError | ObjectNotShownError:
        epoch, index = key
        try:
            return draw(self.images, index, self.view, seed=self.seed, epoch=epoch)
        except (UnusableImageError, ObjectNotShownError) as refusal:
            return refusal


@dataclass(frozen=True)
class _CentreCrops(Dataset[Any]):
    images: RescaledImages
    crop: int
    scale: int

    def __len__(self) -> int:
        return len(self.images.source)

    def __getitem__(self, index: int) -> Draw | UnusableImageError:
        try:
            label, box = self.images.source.labels[index], None
            if self.images.boxed:
                image, box = self.images.centre_crop_and_box(index, self.scale, self.crop)
            else:
                image = self.images.centre_crop(index, self.scale, self.crop)
            return Draw(image, False, np.zeros(3), label, box)
        except UnusableImageError as refusal:
            return refusal


@dataclass(frozen=True)
class _Whole(Dataset[Any]):
    images: RescaledImages
    scale: int

    def __len__(self) -> int:
        return len(self.images.source)

    def __getitem__(self, index: int) -> tuple[int, Pixels | UnusableImageError]:
        try:
            # An array, for it is copied to the other process: a tensor keeps a file open there until it is gone.
            return index, self.images.whole(index, self.scale)
        except UnusableImageError as refusal:
            return index, refusal


def _collate(
    items: Sequence[Draw | UnusableImageError | ObjectNotShownError], *, crop: int, share: tuple[int, int] = (0, 1)
) -> tuple[Batch | BoxedBatch, list[UnusableImageError]]:
    rank, processes = share
    usable = [(place, item) for place, item in enumerate(items) if isinstance(item, Draw)]
    draws = [drawn for _, drawn in usable]
    images = np.empty((len(draws), crop, crop, 3), dtype=np.uint8)
    for place, drawn in zip(images, draws, strict=True):
        place[:] = drawn.image
    batch = Batch(
        torch.from_numpy(images).permute(0, 3, 1, 2),
        torch.tensor([drawn.mirrored for drawn in draws], dtype=torch.bool),
        torch.from_numpy(np.array([drawn.shift for drawn in draws], dtype=np.float32).reshape(-1, 3)),
        torch.tensor([rank + processes * place for place, _ in usable], dtype=torch.int64),
        torch.tensor([drawn.label for drawn in draws], dtype=torch.int64),
    )
    refusals = [item for item in items if isinstance(item, UnusableImageError)]
    boxes = [drawn.box for drawn in draws if drawn.box is not None]
    return (BoxedBatch(batch, torch.from_numpy(np.array(boxes, dtype=np.float32))) if boxes else batch), refusals


def _generator(seed: int, epoch: int, stream: int, index: int) -> np.random.Generator:
    """A stream of its own for every (seed, epoch, stream, index): Philox counts from a counter that holds them."""
    return np.random.Generator(np.random.Philox(key=[seed, epoch], counter=[0, 0, stream, index]))
