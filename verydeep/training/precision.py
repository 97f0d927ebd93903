"""The precision of a training's products: as asked for, as begun, or on a CPU whichever is faster, measured once."""

import statistics
from dataclasses import replace
from functools import partial
from timeit import timeit
from typing import cast

import torch

from verydeep.machine.cache import remembered
from verydeep.machine.runtime import Precision, has_bfloat16, multiplies_in_bfloat16, uses_bf16
from verydeep.machine.threads import threads_kept
from verydeep.networks.arithmetic import describe_architecture
from verydeep.networks.vgg import VGG
from verydeep.runs.record import is_begun, read_record
from verydeep.training.job import TrainingJob
from verydeep.training.learner import forward_and_back, measured_copy
from verydeep.training.threads import are_measured

_LEAST_MACS = 3e7
"""Multiply-adds of an image's step below which converting costs about what bfloat16 saves. On an Intel Xeon (Sapphire
Rapids), one thread, batch 32, crop 32, float32 took 0.93 of bfloat16's time at 2e6 (A, width 1/16), 1.00 at 9e6
(A, 1/8), 1.11 at 2e7 (E, 1/8), 1.27 at 3.3e7 (A, 1/4) and 1.45 at 6e7 (D, 1/4)."""

_MOST_IMAGES = 32
_MOST_MACS = 1e11
"""Multiply-adds of a step that is measured: fewer images of a large network take seconds, not a minute."""

_STEPS = 3
_CLEARLY = 1.1
"""How many times as fast bfloat16 has to be, so that noise does not choose it."""


def with_precision(job: TrainingJob, net: VGG) -> TrainingJob:
    """Return the job with `auto` decided: as its run was begun, else on a CPU by a measurement of `net`.

    `auto` stays on other devices where it means float32, or TF32 on CUDA. A run that was begun in bfloat16 goes on as a
    new one where the device does not multiply in it. The measurement is remembered, and the first process decides for
    all. bfloat16 is taken if the processor multiplies in it and a step takes clearly less time. Where threads are
    decided next, one computes: two threads gain less in bfloat16, so that two in float32 could be taken where one in
    bfloat16 is as fast and leaves a core to others.
    """
    if job.execution.precision != "auto":
        return job
    precision = job.processes.from_first(lambda: _as_begun(job) if is_begun(job.out) else _chosen(job, net))
    return replace(job, execution=replace(job.execution, precision=precision))


def _as_begun(job: TrainingJob) -> Precision:
    begun = read_record(job.out).runtime.get("precision")
    if begun == "fp32" or (begun == "bf16" and has_bfloat16(job.device)):
        return cast(Precision, begun)
    return "fp32" if job.device.type == "cpu" else "auto"


def _chosen(job: TrainingJob, net: VGG) -> Precision:
    if job.device.type == "cpu":
        return "bf16" if _pays(job, net) else "fp32"
    return "bf16" if uses_bf16("auto", job.device) else "auto"


def _pays(job: TrainingJob, net: VGG) -> bool:
    """Return whether a step of this network is clearly faster in bfloat16 on this processor."""
    macs = 3 * describe_architecture(job.architecture).macs
    if not multiplies_in_bfloat16() or macs < _LEAST_MACS:
        return False
    images = max(1, min(job.recipe.batch, _MOST_IMAGES, round(_MOST_MACS / macs)))
    processor = sorted(torch.cpu.get_capabilities().items())
    threads = 1 if are_measured(job) else torch.get_num_threads()
    key = (torch.__version__, processor, threads, job.architecture, images)
    with threads_kept():
        torch.set_num_threads(threads)
        return remembered("precision", key, lambda: _times_as_fast(net, images), float) > _CLEARLY


def _times_as_fast(net: VGG, images: int) -> float:
    """Return how many times as fast a step is in bfloat16, steps of both alternating; `net` stays as it is."""
    net = measured_copy(net)
    steps = [partial(forward_and_back, net, images, torch.device("cpu"), bf16=bf16) for bf16 in (False, True)]
    for step in steps:
        step()
    float32, bfloat16 = zip(*([timeit(step, number=1) for step in steps] for _ in range(_STEPS)), strict=True)
    return statistics.median(float32) / statistics.median(bfloat16)
