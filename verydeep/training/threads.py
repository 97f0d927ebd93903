"""The threads of a training on a CPU: as asked for, as begun, or the fewest that are as fast as more, measured."""

import statistics
from dataclasses import replace
from functools import partial
from timeit import timeit

import torch

from verydeep.machine.threads import threads_kept
from verydeep.networks.arithmetic import describe_architecture
from verydeep.networks.vgg import VGG
from verydeep.runs.record import is_begun, read_record
from verydeep.training.job import TrainingJob
from verydeep.training.learner import forward_and_back, measured_copy

_MOST_MACS = 3e10
"""Multiply-adds of a step above which every thread pays, and nothing is measured."""

_STEPS = 3
_AS_FAST = 1.1
"""How many times the least time a step may take, so that noise does not choose more threads."""


def with_threads(job: TrainingJob, net: VGG) -> TrainingJob:
    """Return the job with its threads decided if it runs on a CPU, and compute with as many in this process.

    They are measured again for each training, since other work may have the cores, and a run keeps to what it began
    with: other numbers of threads add in another order.
    """
    most = torch.get_num_threads()
    if job.device.type != "cpu" or job.runtime.threads is not None or job.processes.several:
        return job
    count = min(_as_begun(job) or most, most) if is_begun(job.out) else most
    if are_measured(job):
        count = _fewest(job, net, most)
    torch.set_num_threads(count)
    return replace(job, runtime=replace(job.runtime, threads=count))


def are_measured(job: TrainingJob) -> bool:
    """Return whether threads are decided by measuring: for small steps on a CPU, unless asked for or begun with."""
    free = job.device.type == "cpu" and job.runtime.threads is None and not job.processes.several
    if not free or torch.get_num_threads() == 1 or is_begun(job.out):
        return False
    return 3 * describe_architecture(job.architecture).macs * job.recipe.batch <= _MOST_MACS


def _as_begun(job: TrainingJob) -> int | None:
    threads = read_record(job.out).runtime.get("threads")
    return threads if isinstance(threads, int) and threads > 0 else None


def _fewest(job: TrainingJob, net: VGG, most: int) -> int:
    """Return the fewest threads whose step takes no longer than that of others, but for noise."""
    counts = sorted({most, *(2**power for power in range(most.bit_length()))})
    seconds = _seconds(net, counts, images=job.recipe.batch, bf16=job.execution.precision == "bf16")
    return next(count for count in counts if seconds[count] <= _AS_FAST * min(seconds.values()))


def _seconds(net: VGG, counts: list[int], *, images: int, bf16: bool) -> dict[int, float]:
    """Return the seconds of a step with each number of threads, in turn; `net` stays as it is."""
    step = partial(forward_and_back, measured_copy(net), images, torch.device("cpu"), bf16=bf16)
    taken: dict[int, list[float]] = {count: [] for count in counts}
    with threads_kept():
        for _ in range(1 + _STEPS):
            for count in counts:
                torch.set_num_threads(count)
                taken[count].append(timeit(step, number=1))
    return {count: statistics.median(its[1:]) for count, its in taken.items()}
