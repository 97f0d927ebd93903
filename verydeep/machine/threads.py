"""Threads that compute on a CPU: how many, and how they wait for one another."""

import os
from collections.abc import Iterator
from contextlib import contextmanager

_POLICY = "OMP_WAIT_POLICY"


def wait_asleep() -> None:
    """Let threads sleep while they wait for one another; before PyTorch is loaded, and unless the user chose.

    By default OpenMP's threads wait in a loop. Where other work has the cores, that loop takes them from the very
    thread that it waits for: two trainings of D (quarter width, crop 32, float32) at once on two cores of an Intel
    Xeon (Sapphire Rapids), two threads each, took 1,052 ms for a step; with threads that sleep, 87 ms.
    """
    os.environ.setdefault(_POLICY, "passive")


def usable_cores() -> int:
    """Return how many cores this process may use, by affinity, control group and OMP_NUM_THREADS."""
    import joblib  # takes a while
    import torch

    return max(1, min(torch.get_num_threads(), joblib.cpu_count()))


def threads_each(jobs: int) -> int:
    """Return how many threads each of several jobs at once may have, so that together they use all usable cores."""
    return max(1, usable_cores() // jobs)


def use_threads(count: int | None) -> None:
    """Compute with so many threads in this process from now on; None: as many as now, but no more than usable cores.

    Raises:
        ValueError: this process may use fewer cores than that.
    """
    import joblib
    import torch

    cores = joblib.cpu_count()
    if count is not None and count > cores:
        raise ValueError(f"--threads {count} is more than the {cores} cores that this process may use")
    if (wanted := count or usable_cores()) != torch.get_num_threads():
        torch.set_num_threads(wanted)


@contextmanager
def threads_kept() -> Iterator[None]:
    """Compute with as many threads after the block as before it."""
    import torch

    before = torch.get_num_threads()
    try:
        yield
    finally:
        torch.set_num_threads(before)
