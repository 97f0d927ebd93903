"""The error that steers the learning rate."""

import itertools
import math
from collections.abc import Generator, Iterable
from contextlib import closing

from verydeep.images.loader import centre_batches
from verydeep.images.on_device import DeviceBatch, nothing, on_device
from verydeep.images.tolerance import TooManyBadImagesError
from verydeep.images.workers import WorkerDiedError
from verydeep.machine.runtime import StopRequest
from verydeep.networks.scales import middle_scale, scale_in_pixels
from verydeep.training.agreement import end, settled
from verydeep.training.parallel import same_statistics
from verydeep.training.preparation import Training
from verydeep.training.saving import last_checkpoint, save_checkpoint
from verydeep.training.step import DivergedError, scores


def validation_error(training: Training, stop: StopRequest) -> float:
    """Top-1 error, or that of boxes, in percent of the validation images' centre crops at S, over all processes.

    If it is cut short, a checkpoint from which it is done again is saved, and the training ends as `agreement.end`
    says.

    Raises:
        DivergedError: scores are not finite.
        ValueError: no validation image can be used.
    """
    machinery, processes = training.machinery, training.machinery.processes
    same_statistics(machinery.net, processes)
    failures: list[Exception] = []
    wrong = seen = 0
    finite = True
    for batch in _batches(training, failures):
        if (stop.signal is not None or failures) and not machinery.fc_parallel:
            break
        outputs = scores(machinery, batch.images)
        finite = finite and bool(outputs.isfinite().all())
        wrong += int(machinery.objective.wrong(outputs, batch).sum())
        seen += len(batch.labels)
    failures += settled(training.bad_validation, processes)
    told = processes.gathered([wrong, seen, not finite, bool(failures), stop.signal or 0]).long()
    wrong, seen, unusual, failed, _ = told.sum(0).tolist()
    if failed or told[:, -1].any():
        save_checkpoint(training)
        end(training.out, failure=next(iter(failures), None), failed=told[:, 3].tolist(), signal=int(told[:, -1].max()))
    if unusual:
        raise DivergedError(
            f"training diverged: scores of validation images are not finite after step {training.position.step - 1}; "
            f"{last_checkpoint(training.out)}: train again in another folder with a lower learning rate"
        )
    if not seen:
        raise ValueError("none of the validation images can be used")
    return 100 * wrong / seen


def _batches(training: Training, failures: list[Exception]) -> Generator[DeviceBatch]:
    """This process's share; then, and after a failure, batches of nothing until all processes have had as many.

    Who shares layers has to call the network as often as the others.
    """
    recipe, machinery = training.recipe, training.machinery
    batches = centre_batches(
        training.validation,
        crop=recipe.crop,
        scale=scale_in_pixels(middle_scale(recipe.scale), recipe.crop),
        batch=machinery.micro_batch,
        quarantine=training.bad_validation,
        workers=training.workers,
    )
    share = math.ceil(training.validation_images / machinery.processes.count)
    with closing(on_device(batches, machinery.device)) as shown:
        forever = itertools.chain(
            _until_failure(shown, failures), itertools.repeat(nothing(recipe.crop, machinery.device))
        )
        yield from itertools.islice(forever, math.ceil(share / machinery.micro_batch))


def _until_failure(shown: Iterable[DeviceBatch], failures: list[Exception]) -> Generator[DeviceBatch]:
    try:
        yield from shown
    except (WorkerDiedError, TooManyBadImagesError) as failure:
        failures.append(failure)
