"""How many images of one size are computed at once: as many as a measurement finds faster than one by one."""

from collections.abc import Callable

_MEASURED_BATCH = 4
"""Images of the batch that is compared with single ones."""

_ROUNDS = 2

_LARGE = 0.25
"""Seconds for an image; networks that take longer fill all cores with one."""

_WORTHWHILE = 0.9
"""A batch has to take at most this share of the time of its images one by one."""

_MUCH = 0.75
"""Under this share all waiting images may be a batch; above it they wait longer for each other than a batch saves.

In a simulated queue at 0.8 of capacity with a share of 0.9, the slowest of 100 images takes 11.1 times a computation of
one if all are computed one by one, 10.2 in batches of all that waits, 9.1 in batches of up to four.
"""


def fastest_batch(seconds_for: Callable[[int], float], single: float, most: int) -> int:
    """Return how many images a batch should have at most; 1 where batches gain nothing.

    Args:
        seconds_for: computes so many images at once, and returns the seconds that it took.
        single: seconds for one image.
        most: images of a batch that is allowed.
    """
    count = min(_MEASURED_BATCH, most)
    if count < 2 or single > _LARGE:
        return 1
    together = min(seconds_for(count) for _ in range(_ROUNDS))
    share = together / (count * min(single, seconds_for(1)))
    if share > _WORTHWHILE:
        return 1
    return most if share < _MUCH else count
