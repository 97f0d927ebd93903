"""Decisions of all processes before each step: go on, save, or, after a signal such as SIGTERM, save and end.

The decision before a step comes with the batch for it.
"""

import itertools
import time
from collections.abc import Generator, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from verydeep.images.loader import DeviceBatch, nothing, on_device, training_batches
from verydeep.images.quarantine import Quarantine
from verydeep.images.tolerance import TooManyBadImagesError
from verydeep.images.workers import WorkerDiedError
from verydeep.machine.processes import LostProcessError, Processes
from verydeep.machine.runtime import Stopped, StopRequest
from verydeep.training.state import TrainingState


@dataclass(frozen=True, kw_only=True)
class Decision:
    """A decision about the next action; `loop` alone acts on it."""

    save: bool = False
    """Write a checkpoint."""
    ending: Exception | None = None
    """Raise this once the checkpoint is written."""


GO_ON, SAVE = Decision(), Decision(save=True)


def decide(
    out: Path, *, failure: Exception | None = None, failed: Sequence[int] = (), signal: int = 0, save_due: bool = False
) -> Decision:
    """Return the decision that follows from the reports of all processes.

    Args:
        out: the run folder, for messages.
        failure: this process's error, if it had one; it ends with an error of that type.
        failed: [processes], 1 for each that had an error; the others end with a LostProcessError.
        signal: the signal that asked for an end, if one did; it leads to `Stopped`.
        save_due: whether a checkpoint is due, if nothing ends the training.
    """
    saved = f"what was done is saved in {out} and can be resumed"
    ending: Exception
    if failure is not None:
        ending = type(failure)(f"{failure}; {saved}")
        ending.__cause__ = failure
    elif any(failed):
        ending = LostProcessError(f"process {failed.index(1)} failed; {saved}")
    elif signal:
        ending = Stopped(signal, f"stopped, and saved in {out}: repeat the command with --resume to continue")
    else:
        return SAVE if save_due else GO_ON
    return Decision(save=True, ending=ending)


def settle(quarantine: Quarantine, processes: Processes) -> TooManyBadImagesError | None:
    """Tell all processes which images any of them could not use; return the error if these are too many."""
    try:
        quarantine.settle(itertools.chain(*processes.all_of(list(quarantine.waiting))))
    except TooManyBadImagesError as error:
        return error
    return None


class Arrived(NamedTuple):
    """This process's share of a batch, and the decision before its step."""

    decision: Decision
    batch: DeviceBatch
    usable: Sequence[int]
    """Usable images of the batch that each process has."""
    asked: float
    """When the batch was asked for, in seconds of `time.perf_counter`."""
    waited: float
    """Seconds until it came."""


def _batches(state: TrainingState) -> Generator[DeviceBatch]:
    """Yield this process's share of every batch: its crops, or their features from frozen layers."""
    job, recipe = state.job, state.job.recipe
    if state.features is not None:
        yield from state.features.training_batches(job, first_step=state.progress.step)
        return
    loaded = training_batches(
        job.splits.source("train"),
        state.view,
        batch=recipe.batch,
        epochs=recipe.epochs,
        seed=recipe.seed,
        quarantine=state.bad_images,
        first_step=state.progress.step,
        workers=job.runtime.workers,
        share=(job.processes.rank, job.processes.count),
        memory=job.image_memory("train"),
    )
    with closing(on_device(loaded, job.device)) as batches:
        yield from batches


def arrivals(state: TrainingState, stop: StopRequest) -> Generator[Arrived]:
    """Yield this process's share of every batch, from the next step on."""
    device, processes, bad, recipe = state.job.device, state.job.processes, state.bad_images, state.job.recipe
    failure: Exception | None = None
    with closing(_batches(state)) as batches:
        while True:
            asked, batch = time.perf_counter(), nothing(recipe.crop, device)
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
            decision = decide(state.job.out, failure=failure, failed=failed, signal=max(signals), save_due=bool(due[0]))
            yield Arrived(decision, batch, usable, asked, waited)
