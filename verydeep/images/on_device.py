"""Batches on the device where the network is: copied one ahead, mirrored and shifted there."""

from collections.abc import Generator, Iterable
from typing import NamedTuple

import torch
from torch import Tensor

from verydeep.images.loader import Batch, BoxedBatch


class DeviceBatch(NamedTuple):
    """What a network is shown; it subtracts the mean itself."""

    images: Tensor
    """float32 [B, 3, crop, crop], RGB around 0..255, channels last."""
    places: Tensor
    """int64 [B], as in `loader.Batch`."""
    labels: Tensor
    """int64 [B]."""
    boxes: Tensor | None = None
    """float32 [B, 4], as in `loader.BoxedBatch`; None where images have none."""

    def piece(self, part: slice) -> "DeviceBatch":
        """Some of the images, in order."""
        boxes = None if self.boxes is None else self.boxes[part]
        return DeviceBatch(self.images[part], self.places[part], self.labels[part], boxes)


def nothing(crop: int, device: torch.device) -> DeviceBatch:
    """A batch without images."""
    none = torch.zeros(0, dtype=torch.int64, device=device)
    return DeviceBatch(torch.zeros(0, 3, crop, crop, device=device), none, none)


def on_device(batches: Iterable[Batch | BoxedBatch], device: torch.device) -> Generator[DeviceBatch]:
    """Every batch as the network is shown it. On CUDA the next one is copied while the network works on this one.

    Closing it closes `batches` too, if that is a generator.
    """
    try:
        yield from _one_ahead(batches, device) if device.type == "cuda" else (to_device(b, device) for b in batches)
    finally:
        if isinstance(batches, Generator):
            batches.close()


def _one_ahead(batches: Iterable[Batch | BoxedBatch], device: torch.device) -> Generator[DeviceBatch]:
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


def to_device(batch: Batch | BoxedBatch, device: torch.device) -> DeviceBatch:
    """One batch: uint8 over the bus, then mirrored where it is to be, and its colours shifted."""
    crops = batch.crops if isinstance(batch, BoxedBatch) else batch
    images, mirrored, shifts, places, labels = (_sent(tensor, device) for tensor in crops)
    turned = torch.where(mirrored[:, None, None, None], images.flip(-1), images)
    coloured = turned.to(torch.float32, memory_format=torch.channels_last) + shifts[:, :, None, None]
    boxes = _sent(batch.boxes, device) if isinstance(batch, BoxedBatch) else None
    return DeviceBatch(coloured, places, labels, boxes)


def _sent(tensor: Tensor, device: torch.device) -> Tensor:
    return tensor.to(device, non_blocking=device.type == "cuda")
