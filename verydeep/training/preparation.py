"""Everything before the first step: images, first weights, the learner, where to go on; and lines about it."""

import math
import time

import torch

from verydeep.images.colour import SAMPLE, ColourStatistics, colour_statistics, shift_components
from verydeep.images.crops import TrainingView
from verydeep.images.quarantine import Quarantine
from verydeep.images.rescaled import RescaledImages
from verydeep.images.scan import check_images
from verydeep.images.sources.derived import Subset
from verydeep.machine.processes import processes_here
from verydeep.presentation.numbers import counted, decimal, millions, number
from verydeep.runs.files import CHECKPOINTS, QUARANTINE
from verydeep.runs.record import is_begun
from verydeep.training.checkpoint import Progress, load_latest
from verydeep.training.first_weights import initial_network
from verydeep.training.job import TrainingJob, begin_run
from verydeep.training.learner import Learner, learner_of
from verydeep.training.parallel import bytes_sent
from verydeep.training.state import TrainingState


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
        view=TrainingView(
            crop=job.recipe.crop,
            scale=job.recipe.side_range,
            flip=job.recipe.flip,
            colour_sd=job.recipe.colour_sd,
            colour_components=shift_components(colour.covariance),
        ),
        validation=_validation_share(job),
        bad_images=quarantines[0],
        bad_validation=quarantines[1],
        saved=time.monotonic(),
    )
    step = state.progress.step
    lines = [*damaged, *_about_training(job, learner), *notes, _about_colours(job, colour)]
    lines += [
        f"left out {counted(len(bad.reasons), 'image')} of {bad.split} that cannot be used: {job.out / QUARANTINE}"
        for bad in quarantines
        if bad.reasons
    ]
    return state, [*lines, f"resumed at step {step}" if step else str(initialisation)]


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


def _validation_share(job: TrainingJob) -> RescaledImages:
    """Return this process's share of the validation images."""
    images, processes = job.splits.source("val"), job.processes
    share = Subset(source=images, indices=tuple(range(processes.rank, len(images), processes.count)))
    return RescaledImages(share, max_pixels=job.tolerance.max_pixels)


def _about_training(job: TrainingJob, learner: Learner) -> list[str]:
    """Say what is trained, how its steps are computed and, of several processes, what they send each other."""
    recipe, splits = job.recipe, job.splits
    low, high = recipe.side_range
    sides = f"{low}" if low == high else f"from {low} to {high}"
    parameters = number(sum(parameter.numel() for parameter in learner.net.parameters()))
    training, validation = (number(len(splits.source(split))) for split in ("train", "val"))
    trained = (
        f"{job.architecture.network}, {parameters} parameters; {training} training and {validation} validation images "
        f"in {len(splits.classes)} classes; crop {recipe.crop}, S {sides} pixels"
    )
    return [trained, _about_computing(job, learner), *_about_exchange(job, learner)]


def _about_computing(job: TrainingJob, learner: Learner) -> str:
    count, batch = job.processes.count, job.recipe.batch
    pieces = math.ceil(math.ceil(batch / count) / learner.micro_batch)
    float32 = f"float32{' (TF32 products)' if learner.tf32 else ''}"
    return ", ".join(
        [
            f"on {job.device}" + (f" and {count - 1} more" if count > 1 else ""),
            "bfloat16 products" if learner.bf16 else float32,
            "channels last",
            *(["compiled"] if job.execution.compile else []),
            *([f"batches of {batch} in {pieces} pieces of {learner.micro_batch}"] if pieces > 1 else []),
        ]
    )


def _about_exchange(job: TrainingJob, learner: Learner) -> list[str]:
    if not job.processes.several:
        return []
    net, count, batch = learner.net, job.processes.count, job.recipe.batch
    plain, sharded = (
        millions(bytes_sent(net, count, batch=batch, fc_parallel=shared, bf16=learner.bf16)) for shared in (False, True)
    )
    here, other, word = (sharded, plain, "without") if job.execution.fc_parallel else (plain, sharded, "with")
    return [f"each process sends {here} MB a step ({other} {word} --fc-parallel)"]


def _about_colours(job: TrainingJob, colour: ColourStatistics) -> str:
    """Say the mean colour and how many images it was computed from."""
    sampled = ", a seeded sample" if len(job.splits.source("train")) > SAMPLE else ""
    mean = ", ".join(decimal(value, 1) for value in colour.mean)
    kept = "; the network keeps that of its first training" if job.recipe.finetune else ""
    return f"mean RGB {mean} of {number(colour.images)} training images{sampled}{kept}"
