"""Batches that all processes agree to have, or how a training ends when they do not."""

import itertools
import time
from collections.abc import Generator, Sequence
from contextlib import closing
from pathlib import Path
from typing import NamedTuple, NoReturn

from verydeep.images.loader import training_batches
from verydeep.images.on_device import DeviceBatch, nothing, on_device
from verydeep.images.quarantine import Quarantine
from verydeep.images.tolerance import TooManyBadImagesError
from verydeep.images.workers import WorkerDiedError
from verydeep.machine.processes import LostProcessError, Processes
from verydeep.machine.runtime import Stopped, StopRequest
from verydeep.training.preparation import Training
from verydeep.training.saving import save_checkpoint


class Fetched(NamedTuple):
    """When a batch was asked for and when it came, in seconds of `time.perf_counter`."""

    asked: float
    came: float


def agreed_batches(training: Training, stop: StopRequest) -> Generator[tuple[DeviceBatch, list[int], Fetched]]:
    """This process's share of every batch and how many usable images each process has of it.

    Before each step all agree whether there is a next one. If not, a checkpoint is saved, and it ends as it has to.
    """
    recipe, processes, device = training.recipe, training.machinery.processes, training.machinery.device
    batches = training_batches(
        training.images,
        training.view,
        batch=recipe.batch,
        epochs=recipe.epochs,
        seed=recipe.seed,
        quarantine=training.bad_images,
        first_step=training.position.step,
        workers=training.workers,
        share=(processes.rank, processes.count),
    )
    bad, failure = training.bad_images, None
    with closing(on_device(batches, device)) as shown:
        while True:
            asked, batch = time.perf_counter(), nothing(recipe.crop, device)
            try:
                batch = next(shown)
            except (WorkerDiedError, TooManyBadImagesError) as error:
                failure = error
            came = time.perf_counter()
            due = time.monotonic() - training.saved > 60 * training.save_minutes
            mine = [len(batch.labels), len(bad.waiting), failure is not None, stop.signal or 0, due]
            usable, waiting, failed, signals, overdue = processes.gathered(mine).T.int().tolist()
            if any(waiting):
                failure = next(iter(settled(bad, processes)), failure)
            if any(signals) or any(failed) or failure is not None:
                save_checkpoint(training)
                end(training.out, failure=failure, failed=failed, signal=max(signals))
            if overdue[0]:
                save_checkpoint(training)
            yield batch, usable, Fetched(asked, came)


def settled(bad: Quarantine, processes: Processes) -> list[TooManyBadImagesError]:
    """Makes what any process refused known to all; an error if it is too much."""
    try:
        bad.settle(itertools.chain(*processes.all_of(list(bad.waiting))))
    except TooManyBadImagesError as error:
        return [error]
    return []


def end(out: Path, *, failure: Exception | None = None, failed: Sequence[int] = (), signal: int = 0) -> NoReturn:
    """Ends a training of which a checkpoint was just saved.

    Raises:
        Exception: of the type of this process's `failure`, if it has one.
        LostProcessError: another process has `failed`: [processes], 1 for those that did.
        Stopped: otherwise, by `signal`.
    """
    if failure is not None:
        raise type(failure)(f"{failure}; what was done is saved in {out} and can be resumed") from failure
    if any(failed):
        raise LostProcessError(f"process {failed.index(1)} failed; what was done is saved in {out} and can be resumed")
    raise Stopped(signal, f"stopped, and saved in {out}: the same command with --resume goes on")
