"""Batches as they arrive for a step, each with the decision that all processes take before it."""

import time
from collections.abc import Generator, Sequence
from contextlib import closing
from typing import NamedTuple

from verydeep.images.loader import Batch, training_batches
from verydeep.images.on_device import DeviceBatch, nothing, on_device
from verydeep.images.tolerance import TooManyBadImagesError
from verydeep.images.workers import WorkerDiedError
from verydeep.machine.runtime import StopRequest
from verydeep.training.decisions import Decision, decide, settle
from verydeep.training.state import TrainingState


class Arrived(NamedTuple):
    """This process's share of a batch, and what to do before its step."""

    decision: Decision
    batch: DeviceBatch
    usable: Sequence[int]
    """Usable images of the batch that each process has."""
    asked: float
    """When the batch was asked for, in seconds of `time.perf_counter`."""
    waited: float
    """Seconds until it came."""


def arrivals(state: TrainingState, stop: StopRequest) -> Generator[Arrived]:
    """Yield this process's share of every batch, from the next step on."""
    device, processes, bad = state.learner.device, state.job.processes, state.bad_images
    failure: Exception | None = None
    with closing(on_device(_batches(state), device)) as batches:
        while True:
            asked, batch = time.perf_counter(), nothing(state.recipe.crop, device)
            try:
                batch = next(batches)
            except (WorkerDiedError, TooManyBadImagesError) as error:
                failure = error
            waited = time.perf_counter() - asked
            save_due = time.monotonic() - state.saved > 60 * state.job.execution.save_minutes
            told = [len(batch.labels), len(bad.waiting), failure is not None, stop.signal or 0, save_due]
            usable, waiting, failed, signals, due = processes.gathered(told).T.int().tolist()
            if any(waiting):
                failure = settle(bad, processes) or failure
            decision = decide(state.out, failure=failure, failed=failed, signal=max(signals), save_due=bool(due[0]))
            yield Arrived(decision, batch, usable, asked, waited)


def _batches(state: TrainingState) -> Generator[Batch]:
    processes = state.job.processes
    return training_batches(
        state.job.splits.source("train"),
        state.view,
        batch=state.recipe.batch,
        epochs=state.recipe.epochs,
        seed=state.recipe.seed,
        quarantine=state.bad_images,
        first_step=state.progress.step,
        workers=state.job.runtime.workers,
        share=(processes.rank, processes.count),
    )
