"""The end of a training, read from its run folder, and a table of it."""

import math
from dataclasses import dataclass
from pathlib import Path

from rich.table import Table
from rich.text import Text

from verydeep.box_regression import Regression
from verydeep.numbers import FINE, counted, decimal, percent
from verydeep.presentation.terminal import table_with
from verydeep.runs.files import BEST, QUARANTINE
from verydeep.runs.record import EpochMetrics, best_epoch, read_metrics, read_record
from verydeep.training.guessing import is_guessing, what_may_help
from verydeep.training.recipe import Recipe, recipe_from


@dataclass(frozen=True, kw_only=True)
class TrainingEnd:
    """The last and the best epoch of a training, and the images that it could not use."""

    run: str
    network: str
    classes: int
    last: EpochMetrics
    best: EpochMetrics
    """The epoch with the lowest validation error."""
    unusable: list[dict[str, str]]
    """Split, image and reason."""
    recipe: Recipe
    regression: Regression | None = None
    """Kind of boxes, if it does not classify."""


def training_end(run: Path) -> TrainingEnd:
    """Read the end of a training from its run folder.

    Raises:
        OSError: the run's metrics are missing.
        ValueError: a newer version wrote its recipe.
    """
    from verydeep.images.quarantine import read_quarantine

    epochs = read_metrics(run)
    if not epochs:
        raise OSError(f"{run}: its metrics are missing, but its model is intact")
    record = read_record(run)
    return TrainingEnd(
        run=str(run),
        network=record.network,
        classes=len(record.classes),
        last=epochs[-1],
        best=best_epoch(epochs),
        unusable=read_quarantine(run / QUARANTINE),
        recipe=recipe_from(record.recipe),
        regression=record.regression,
    )


def training_table(end: TrainingEnd) -> Table:
    """Return the table of the verb `train`."""
    table = table_with(f"{end.network} in {end.run}", left=("after epoch",), right=("loss", "training error, %"))
    table.add_column("validation error, %", justify="right")
    both = (end.last, end.best)
    balanced = any(_class_balanced(one) not in (None, percent(one.validation_error, FINE)) for one in both)
    if balanced:
        table.add_column("class-balanced, %", justify="right")
    for name, metrics in zip(("last", "best"), both, strict=True):
        table.add_row(
            f"{metrics.epoch} ({name})",
            decimal(metrics.loss, 3),
            percent(metrics.training_error, FINE),
            percent(metrics.validation_error, FINE),
            *([_class_balanced(metrics)] if balanced else []),
        )
    notes = [_about_models(end), *_about_guessing(end)]
    if balanced:
        notes.append("Class-balanced: the mean of the classes' validation errors.")
    if end.unusable:
        notes.append(f"{counted(len(end.unusable), 'image')} could not be used: {end.run}/{QUARANTINE}.")
    table.caption = Text(" ".join(notes))
    return table


def _class_balanced(metrics: EpochMetrics) -> str | None:
    """Return the class-balanced error; None of runs that did not note it."""
    error = metrics.class_balanced_error
    return None if error is None else percent(error, FINE)


def _about_guessing(end: TrainingEnd) -> list[str]:
    """Say so if the last loss is nearly that of an answer that is the same for every image; nothing about boxes."""
    guessing = end.last.guessing_loss or math.log(end.classes)
    if end.regression is not None or not is_guessing(end.last.loss, guessing, end.recipe, end.classes):
        return []
    classes = counted(end.classes, "class", "classes")
    return [
        f"The loss is nearly that of guessing among {classes}, {decimal(guessing, 3)}: the network has learned little; "
        f"{what_may_help(end.recipe, end.network)}."
    ]


def _about_models(end: TrainingEnd) -> str:
    """Say which network the run's name stands for, and where the best one is."""
    if end.best.epoch == end.last.epoch:
        return f"{end.run} is the network after the last epoch, which is the best."
    return (
        f"{end.run} is the network after the last epoch, as in the paper; {end.run}/{BEST} is the one with the lowest "
        "validation error; commands use whichever you name."
    )
