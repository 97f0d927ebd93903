"""Cost of the grid before it is trained, from a short measurement on the images themselves."""

from collections.abc import Sequence
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
    """Cost of one training with one seed."""

    training: str
    start: str | None
    """The training that it starts from."""
    trained: bool
    """Whether it is done already and so costs nothing."""
    epochs: int
    """At most; the schedule usually ends earlier."""
    seconds: float
    """At most, also if it is done already."""
    memory_bytes: int
    """Memory of the device: measured on CUDA, elsewhere weights, gradients, momentum and activations added up."""

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
) -> list[TrainingEstimate]:
    """Estimate the cost of each training of a grid in `out`; write nothing.

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
            estimated.append(_estimate(training, out, recipe, epoch=epoch, memory=memory))
            report.advance()
    return estimated


def _estimate(training: GridTraining, out: Path, recipe: Recipe, *, epoch: float, memory: int) -> TrainingEstimate:
    """Return the cost of a training, given the seconds of an epoch and the bytes of a step."""
    epochs = recipe_on_part(recipe, training.one_in).epochs
    return TrainingEstimate(
        training=training.name,
        start=training.start,
        trained=has_ended(out / training.name),
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
            "already trained" if one.trained else f"at most {duration(one.seconds)}",
            f"{billions(one.memory_bytes)} GB",
        )
    table.add_section()
    table.add_row("all" if seeds == 1 else f"all, {seeds} seeds", "", "", f"at most {duration(seconds)}", "")
    return table
