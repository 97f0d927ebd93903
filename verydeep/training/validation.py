"""The error that steers the learning rate."""

import itertools
import math
from contextlib import closing

from verydeep.images.loader import centre_batches
from verydeep.images.on_device import nothing, on_device
from verydeep.networks.scales import middle_scale, scale_in_pixels
from verydeep.runtime import StopRequest
from verydeep.training.parallel import same_statistics
from verydeep.training.preparation import Training
from verydeep.training.saving import last_checkpoint
from verydeep.training.step import DivergedError, scores


def validation_error(training: Training, stop: StopRequest) -> tuple[float, int]:
    """Top-1 error in percent of the validation images' centre crops at S; and the signal that cut it short, or 0."""
    recipe, machinery, processes = training.recipe, training.machinery, training.machinery.processes
    batches = centre_batches(
        training.validation,
        crop=recipe.crop,
        scale=scale_in_pixels(middle_scale(recipe.scale), recipe.crop),
        batch=machinery.micro_batch,
        quarantine=training.bad_validation,
        workers=training.workers,
    )
    # Who shares layers calls the network as often as the others: this often.
    calls = math.ceil(math.ceil(training.validation_images / processes.count) / machinery.micro_batch)
    same_statistics(machinery.net, processes)
    wrong = seen = 0
    finite = True
    with closing(on_device(batches, machinery.device)) as shown:
        for batch in itertools.islice(
            itertools.chain(shown, itertools.repeat(nothing(recipe.crop, machinery.device))), calls
        ):
            if stop.signal is not None and not machinery.fc_parallel:
                break
            logits = scores(machinery, batch.images)
            finite = finite and bool(logits.isfinite().all())
            wrong += int((logits.argmax(1) != batch.labels).sum())
            seen += len(batch.labels)
    everyone = processes.gathered([wrong, seen, not finite, stop.signal or 0]).int()
    wrong, seen, unusual, _ = everyone.sum(0).tolist()
    signal = int(everyone[:, 3].max())
    if unusual:
        raise DivergedError(
            f"training diverged: scores of validation images are not finite; {last_checkpoint(training.out)}: train "
            "again in another folder with a lower learning rate"
        )
    if not seen and not signal:
        raise ValueError("none of the validation images can be used")
    return 100 * wrong / max(1, seen), signal
