"""Crops of a source's images in batches, made by worker processes, the same for any number of them."""

from collections.abc import Callable, Generator, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float32, Int64, UInt8
from torch import Tensor
from torch.utils.data import Dataset

from verydeep.images.boxes.geometry import ObjectNotShownError
from verydeep.images.crops import CroppedImage, TrainingView, centre_crop, training_crop
from verydeep.images.decode import UnusableImageError
from verydeep.images.order import EpochAndIndex, batches_of_samples
from verydeep.images.quarantine import Quarantine
from verydeep.images.rescaled import RescaledImages
from verydeep.images.sources.source import Source
from verydeep.images.workers import from_workers


class Batch(NamedTuple):
    """Crops as they leave the loader; `images.on_device` mirrors and shifts them, the network subtracts the mean."""

    images: UInt8[Tensor, "B 3 crop crop"]
    mirrored: Bool[Tensor, " B"]
    """Which of them are to be mirrored."""
    shifts: Float32[Tensor, "B 3"]
    """Grey levels to add to every pixel."""
    positions: Int64[Tensor, " B"]
    """Of each in the whole batch: 0, 1, ..., without those of unusable images and of other processes."""
    labels: Int64[Tensor, " B"]
    boxes: Float32[Tensor, "B 4"] | None = None
    """(x, y, width, height) in units of the crops, mirrored already; None where sources have no boxes."""


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
) -> Generator[Batch]:
    """Yield the batches of a whole training from step `first_step` on, the same for any number of `workers`.

    Images that cannot be used are missing from their batch, and are in the quarantine. Where images have boxes, one
    whose object no sampled crop shows is missing too, in that epoch.

    Args:
        source: training images.
        view: what is sampled for each.
        batch: images per step, over all processes.
        epochs: times that every image is used.
        seed: of the order and of all that is sampled.
        quarantine: where images go that cannot be used; without one, any such image is an error.
        first_step: steps that have been taken already.
        workers: processes that decode and crop.
        share: (rank, processes): this process has the images rank, rank + processes, ... of each batch, perhaps none.

    Raises:
        TooManyBadImagesError: the quarantine is full.
        WorkerDiedError: a worker was killed, for example.
    """
    quarantine = quarantine or Quarantine(len(source))
    samples = batches_of_samples(len(source), batch=batch, epochs=epochs, seed=seed, first_step=first_step, share=share)
    crops = _TrainingCrops(RescaledImages(source, max_pixels=quarantine.tolerance.max_pixels), view, seed)
    collate = partial(_collate, crop=view.crop, share=share)
    yield from _quarantining(
        from_workers(crops, workers=workers, batch_sampler=samples, collate_fn=collate), quarantine
    )


def centre_batches(
    images: RescaledImages, *, crop: int, scale: int, batch: int, quarantine: Quarantine | None = None, workers: int = 0
) -> Generator[Batch]:
    """Yield every usable image once, in order: its centre crop at S = `scale` pixels, neither mirrored nor shifted.

    Raises:
        TooManyBadImagesError: the quarantine is full.
        WorkerDiedError: a worker was killed, for example.
    """
    crops = _CentreCrops(images, crop, scale)
    loaded = from_workers(crops, workers=workers, batch_size=batch, collate_fn=partial(_collate, crop=crop))
    yield from _quarantining(loaded, quarantine or Quarantine(len(images.source)))


def _quarantining(
    loaded: Generator[tuple[Batch, list[UnusableImageError]]], quarantine: Quarantine
) -> Generator[Batch]:
    with closing(loaded):
        for batch, refusals in loaded:
            for refusal in refusals:
                quarantine.add(refusal)
            yield batch


_Item = CroppedImage | UnusableImageError | ObjectNotShownError


def _or_refusal(make: Callable[[], CroppedImage]) -> _Item:
    """Return the crop, or the refusal as an item of its own, which a worker can send."""
    try:
        return make()
    except (UnusableImageError, ObjectNotShownError) as refusal:
        return refusal


@dataclass(frozen=True)
class _TrainingCrops(Dataset[Any]):
    """Adapts `training_crop` to the DataLoader, which asks for items by (epoch, index)."""

    images: RescaledImages
    view: TrainingView
    seed: int

    def __getitem__(self, sample: EpochAndIndex) -> _Item:
        epoch, index = sample
        return _or_refusal(lambda: training_crop(self.images, index, self.view, seed=self.seed, epoch=epoch))


@dataclass(frozen=True)
class _CentreCrops(Dataset[Any]):
    images: RescaledImages
    crop: int
    scale: int

    def __len__(self) -> int:
        return len(self.images.source)

    def __getitem__(self, index: int) -> _Item:
        return _or_refusal(lambda: centre_crop(self.images, index, scale=self.scale, crop=self.crop))


def _collate(
    items: Sequence[_Item], *, crop: int, share: tuple[int, int] = (0, 1)
) -> tuple[Batch, list[UnusableImageError]]:
    rank, processes = share
    positions = [rank + processes * position for position, item in enumerate(items) if isinstance(item, CroppedImage)]
    crops = [item for item in items if isinstance(item, CroppedImage)]
    images = np.empty((len(crops), crop, crop, 3), dtype=np.uint8)
    for row, cropped in zip(images, crops, strict=True):
        row[:] = cropped.image
    boxes = [cropped.box for cropped in crops if cropped.box is not None]
    batch = Batch(
        torch.from_numpy(images).permute(0, 3, 1, 2),
        torch.tensor([cropped.mirrored for cropped in crops], dtype=torch.bool),
        torch.from_numpy(np.array([cropped.shift for cropped in crops], dtype=np.float32).reshape(-1, 3)),
        torch.tensor(positions, dtype=torch.int64),
        torch.tensor([cropped.label for cropped in crops], dtype=torch.int64),
        torch.from_numpy(np.array(boxes, dtype=np.float32)) if boxes else None,
    )
    return batch, [item for item in items if isinstance(item, UnusableImageError)]
