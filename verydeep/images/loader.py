"""Crops of a source's images in batches, the same for any number of worker processes, and on the network's device."""

from collections.abc import Generator, Iterable, Sequence
from contextlib import closing
from functools import partial
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float32, Int64, UInt8
from torch import Tensor

from verydeep.images.boxes.geometry import ObjectNotShownError
from verydeep.images.crops import CroppedImage, TrainingView, centre_crop, training_crop
from verydeep.images.decode import UnusableImageError
from verydeep.images.order import EpochAndIndex, batches_of_samples
from verydeep.images.quarantine import Quarantine
from verydeep.images.rescaled import RescaledImages
from verydeep.images.sources.source import Source
from verydeep.images.workers import from_workers
from verydeep.machine.runtime import Execution


class Batch(NamedTuple):
    """Crops as they leave the loader; `to_device` mirrors and shifts them."""

    images: UInt8[Tensor, "B 3 crop crop"]
    mirrored: Bool[Tensor, " B"]
    """Which of them are to be mirrored."""
    shifts: Float32[Tensor, "B 3"]
    """Grey levels to add to every pixel."""
    positions: Int64[Tensor, " B"]
    """Position of each in the whole batch: 0, 1, ..., without those of unusable images and of other processes."""
    labels: Int64[Tensor, " B"]
    boxes: Float32[Tensor, "B 4"] | None = None
    """(x, y, width, height) in units of the crops, mirrored already; None where sources have no boxes."""


class DeviceBatch(NamedTuple):
    """The input of a network, which subtracts the mean itself."""

    images: Float32[Tensor, "B 3 crop crop"]
    """RGB around 0..255, channels last."""
    positions: Int64[Tensor, " B"]
    """As in `Batch`."""
    labels: Int64[Tensor, " B"]
    boxes: Float32[Tensor, "B 4"] | None = None
    """As in `Batch`."""

    def piece(self, part: slice) -> "DeviceBatch":
        """Return some of the images, in order."""
        boxes = None if self.boxes is None else self.boxes[part]
        return DeviceBatch(self.images[part], self.positions[part], self.labels[part], boxes)

    def on(self, device: torch.device) -> "DeviceBatch":
        """Return it on another device."""
        boxes = None if self.boxes is None else self.boxes.to(device)
        return DeviceBatch(self.images.to(device), self.positions.to(device), self.labels.to(device), boxes)


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
    memory: float = Execution.image_memory,
) -> Generator[Batch]:
    """Yield the batches of a whole training from step `first_step` on, the same for any number of `workers`.

    Images that cannot be used are missing from their batch, and are in the quarantine. Where images have boxes, one
    whose object no sampled crop shows is missing too, in that epoch.

    Args:
        source: training images.
        view: the random choices for each, and whether classes come equally often.
        batch: images per step, over all processes.
        epochs: times that every image is used or, if classes are balanced, that as many are sampled as there are.
        seed: of the order and of all random choices.
        quarantine: where images go that cannot be used; without one, any such image is an error.
        first_step: steps that have been taken already.
        workers: processes that decode and crop.
        share: (rank, processes): this process has the images rank, rank + processes, ... of each batch, perhaps none.
        memory: GiB in which decoded images are kept, divided among the workers.

    Raises:
        TooManyBadImagesError: the quarantine is full.
        WorkerDiedError: a worker was killed, for example.
    """
    quarantine = quarantine or Quarantine(len(source))
    samples = batches_of_samples(
        len(source),
        batch=batch,
        epochs=epochs,
        seed=seed,
        first_step=first_step,
        share=share,
        balanced=source.labels if view.balanced else None,
    )
    low, high = view.scale
    images = RescaledImages(
        source,
        max_pixels=quarantine.tolerance.max_pixels,
        memory=memory / max(1, workers),
        varying=low < high,
    )
    make, collate = partial(_training_item, images, view, seed), partial(_collate, crop=view.crop, share=share)
    yield from _quarantining(from_workers(make, workers=workers, batch_sampler=samples, collate_fn=collate), quarantine)


def centre_batches(
    images: RescaledImages, *, crop: int, scale: int, batch: int, quarantine: Quarantine | None = None, workers: int = 0
) -> Generator[Batch]:
    """Yield every usable image once, in order: its centre crop at S = `scale` pixels, neither mirrored nor shifted.

    Raises:
        TooManyBadImagesError: the quarantine is full.
        WorkerDiedError: a worker was killed, for example.
    """
    make, collate = partial(centre_crop, images, scale=scale, crop=crop), partial(_collate, crop=crop)
    every = range(len(images.source))
    loaded = from_workers(make, workers=workers, sampler=every, batch_size=batch, collate_fn=collate)
    yield from _quarantining(loaded, quarantine or Quarantine(len(every)))


def _quarantining(
    loaded: Generator[tuple[Batch, list[UnusableImageError]]], quarantine: Quarantine
) -> Generator[Batch]:
    with closing(loaded):
        for batch, refusals in loaded:
            for refusal in refusals:
                quarantine.add(refusal)
            yield batch


_Item = CroppedImage | UnusableImageError | None
"""None where none of the sampled crops shows the object."""


def _training_item(images: RescaledImages, view: TrainingView, seed: int, sample: EpochAndIndex) -> _Item:
    epoch, index = sample
    try:
        return training_crop(images, index, view, seed=seed, epoch=epoch)
    except ObjectNotShownError:
        return None


def _collate(
    items: Sequence[_Item], *, crop: int, share: tuple[int, int] = (0, 1)
) -> tuple[Batch, list[UnusableImageError]]:
    rank, processes = share
    by_position = {place: item for place, item in enumerate(items) if isinstance(item, CroppedImage)}
    crops = list(by_position.values())
    images = np.empty((len(crops), crop, crop, 3), dtype=np.uint8)
    for row, cropped in zip(images, crops, strict=True):
        row[:] = cropped.image
    boxes = [cropped.box for cropped in crops if cropped.box is not None]
    batch = Batch(
        torch.from_numpy(images).permute(0, 3, 1, 2),
        torch.tensor([cropped.mirrored for cropped in crops], dtype=torch.bool),
        torch.from_numpy(np.array([cropped.shift for cropped in crops], dtype=np.float32).reshape(-1, 3)),
        rank + processes * torch.tensor([*by_position], dtype=torch.int64),
        torch.tensor([cropped.label for cropped in crops], dtype=torch.int64),
        torch.from_numpy(np.array(boxes, dtype=np.float32)) if boxes else None,
    )
    return batch, [item for item in items if isinstance(item, UnusableImageError)]


def nothing(crop: int, device: torch.device) -> DeviceBatch:
    """Return a batch without images."""
    none = torch.zeros(0, dtype=torch.int64, device=device)
    return DeviceBatch(torch.zeros(0, 3, crop, crop, device=device), none, none)


def on_device(batches: Iterable[Batch], device: torch.device) -> Generator[DeviceBatch]:
    """Yield every batch on the device. On CUDA the next one is copied while the network works on this one.

    Closing it closes `batches` too, if that is a generator.
    """
    try:
        yield from _one_ahead(batches, device) if device.type == "cuda" else (to_device(b, device) for b in batches)
    finally:
        if isinstance(batches, Generator):
            batches.close()


def _one_ahead(batches: Iterable[Batch], device: torch.device) -> Generator[DeviceBatch]:
    copying = torch.cuda.Stream(device)
    ahead: DeviceBatch | None = None
    for batch in batches:
        with torch.cuda.stream(copying):
            copied = to_device(batch, device)
        if ahead is not None:
            yield ahead
        torch.cuda.current_stream(device).wait_stream(copying)
        for tensor in copied:
            if tensor is not None:
                tensor.record_stream(torch.cuda.current_stream(device))
        ahead = copied
    if ahead is not None:
        yield ahead


def to_device(batch: Batch, device: torch.device) -> DeviceBatch:
    """Copy a batch as uint8; there mirror the images that are to be mirrored, and shift their colours."""
    images, mirrored, shifts, positions, labels = (_sent(tensor, device) for tensor in batch[:5])
    turned = torch.where(mirrored[:, None, None, None], images.flip(-1), images)
    coloured = turned.to(torch.float32, memory_format=torch.channels_last) + shifts[:, :, None, None]
    boxes = None if batch.boxes is None else _sent(batch.boxes, device)
    return DeviceBatch(coloured, positions, labels, boxes)


def _sent(tensor: Tensor, device: torch.device) -> Tensor:
    return tensor.to(device, non_blocking=device.type == "cuda")
