"""Cost of the grid before it is trained, from a short measurement on the images themselves."""

from collections.abc import Sequence
from contextlib import closing
from dataclasses import asdict, dataclass, replace
from functools import cache, partial
from itertools import islice
from pathlib import Path
from timeit import timeit
from typing import Any

import numpy as np
import torch
from rich.table import Table

from verydeep.images.crops import TrainingView
from verydeep.images.loader import DeviceBatch, training_batches
from verydeep.images.quarantine import Quarantine
from verydeep.images.sources.source import Source
from verydeep.images.sources.splits import Splits
from verydeep.images.tolerance import Tolerance
from verydeep.machine.processes import Processes
from verydeep.machine.runtime import Execution, Runtime, torch_device
from verydeep.networks.arithmetic import FLOAT32_BYTES, describe
from verydeep.networks.initialisation import initialise
from verydeep.networks.vgg import VGG
from verydeep.presentation.numbers import billions, duration
from verydeep.presentation.terminal import reporting, table_with
from verydeep.reproduction.grid import Grid
from verydeep.reproduction.studies import recipe_on_part
from verydeep.reproduction.training_task import has_ended
from verydeep.reproduction.trainings import GridTraining
from verydeep.training.job import TrainingJob
from verydeep.training.learner import Learner, learner_of
from verydeep.training.precision import with_precision
from verydeep.training.recipe import Recipe
from verydeep.training.step import descend

_IMAGES_TRIED = 16
"""Images of a step on a CPU, and of the source: enough, since larger batches gain little there."""

_STEPS = 2
"""Steps that are timed, after one that is not."""

_FORWARD_SHARE = 1 / 3
"""Forward pass within a step: one of three, the others go backward."""

_COPIES = 3
"""Copies of the weights: themselves, gradients, momentum."""


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """Cost of one training with one seed."""

    training: str
    start: str | None
    """The training that it starts from."""
    trained: bool
    """Whether it is done already, and costs nothing."""
    epochs: int
    """At most; the schedule mostly ends earlier."""
    seconds: float
    """At most."""
    memory_bytes: int
    """Of the device: measured on CUDA, elsewhere weights, gradients, momentum and activations added up."""

    def to_dict(self) -> dict[str, Any]:
        """Return a plain dictionary, ready for JSON."""
        return asdict(self)


def estimates(
    splits: Splits,
    *,
    out: Path,
    recipe: Recipe,
    grid: Grid,
    runtime: Runtime,
    execution: Execution,
    tolerance: Tolerance,
) -> list[Estimate]:
    """Estimate what each training of a grid in `out` takes; write nothing.

    A step of every network is timed, and the loading of images at every S. Loading and computing add up without
    workers, otherwise the slower counts.

    Raises:
        ValueError: unusable recipe or images.
    """
    job_of = partial(
        TrainingJob,
        recipe=recipe,
        splits=splits,
        runtime=runtime,
        execution=execution,
        tolerance=tolerance,
        out=Path(),
        device=torch_device(runtime.device),
        processes=Processes(),
    )
    step = cache(lambda network: _step(job_of(network=network)))
    load = cache(lambda scale: _load(splits.source("train"), replace(recipe, scale=scale), tolerance))
    estimated, trainings = [], (*grid.trainings, *grid.studied)
    with reporting("measure", total=len(trainings)) as report:
        for training in trainings:
            epochs = recipe_on_part(recipe, training.one_in).epochs
            (computing, memory), loading = step(training.network), load(training.scale)
            estimated.append(
                Estimate(
                    training=training.name,
                    start=training.start,
                    trained=has_ended(out / training.name),
                    epochs=epochs,
                    seconds=epochs * _epoch(splits, training, computing, loading, runtime.workers),
                    memory_bytes=memory,
                )
            )
            report.advance()
    return estimated


def _epoch(splits: Splits, training: GridTraining, computing: float, loading: float, workers: int) -> float:
    """Return the seconds of an epoch, given those that an image takes to be computed and to be loaded."""
    image = max(computing, loading / workers) if workers else computing + loading
    check = _FORWARD_SHARE * computing + loading / max(1, workers)
    return len(splits.source("train")) / training.one_in * image + len(splits.source("val")) * check


def _step(job: TrainingJob) -> tuple[float, int]:
    """Measure the seconds per image of a step, and the bytes that it takes."""
    recipe, classes, device = job.recipe, len(job.splits.classes), job.device
    net = VGG(job.architecture, dropout=recipe.dropout)
    initialise(net)
    learner = learner_of(with_precision(job, net), net)
    images = recipe.batch if device.type == "cuda" else min(recipe.batch, _IMAGES_TRIED)
    batch = DeviceBatch(
        torch.zeros(images, 3, recipe.crop, recipe.crop, device=device).to(memory_format=torch.channels_last),
        torch.arange(images, device=device),
        torch.arange(images, device=device) % classes,
    )
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    step = partial(descend, learner, batch, step=0, rate=0.0, usable=[images])
    step()
    return min(timeit(step, number=1) for _ in range(_STEPS)) / images, _memory(learner, job)


def _memory(learner: Learner, job: TrainingJob) -> int:
    if job.device.type == "cuda":
        return torch.cuda.max_memory_allocated(job.device)
    size = describe(job.architecture, batch=learner.micro_batch)
    return _COPIES * FLOAT32_BYTES * size.parameters + 2 * size.activation_bytes


def _load(source: Source, recipe: Recipe, tolerance: Tolerance) -> float:
    """Measure the seconds per image that one process takes to decode and crop."""
    view = TrainingView(
        crop=recipe.crop, scale=recipe.side_range, flip=recipe.flip, colour_sd=0.0, colour_components=np.zeros((3, 3))
    )
    images = min(len(source), _IMAGES_TRIED)
    quarantine = Quarantine(len(source), tolerance, split="train")
    batches = training_batches(source, view, batch=images, epochs=1 + _STEPS, seed=recipe.seed, quarantine=quarantine)
    with closing(batches):
        next(batches)
        return timeit(lambda: list(islice(batches, 1)), number=1) / images


def plan_table(estimates: Sequence[Estimate], *, seeds: int, seconds: float) -> Table:
    """Return a table of the trainings of a grid with their costs, and of what all seeds cost together."""
    table = table_with("What would be trained", left=("training", "starts from"), right=("epochs", "time", "memory"))
    for one in estimates:
        table.add_row(
            one.training,
            one.start or "random weights",
            f"at most {one.epochs}",
            "already trained" if one.trained else f"at most {duration(one.seconds)}",
            f"{billions(one.memory_bytes)} GB",
        )
    table.add_section()
    table.add_row("all" if seeds == 1 else f"all, {seeds} seeds", "", "", f"at most {duration(seconds)}", "")
    return table
