"""Everything before the first step: images, first weights, the learner, and where a stopped training goes on."""

import time

import torch

from verydeep.images.colour import ColourStatistics, colour_statistics, shift_components
from verydeep.images.crops import TrainingView
from verydeep.images.quarantine import Quarantine
from verydeep.images.rescaled import RescaledImages
from verydeep.images.scan import check_images
from verydeep.images.sources.derived import Subset
from verydeep.machine.processes import processes_here
from verydeep.networks.scales import scale_in_pixels, scale_range
from verydeep.runs.files import CHECKPOINTS, QUARANTINE
from verydeep.runs.record import is_begun
from verydeep.training.checkpoint import Progress, load_latest
from verydeep.training.first_weights import initial_network
from verydeep.training.job import TrainingJob
from verydeep.training.learner import learner_of
from verydeep.training.run_folder import begin_run
from verydeep.training.state import TrainingState
from verydeep.training.summary import about_colours, about_quarantines, about_training


def prepare(job: TrainingJob) -> tuple[TrainingState, list[str]]:
    """Return a training ready for its next step, and lines that tell about it; write `run.json` if it is new."""
    net, initialisation, notes = initial_network(job)
    job.processes.from_first(lambda: None if is_begun(job.out) else begin_run(job, initialisation))
    quarantines = [_quarantine(job, split) for split in ("train", "val")]
    colour = _look_through(job, *quarantines)
    if job.recipe.finetune is None:
        net.mean_rgb.copy_(torch.tensor(colour.mean))
    checkpoint, damaged = job.processes.from_first(lambda: load_latest(job.out / CHECKPOINTS))
    if checkpoint is not None:
        net.load_state_dict(checkpoint.weights)
    learner = learner_of(job, net, checkpoint)
    state = TrainingState(
        job=job,
        learner=learner,
        progress=checkpoint.progress if checkpoint is not None else Progress(),
        view=_view(job, colour),
        validation=_validation_share(job),
        bad_images=quarantines[0],
        bad_validation=quarantines[1],
        saved=time.monotonic(),
    )
    step = state.progress.step
    lines = [*damaged, *about_training(job, learner), *notes, about_colours(job, colour)]
    lines += [*about_quarantines(job, quarantines), f"resumed at step {step}" if step else str(initialisation)]
    return state, lines


def _quarantine(job: TrainingJob, split: str) -> Quarantine:
    file = job.out / QUARANTINE if job.processes.first else None
    return Quarantine(len(job.splits.source(split)), job.tolerance, split=split, file=file)


def _look_through(job: TrainingJob, bad_images: Quarantine, bad_validation: Quarantine) -> ColourStatistics:
    """Return the colours of the training images, and find images that cannot be used; one process looks for all."""
    splits, workers = job.splits, job.runtime.workers * processes_here()

    def look() -> tuple[ColourStatistics, list[dict[str, str]]]:
        colour = colour_statistics(splits.source("train"), quarantine=bad_images, workers=workers)
        check_images(splits.source("val"), quarantine=bad_validation, workers=workers)
        return colour, [bad_images.reasons, bad_validation.reasons]

    colour, reasons = job.processes.from_first(look)
    for quarantine, known in zip((bad_images, bad_validation), reasons, strict=True):
        quarantine.reasons.update(known)
        quarantine.waits = job.processes.several
    return colour


def _view(job: TrainingJob, colour: ColourStatistics) -> TrainingView:
    recipe = job.recipe
    low, high = (scale_in_pixels(scale, recipe.crop) for scale in scale_range(recipe.scale))
    return TrainingView(
        crop=recipe.crop,
        scale=(low, high),
        flip=recipe.flip,
        colour_sd=recipe.colour_sd,
        colour_components=shift_components(colour.covariance),
    )


def _validation_share(job: TrainingJob) -> RescaledImages:
    """Return this process's share of the validation images."""
    images, processes = job.splits.source("val"), job.processes
    share = Subset(source=images, indices=tuple(range(processes.rank, len(images), processes.count)))
    return RescaledImages(share, max_pixels=job.tolerance.max_pixels)
