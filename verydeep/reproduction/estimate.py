"""What the grid will cost, from a short measurement on the images themselves."""

import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import asdict, dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch

from verydeep.images.loader import TrainingView, training_batches
from verydeep.images.on_device import DeviceBatch
from verydeep.images.quarantine import Quarantine
from verydeep.images.sources.source import Source, Splits
from verydeep.images.tolerance import Tolerance
from verydeep.machine.processes import Processes
from verydeep.machine.runtime import Execution, Runtime, torch_device
from verydeep.networks.arithmetic import FLOAT32_BYTES, describe
from verydeep.networks.scales import scale_in_pixels, scale_range
from verydeep.networks.vgg import vgg
from verydeep.presentation.progress import reporting
from verydeep.reproduction.grid import Grid
from verydeep.reproduction.trainings import GridTraining
from verydeep.runs.record import is_finished
from verydeep.training.job import Order
from verydeep.training.machinery import assemble
from verydeep.training.recipe import Recipe
from verydeep.training.step import Machinery, descend

IMAGES_TRIED = 16
"""In a step on a CPU, and of the source: enough, for batches bring little there."""

STEPS = 2
"""That are timed, after one that is not."""

FORWARD_SHARE = 1 / 3
"""Of a step: one of three passes, the others backward."""

COPIES = 3
"""Of the weights: themselves, gradients, momentum."""


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """Of one training, for one seed."""

    training: str
    start: str | None
    """The training that it starts from."""
    trained: bool
    """It is there already: it costs nothing."""
    epochs: int
    """At most; the schedule mostly ends earlier."""
    seconds: float
    """At most."""
    memory_bytes: int
    """Of the device: measured on CUDA, elsewhere weights, gradients, momentum and activations added up."""

    def to_dict(self) -> dict[str, Any]:
        """The same as a plain dictionary, ready for JSON."""
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
    """What each training of a grid in `out` takes; nothing is written.

    A step of every network is timed, and the loading of images at every S. Loading and computing add up without
    workers, else the slower counts.

    Raises:
        ValueError: unusable recipe or images.
    """
    device, train = torch_device(runtime.device), splits.part("train")
    steps: dict[str, tuple[float, int]] = {}
    loads: dict[str, float] = {}
    found = []
    with reporting("measure", total=len(grid.trainings)) as report:
        for training in grid.trainings:
            own = replace(recipe, scale=training.scale)
            if training.network not in steps:
                order = _order(training, splits, own, (runtime, execution, tolerance), device)
                steps[training.network] = _step(order)
            if training.scale not in loads:
                loads[training.scale] = _load(train, own, tolerance)
            computing, memory = steps[training.network]
            loading = loads[training.scale]
            image = max(computing, loading / runtime.workers) if runtime.workers else computing + loading
            check = FORWARD_SHARE * computing + loading / max(1, runtime.workers)
            epoch = len(train) * image + len(splits.part("val")) * check
            found.append(
                Estimate(
                    training=training.name,
                    start=training.start,
                    trained=is_finished(out / training.name),
                    epochs=own.epochs,
                    seconds=own.epochs * epoch,
                    memory_bytes=memory,
                )
            )
            report.advance()
    return found


def _order(
    training: GridTraining,
    splits: Splits,
    recipe: Recipe,
    how: tuple[Runtime, Execution, Tolerance],
    device: torch.device,
) -> Order:
    runtime, execution, tolerance = how
    return Order(
        splits=splits,
        network=training.network,
        recipe=recipe,
        runtime=runtime,
        execution=execution,
        tolerance=tolerance,
        out=Path(),
        device=device,
        processes=Processes(),
    )


def _step(order: Order) -> tuple[float, int]:
    """Seconds per image of a step, and bytes."""
    recipe, classes, device = order.recipe, len(order.splits.classes), order.device
    net = vgg(order.network, classes, recipe.crop, recipe.batch_norm, recipe.width, recipe.dropout)
    machinery = assemble(order, net)
    images = recipe.batch if device.type == "cuda" else min(recipe.batch, IMAGES_TRIED)
    batch = DeviceBatch(
        torch.zeros(images, 3, recipe.crop, recipe.crop, device=device).to(memory_format=torch.channels_last),
        torch.arange(images, device=device),
        torch.arange(images, device=device) % classes,
    )
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    taken = [_seconds(lambda: descend(machinery, recipe, batch, step=0, rate=0.0, usable=[images]))]
    taken = [
        _seconds(lambda: descend(machinery, recipe, batch, step=0, rate=0.0, usable=[images])) for _ in range(STEPS)
    ]
    return min(taken) / images, _memory(machinery, order)


def _memory(machinery: Machinery, order: Order) -> int:
    if order.device.type == "cuda":
        return torch.cuda.max_memory_allocated(order.device)
    recipe = order.recipe
    size = describe(
        order.network,
        input=recipe.crop,
        classes=len(order.splits.classes),
        batch=machinery.micro_batch,
        width=recipe.width,
        batch_norm=recipe.batch_norm,
    )
    return COPIES * FLOAT32_BYTES * size.parameters + 2 * size.activation_bytes


def _load(source: Source, recipe: Recipe, tolerance: Tolerance) -> float:
    """Seconds per image in one process, decoded and cropped."""
    low, high = (scale_in_pixels(scale, recipe.crop) for scale in scale_range(recipe.scale))
    view = TrainingView(
        crop=recipe.crop, scale=(low, high), flip=recipe.flip, colour_sd=0.0, colour_components=np.zeros((3, 3))
    )
    images = min(len(source), IMAGES_TRIED)
    quarantine = Quarantine(len(source), tolerance, split="train")
    batches = training_batches(source, view, batch=images, epochs=1 + STEPS, seed=recipe.seed, quarantine=quarantine)
    with closing(batches):
        next(batches)
        return _seconds(lambda: list(islice(batches, 1))) / images


def _seconds(work: Callable[[], object]) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started
