"""The error on the validation images, which steers the learning rate."""

import itertools
import math
from collections.abc import Generator, Iterable
from contextlib import closing

from verydeep.images.loader import Batch, centre_batches
from verydeep.images.on_device import DeviceBatch, nothing, on_device
from verydeep.images.tolerance import TooManyBadImagesError
from verydeep.images.workers import WorkerDiedError
from verydeep.machine.runtime import StopRequest
from verydeep.networks.scales import middle_scale, scale_in_pixels
from verydeep.training.decisions import Decision, decide, settle
from verydeep.training.parallel import same_statistics
from verydeep.training.saving import last_checkpoint
from verydeep.training.state import TrainingState
from verydeep.training.step import DivergedError, scores


def validation_error(state: TrainingState, stop: StopRequest) -> float | Decision:
    """Return the error in percent, on centre crops at S, over all processes; or the decision that cuts it short.

    It is the top-1 error, or the share of wrong boxes. A validation that was cut short is repeated as a whole.

    Raises:
        DivergedError: scores are not finite.
        ValueError: no validation image can be used.
    """
    learner, processes = state.learner, state.job.processes
    same_statistics(learner.net, processes)
    failures: list[Exception] = []
    wrong = seen = 0
    finite = True
    for batch in _shares(state, failures):
        if (stop.signal is not None or failures) and not learner.fc_parallel:
            break
        outputs = scores(learner, batch.images)
        finite = finite and bool(outputs.isfinite().all())
        wrong += int(learner.objective.wrong(outputs, batch).sum())
        seen += len(batch.labels)
    too_many = settle(state.bad_validation, processes)
    failure = next(iter(failures), too_many)
    told = processes.gathered([wrong, seen, not finite, failure is not None, stop.signal or 0]).long()
    wrong, seen, not_finite, _, _ = told.sum(0).tolist()
    failed, signals = told[:, 3].tolist(), told[:, 4].tolist()
    if any(failed) or any(signals):
        return decide(state.out, failure=failure, failed=failed, signal=max(signals))
    if not_finite:
        raise DivergedError(
            f"training diverged: scores of validation images are not finite after step {state.progress.step - 1}; "
            f"{last_checkpoint(state.out)}: train again in another folder with a lower learning rate"
        )
    if not seen:
        raise ValueError("none of the validation images can be used")
    return 100 * wrong / seen


def _shares(state: TrainingState, failures: list[Exception]) -> Generator[DeviceBatch]:
    """Yield this process's batches; then, and after a failure, empty ones until all processes have had as many.

    Processes that share layers have to call the network equally often.
    """
    learner, crop = state.learner, state.recipe.crop
    images = len(state.job.splits.source("val"))
    batches_each = math.ceil(math.ceil(images / state.job.processes.count) / learner.micro_batch)
    with closing(on_device(_batches(state), learner.device)) as batches:
        endless = itertools.chain(_until_failure(batches, failures), itertools.repeat(nothing(crop, learner.device)))
        yield from itertools.islice(endless, batches_each)


def _batches(state: TrainingState) -> Generator[Batch]:
    recipe = state.recipe
    return centre_batches(
        state.validation,
        crop=recipe.crop,
        scale=scale_in_pixels(middle_scale(recipe.scale), recipe.crop),
        batch=state.learner.micro_batch,
        quarantine=state.bad_validation,
        workers=state.job.runtime.workers,
    )


def _until_failure(batches: Iterable[DeviceBatch], failures: list[Exception]) -> Generator[DeviceBatch]:
    try:
        yield from batches
    except (WorkerDiedError, TooManyBadImagesError) as failure:
        failures.append(failure)
