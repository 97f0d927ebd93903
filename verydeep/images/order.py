"""The order of training images and the random numbers of each: they follow from (seed, epoch, index) alone."""

import math
from collections.abc import Iterator, Sequence

import numpy as np
from jaxtyping import Int64

_ORDER, _SAMPLE = 0, 1
"""Which of an epoch's random streams: that of the order, or those of the samples."""

EpochAndIndex = tuple[int, int]
"""Names a sample of a training. An image that an epoch shows again has another number of epoch each time."""

_AGAIN = 2**32 + 1
"""Added to the epoch at each repetition: more than any number of epochs, odd, so that two fixed views alternate."""


def batches_per_epoch(images: int, batch: int) -> int:
    """Return the number of steps in an epoch: every image once, the last batch perhaps smaller."""
    return math.ceil(images / batch)


def _epoch_order(images: int, *, seed: int, epoch: int) -> Int64[np.ndarray, " images"]:
    """Return the permutation of 0..images-1 in which an epoch goes through a source."""
    return _generator(seed, epoch, _ORDER, 0).permutation(images)


def sample_generator(seed: int, epoch: int, index: int) -> np.random.Generator:
    """Return the random numbers of one image in one epoch."""
    return _generator(seed, epoch, _SAMPLE, index)


def _balanced_order(
    labels: Sequence[int], *, seed: int, epoch: int
) -> tuple[Int64[np.ndarray, " images"], Int64[np.ndarray, " images"]]:
    """Sample as many images as there are, each class equally often; return them, and how often each came before.

    Two classes come equally often or differ by one, and so do two images of a class: all of them come before any comes
    again.
    """
    rng = _generator(seed, epoch, _ORDER, 0)
    by_class = np.argsort(np.asarray(labels), kind="stable")
    _, sizes = np.unique(np.asarray(labels), return_counts=True)
    each, left = divmod(len(labels), len(sizes))
    counts = each + (rng.permutation(len(sizes)) < left)
    sampled, again = [], []
    for members, count in zip(np.split(by_class, np.cumsum(sizes)[:-1]), counts.tolist(), strict=True):
        rounds = math.ceil(count / len(members))
        sampled.append(np.concatenate([members[:0], *(rng.permutation(members) for _ in range(rounds))])[:count])
        again.append(np.arange(count) // len(members))
    together = rng.permutation(len(labels))
    return np.concatenate(sampled)[together], np.concatenate(again)[together]


def batches_of_samples(
    images: int,
    *,
    batch: int,
    epochs: int,
    seed: int,
    first_step: int = 0,
    share: tuple[int, int] = (0, 1),
    balanced: Sequence[int] | None = None,
) -> Iterator[list[EpochAndIndex]]:
    """Yield the samples of every batch from `first_step` on that belong to the process `share`: (rank, processes).

    An epoch has every image once or, where `balanced` has their labels, as many samples, every class equally often.
    """
    rank, processes = share
    first_epoch, steps_done = divmod(first_step, batches_per_epoch(images, batch))
    for epoch in range(first_epoch, epochs):
        if balanced is None:
            order, again = _epoch_order(images, seed=seed, epoch=epoch), np.zeros(images, np.int64)
        else:
            order, again = _balanced_order(balanced, seed=seed, epoch=epoch)
        numbers = epoch + _AGAIN * again
        for start in range(steps_done * batch if epoch == first_epoch else 0, images, batch):
            mine = slice(start + rank, min(start + batch, images), processes)
            yield list(zip(numbers[mine].tolist(), order[mine].tolist(), strict=True))


def _generator(seed: int, epoch: int, stream: int, index: int) -> np.random.Generator:
    """Return an independent stream for each (seed, epoch, stream, index), which are Philox's key and counter."""
    return np.random.Generator(np.random.Philox(key=[seed, epoch], counter=[0, 0, stream, index]))
