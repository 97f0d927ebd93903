"""Lines that say, before the first step, what is trained, on what, and how it is computed."""

import math
from collections.abc import Iterable

from verydeep.images.colour import SAMPLE, ColourStatistics
from verydeep.images.quarantine import Quarantine
from verydeep.networks.scales import scale_in_pixels, scale_range
from verydeep.presentation.numbers import counted, decimal, millions, number
from verydeep.runs.files import QUARANTINE
from verydeep.training.job import TrainingJob
from verydeep.training.learner import Learner
from verydeep.training.parallel import bytes_sent


def about_training(job: TrainingJob, learner: Learner) -> list[str]:
    """Say what is trained, how its steps are computed and, of several processes, what they send each other."""
    recipe, splits = job.recipe, job.splits
    low, high = (scale_in_pixels(scale, recipe.crop) for scale in scale_range(recipe.scale))
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
    here, other, word = (sharded, plain, "without") if learner.fc_parallel else (plain, sharded, "with")
    return [f"each process sends {here} MB a step ({other} {word} --fc-parallel)"]


def about_colours(job: TrainingJob, colour: ColourStatistics) -> str:
    """Say the mean colour and how many images it was computed from."""
    sampled = ", a seeded sample" if len(job.splits.source("train")) > SAMPLE else ""
    mean = ", ".join(decimal(value, 1) for value in colour.mean)
    kept = "; the network keeps that of its first training" if job.recipe.finetune else ""
    return f"mean RGB {mean} of {number(colour.images)} training images{sampled}{kept}"


def about_quarantines(job: TrainingJob, quarantines: Iterable[Quarantine]) -> list[str]:
    """Say how many images of each split cannot be used."""
    return [
        f"left out {counted(len(bad.reasons), 'image')} of {bad.split} that cannot be used: {job.out / QUARANTINE}"
        for bad in quarantines
        if bad.reasons
    ]
