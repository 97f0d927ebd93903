"""The error on the validation images, which steers the learning rate."""

import math
from collections.abc import Generator
from contextlib import closing

from verydeep.images.loader import centre_batches
from verydeep.images.on_device import DeviceBatch, nothing, on_device
from verydeep.images.tolerance import TooManyBadImagesError
from verydeep.images.workers import WorkerDiedError
from verydeep.machine.runtime import StopRequest
from verydeep.networks.scales import middle_scale, scale_in_pixels
from verydeep.training.decisions import Decision, decide, settle
from verydeep.training.parallel import same_statistics
from verydeep.training.state import TrainingState, last_checkpoint
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
    wrong = seen = not_finite = 0
    for batch in _shares(state, failures):
        if (stop.signal is not None or failures) and not state.job.execution.fc_parallel:
            break
        outputs = scores(learner, batch.images)
        not_finite += not outputs.isfinite().all()
        wrong += int(learner.objective.wrong(outputs, batch).sum())
        seen += len(batch.labels)
    too_many = settle(state.bad_validation, processes)
    failure = next(iter(failures), too_many)
    told = processes.gathered([wrong, seen, not_finite, failure is not None, stop.signal or 0]).long()
    wrong, seen, not_finite, _, _ = told.sum(0).tolist()
    failed, signals = told[:, 3].tolist(), told[:, 4].tolist()
    if any(failed) or any(signals):
        return decide(state.job.out, failure=failure, failed=failed, signal=max(signals))
    if not_finite:
        raise DivergedError(
            f"training diverged: scores of validation images are not finite after step {state.progress.step - 1}; "
            f"{last_checkpoint(state.job.out)}: train again in another folder with a lower learning rate"
        )
    if not seen:
        raise ValueError("none of the validation images can be used")
    return 100 * wrong / seen


def _shares(state: TrainingState, failures: list[Exception]) -> Generator[DeviceBatch]:
    """Yield this process's batches; then, and after a failure, empty ones until all processes have had as many.

    Processes that share layers have to call the network equally often.
    """
    job, recipe, micro_batch = state.job, state.job.recipe, state.learner.micro_batch
    batches_each = math.ceil(math.ceil(len(job.splits.source("val")) / job.processes.count) / micro_batch)
    loaded = centre_batches(
        state.validation,
        crop=recipe.crop,
        scale=scale_in_pixels(middle_scale(recipe.scale), recipe.crop),
        batch=micro_batch,
        quarantine=state.bad_validation,
        workers=job.runtime.workers,
    )
    with closing(on_device(loaded, job.device)) as batches:
        for _ in range(batches_each):
            batch = nothing(recipe.crop, job.device)
            try:
                batch = next(batches, batch)
            except (WorkerDiedError, TooManyBadImagesError) as failure:
                failures.append(failure)
            yield batch
