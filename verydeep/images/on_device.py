"""Batches on the device where the network is: copied one ahead, mirrored and shifted there."""

from collections.abc import Generator, Iterable
from typing import NamedTuple

import torch
from jaxtyping import Float32, Int64
from torch import Tensor

from verydeep.images.loader import Batch


class DeviceBatch(NamedTuple):
    """The input of a network, which subtracts the mean itself."""

    images: Float32[Tensor, "B 3 crop crop"]
    """RGB around 0..255, channels last."""
    positions: Int64[Tensor, " B"]
    """As in `loader.Batch`."""
    labels: Int64[Tensor, " B"]
    boxes: Float32[Tensor, "B 4"] | None = None
    """As in `loader.Batch`."""

    def piece(self, part: slice) -> "DeviceBatch":
        """Return some of the images, in order."""
        boxes = None if self.boxes is None else self.boxes[part]
        return DeviceBatch(self.images[part], self.positions[part], self.labels[part], boxes)


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
