"""A source and its views to batches, in an order that depends on nothing but (seed, epoch, index)."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from verydeep.images.colour import colour_shift
from verydeep.images.decode import Pixels, UndecodableImageError, decode
from verydeep.images.sources import Source
from verydeep.images.views import centre_crop, random_crop, random_flip, random_scale, rescale
from verydeep.runtime import leave_signals_to_the_main_process

Draw = tuple[Pixels, NDArray[np.float64], int]
"""Crop [crop, crop, 3], colour shift [3] and label."""

_ORDER, _SAMPLE = 0, 1
"""Which of an epoch's random streams: that of the order, or those of the samples."""

CACHE_BYTES = 256 * 2**20
"""Pixels that a process remembers, so that small sources are decoded once."""


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


class Batch(NamedTuple):
    """Crops as they go to the network, which subtracts the mean itself."""

    images: Tensor
    """uint8 [B, 3, crop, crop]."""
    shifts: Tensor
    """float32 [B, 3], grey levels to add to every pixel."""
    labels: Tensor
    """int64 [B]."""


def batches_per_epoch(images: int, batch: int) -> int:
    """Steps in an epoch: every image once, the last batch as large as what is left."""
    return math.ceil(images / batch)


def epoch_order(images: int, *, seed: int, epoch: int) -> NDArray[np.int64]:
    """The permutation of 0..images-1 in which an epoch goes through a source."""
    return _generator(seed, epoch, _ORDER, 0).permutation(images)


class RescaledImages:
    """The decoded images of a source with their shorter side at S pixels; small sources are kept in memory."""

    def __init__(self, source: Source) -> None:
        self.source = source
        self._kept: dict[tuple[int, int], Pixels] = {}
        self._bytes_left = CACHE_BYTES

    def __call__(self, index: int, scale: int) -> Pixels:
        """One image, [H, W, 3]; not to be written to."""
        if (index, scale) in self._kept:
            return self._kept[index, scale]
        image = _rescaled(self.source, index, scale)
        if image.nbytes <= self._bytes_left:
            self._bytes_left -= image.nbytes
            self._kept[index, scale] = image
        return image


def draw(
    images: RescaledImages, index: int, view: TrainingView, *, seed: int, epoch: int
) -> tuple[Pixels, NDArray[np.float64]]:
    """Crop [crop, crop, 3] and colour shift [3] of one image in one epoch."""
    rng = _generator(seed, epoch, _SAMPLE, index)
    image = random_crop(images(index, random_scale(*view.scale, rng)), view.crop, rng)
    if view.flip:
        image = random_flip(image, rng)
    return image, colour_shift(view.colour_components, view.colour_sd, rng)


def training_batches(
    source: Source, view: TrainingView, *, batch: int, epochs: int, seed: int, first_step: int = 0, workers: int = 0
) -> Iterator[Batch]:
    """The batches of a whole training from step `first_step` on, the same for any number of `workers`."""
    keys = _batch_keys(len(source), batch=batch, epochs=epochs, seed=seed, first_step=first_step)
    yield from _load(_Draws(source, view, seed), batch_sampler=keys, collate_fn=_collate_draws, num_workers=workers)


def rescaled_images(source: Source, scale: int, *, workers: int = 0) -> Iterator[Tensor]:
    """Every image of a source, in order, whole, with its shorter side at `scale` pixels: uint8 [3, H, W]."""
    yield from _load(_Whole(source, scale), batch_size=None, num_workers=workers)


def centre_batches(images: RescaledImages, *, crop: int, scale: int, batch: int) -> Iterator[Batch]:
    """Every image once, in order: its centre crop at S = `scale` pixels, unshifted."""
    labels = images.source.labels
    for start in range(0, len(labels), batch):
        indices = range(start, min(start + batch, len(labels)))
        yield _collate([(centre_crop(images(i, scale), crop), np.zeros(3), labels[i]) for i in indices])


def _batch_keys(images: int, *, batch: int, epochs: int, seed: int, first_step: int) -> Iterator[list[tuple[int, int]]]:
    """(epoch, index) of every image of every batch from `first_step` on."""
    first_epoch, steps_done = divmod(first_step, batches_per_epoch(images, batch))
    for epoch in range(first_epoch, epochs):
        order = epoch_order(images, seed=seed, epoch=epoch)
        for start in range(steps_done * batch if epoch == first_epoch else 0, images, batch):
            yield [(epoch, int(index)) for index in order[start : start + batch]]


def _load(dataset: Dataset[Any], **options: Any) -> Iterator[Any]:
    """A DataLoader's items. Refusals come out of workers as values and are raised here, their message as it was."""
    loader = DataLoader(
        dataset,
        pin_memory=torch.cuda.is_available(),
        worker_init_fn=leave_signals_to_the_main_process,
        **options,
    )
    for item in loader:
        if isinstance(item, UndecodableImageError):
            raise item
        yield item


class _Draws(Dataset[Any]):
    """Adapts `draw` to the DataLoader, which asks for items by (epoch, index)."""

    def __init__(self, source: Source, view: TrainingView, seed: int) -> None:
        self._images, self._labels, self._view, self._seed = RescaledImages(source), source.labels, view, seed

    def __getitem__(self, key: tuple[int, int]) -> Draw | UndecodableImageError:
        epoch, index = key
        try:
            return *draw(self._images, index, self._view, seed=self._seed, epoch=epoch), self._labels[index]
        except UndecodableImageError as refusal:
            return refusal


class _Whole(Dataset[Any]):
    """Adapts a source's rescaled images to the DataLoader."""

    def __init__(self, source: Source, scale: int) -> None:
        self._source, self._scale = source, scale

    def __len__(self) -> int:
        return len(self._source)

    def __getitem__(self, index: int) -> Tensor | UndecodableImageError:
        try:
            return torch.from_numpy(_rescaled(self._source, index, self._scale)).permute(2, 0, 1)
        except UndecodableImageError as refusal:
            return refusal


def _rescaled(source: Source, index: int, scale: int) -> Pixels:
    data, _, name = source[index]
    return rescale(decode(data, name), scale, name)


def _collate_draws(draws: Sequence[Draw | UndecodableImageError]) -> Batch | UndecodableImageError:
    good: list[Draw] = []
    for item in draws:
        if isinstance(item, UndecodableImageError):
            return item
        good.append(item)
    return _collate(good)


def _generator(seed: int, epoch: int, stream: int, index: int) -> np.random.Generator:
    """A stream of its own for every (seed, epoch, stream, index): Philox counts from a counter that holds them."""
    return np.random.Generator(np.random.Philox(key=[seed, epoch], counter=[0, 0, stream, index]))


def _collate(samples: Sequence[Draw]) -> Batch:
    images, shifts, labels = zip(*samples, strict=True)
    return Batch(
        torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2),
        torch.from_numpy(np.stack(shifts).astype(np.float32)),
        torch.tensor(labels),
    )
