"""Cost of a training, as `train` says it before the first step, and `train --dry-run` without one."""

import signal
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.table import Table

from verydeep.commands.starting_point import QUICK
from verydeep.machine.errors import say
from verydeep.machine.signal_watch import signals_seen_by
from verydeep.machine.torchrun import rank_of_environment
from verydeep.numbers import counted, millions, number, rough_duration, size, trimmed
from verydeep.presentation.terminal import show, table_with
from verydeep.training.recipe import Recipe

if TYPE_CHECKING:
    from verydeep.images.sources.splits import Splits
    from verydeep.training.cost import TrainingCost

_MINUTE = 60.0

_WORTH_MEASURING = _MINUTE
"""Seconds of a training below which nothing is measured."""

_LONG = 3600.0
"""Seconds from which a smaller training is named too."""


def say_cost(splits: "Splits", network: str, recipe: Recipe, **how: Any) -> None:
    """Say how long a training on a CPU takes, unless it is surely short; if it is long, also with --quick.

    Raises:
        ValueError: unusable recipe or images.
    """
    from verydeep.machine.runtime import torch_device
    from verydeep.training.cost import is_surely_short

    device = torch_device(how["runtime"].device).type
    tolerance = how["tolerance"]
    if device != "cpu" or is_surely_short(splits, network, recipe, tolerance, seconds=_WORTH_MEASURING):
        return
    say("measuring a few steps")
    with signals_seen_by(_answer):
        say(_about_cost(splits, network, recipe, **how))


def _answer(number: int) -> None:
    """Say at once that a Ctrl-C was seen: a step of a large network takes many seconds."""
    if number == signal.SIGINT:
        say("stopping after this step; again to quit at once")


def _about_cost(splits: "Splits", network: str, recipe: Recipe, **how: Any) -> str:
    from verydeep.training.cost import training_cost

    seconds = training_cost(splits, network, recipe, **how).seconds
    line = f"{_at_most(seconds)} on this CPU, by a short measurement"
    if seconds > _LONG and recipe.taken_over is None:
        small = Recipe(**{name: value for name, value in QUICK.items() if name != "network"})
        quick = training_cost(splits, QUICK["network"], small, **how).seconds
        line += f": --quick (crop {small.crop}, width {trimmed(small.width)}) takes about {rough_duration(quick)}"
    return line


def _at_most(seconds: float) -> str:
    return f"{'' if seconds < _MINUTE else 'at most '}{rough_duration(seconds)}"


def show_dry_run(splits: "Splits", network: str, recipe: Recipe, json_file: Path | None, **how: Any) -> None:
    """Show images, classes, steps, time and memory of a training, in the first process, and write nothing.

    Raises:
        ValueError: unusable recipe or images.
    """
    if rank_of_environment():
        return
    from verydeep.training.cost import training_cost

    with signals_seen_by(_answer):
        cost = training_cost(splits, network, recipe, **how)
    show(cost.to_dict(), json_file, _cost_table(cost))


def _cost_table(cost: "TrainingCost") -> Table:
    table = table_with("What would be trained", left=("", ""), right=())
    table.show_header = False
    input_and_width = f"crop {cost.crop}, width {trimmed(cost.width)}"
    rows = {
        "network": f"{cost.network}, {input_and_width}, {millions(cost.parameters)} M parameters",
        "images": f"{number(cost.training_images)} for training, {number(cost.validation_images)} for validation",
        "classes": number(cost.classes),
        "steps": f"{counted(cost.epochs, 'epoch')} of {counted(cost.steps_per_epoch, 'step')} at most",
        "time": f"{_at_most(cost.seconds)}, measured on a few images",
        "memory": f"about {size(cost.memory_bytes)}",
        "disk": f"up to {size(cost.checkpoint_bytes)} of checkpoints, which are removed at the end; "
        f"{size(cost.model_bytes)} stay",
    }
    for name, value in rows.items():
        table.add_row(name, value)
    return table
