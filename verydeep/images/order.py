"""The order of training images: it depends on nothing but (seed, epoch, index)."""

import math
from collections.abc import Iterator

import numpy as np
from jaxtyping import Int64

_ORDER, _SAMPLE = 0, 1
"""Which of an epoch's random streams: that of the order, or those of the samples."""

EpochAndIndex = tuple[int, int]
"""Names a sample of a training."""


def batches_per_epoch(images: int, batch: int) -> int:
    """Return the steps of an epoch: every image once, the last batch as large as what is left."""
    return math.ceil(images / batch)


def _epoch_order(images: int, *, seed: int, epoch: int) -> Int64[np.ndarray, " images"]:
    """Return the permutation of 0..images-1 in which an epoch goes through a source."""
    return _generator(seed, epoch, _ORDER, 0).permutation(images)


def sample_generator(seed: int, epoch: int, index: int) -> np.random.Generator:
    """Return the random numbers of one image in one epoch."""
    return _generator(seed, epoch, _SAMPLE, index)


def batches_of_samples(
    images: int, *, batch: int, epochs: int, seed: int, first_step: int = 0, share: tuple[int, int] = (0, 1)
) -> Iterator[list[EpochAndIndex]]:
    """Yield the samples of every batch from `first_step` on that belong to the process `share`: (rank, processes)."""
    rank, processes = share
    first_epoch, steps_done = divmod(first_step, batches_per_epoch(images, batch))
    for epoch in range(first_epoch, epochs):
        order = _epoch_order(images, seed=seed, epoch=epoch)
        for start in range(steps_done * batch if epoch == first_epoch else 0, images, batch):
            yield [(epoch, int(index)) for index in order[start : start + batch][rank::processes]]


def _generator(seed: int, epoch: int, stream: int, index: int) -> np.random.Generator:
    """Return a stream of its own for every (seed, epoch, stream, index): Philox counts from a counter that has them."""
    return np.random.Generator(np.random.Philox(key=[seed, epoch], counter=[0, 0, stream, index]))
