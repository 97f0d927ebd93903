"""Cost of the grid before it is trained, from a short measurement on the images themselves."""

from collections.abc import Collection, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cache, partial
from pathlib import Path
from typing import Any

from rich.table import Table

from verydeep.images.sources.splits import Splits
from verydeep.images.tolerance import Tolerance
from verydeep.machine.runtime import Execution, Runtime
from verydeep.numbers import billions, duration
from verydeep.presentation.terminal import reporting, table_with
from verydeep.reproduction.grid import Grid
from verydeep.reproduction.studies import recipe_on_part
from verydeep.reproduction.training_task import has_ended
from verydeep.reproduction.trainings import GridTraining
from verydeep.training.cost import FORWARD_SHARE, job_to_measure, measured_loading, measured_step, seconds_per_image
from verydeep.training.recipe import Recipe


@dataclass(frozen=True, kw_only=True)
class TrainingEstimate:
    """Cost of one training, with each of its seeds."""

    training: str
    start: str | None
    """The training that it starts from."""
    seeds: int
    """Seeds that it is to have."""
    seeds_trained: int
    """Those of them with which it is done already and so costs nothing."""
    epochs: int
    """At most; the schedule usually ends earlier."""
    seconds: float
    """At most, with one seed, also if it is done already."""
    memory_bytes: int
    """Memory of the device: measured on CUDA, elsewhere weights, gradients, momentum and activations added up."""

    @property
    def said(self) -> str:
        """What it costs, in words: `at most 3:20, 1 of 5 seeds trained`."""
        if self.seeds_trained == self.seeds:
            return "already trained"
        some = f", {self.seeds_trained} of {self.seeds} seeds trained" if self.seeds_trained else ""
        return f"at most {duration(self.seconds)}{some}"

    def to_dict(self) -> dict[str, Any]:
        """Return a plain dictionary, ready for JSON."""
        return asdict(self)


def estimates(
    splits: Splits,
    *,
    folders: Collection[Path],
    recipe: Recipe,
    grid: Grid,
    runtime: Runtime,
    execution: Execution,
    tolerance: Tolerance,
) -> list[TrainingEstimate]:
    """Estimate the cost of each training of a grid, whose seeds have these folders; write nothing.

    A step of every network is timed, and the loading of images at every S. Loading and computing add up without
    workers, otherwise the slower counts.

    Raises:
        ValueError: unusable recipe or images.
    """
    job_of = partial(job_to_measure, recipe=recipe, runtime=runtime, execution=execution, tolerance=tolerance)
    step = cache(lambda network: measured_step(job_of(splits, network)))
    load = cache(lambda scale: measured_loading(splits.source("train"), replace(recipe, scale=scale), tolerance))
    estimated, trainings = [], (*grid.trainings, *grid.studied)
    with reporting("measure", total=len(trainings)) as report:
        for training in trainings:
            computing, memory = step(training.network)
            epoch = _epoch(splits, training, computing, load(training.scale), runtime.workers)
            estimated.append(_estimate(training, folders, recipe, epoch=epoch, memory=memory))
            report.advance()
    return estimated


def _estimate(
    training: GridTraining, folders: Collection[Path], recipe: Recipe, *, epoch: float, memory: int
) -> TrainingEstimate:
    """Return the cost of a training, given the seconds of an epoch and the bytes of a step."""
    epochs = recipe_on_part(recipe, training.one_in).epochs
    return TrainingEstimate(
        training=training.name,
        start=training.start,
        seeds=len(folders),
        seeds_trained=sum(has_ended(folder / training.name) for folder in folders),
        epochs=epochs,
        seconds=epochs * epoch,
        memory_bytes=memory,
    )


def _epoch(splits: Splits, training: GridTraining, computing: float, loading: float, workers: int) -> float:
    """Return the seconds of an epoch, given those that an image takes to be computed and to be loaded."""
    image = seconds_per_image(computing, loading, workers)
    check = seconds_per_image(FORWARD_SHARE * computing, loading, workers)
    return len(splits.source("train")) / training.one_in * image + len(splits.source("val")) * check


def costs_table(estimates: Sequence[TrainingEstimate], *, seeds: int, seconds: float) -> Table:
    """Return a table of the trainings of a grid with their costs, and the cost of all seeds together."""
    table = table_with("What would be trained", left=("training", "starts from"), right=("epochs", "time", "memory"))
    for one in estimates:
        table.add_row(
            one.training,
            one.start or "random weights",
            f"at most {one.epochs}",
            one.said,
            f"{billions(one.memory_bytes)} GB",
        )
    table.add_section()
    table.add_row("all" if seeds == 1 else f"all, {seeds} seeds", "", "", f"at most {duration(seconds)}", "")
    return table
