"""The verb `train`."""

from dataclasses import asdict
from pathlib import Path
from typing import Any

from verydeep.commands.options import ExecutionOptions, ImageOptions, RecipeOptions, RunFolderOptions, RuntimeOptions
from verydeep.images.tolerance import Tolerance
from verydeep.machine.processes import rank_of_environment
from verydeep.machine.runtime import Execution, Runtime
from verydeep.presentation.terminal import show
from verydeep.training.recipe import Recipe
from verydeep.training.tables import training_end, training_table


def train(
    source: str = "digits",
    *,
    network: str | None = None,
    held_out: float | None = None,
    run: RunFolderOptions,
    recipe: RecipeOptions = Recipe(),
    images: ImageOptions = Tolerance(),
    runtime: RuntimeOptions = Runtime(),
    execution: ExecutionOptions = Execution(),
) -> None:
    """Train a network by the paper's recipe and leave a run folder.

    Args:
        source: A folder, tar shards, hub:NAME or digits (see verydeep --help).
        network: A, A-LRN, B, B-5x5, C, D or E. Required unless --finetune names a run, whose network it then is.
        held_out: Share of each class's training images, 0.125 say, that the learning rate follows, always the same
            ones, so that the validation images can test. Without it, it follows the validation images.
    """
    from verydeep.training.loop import train as train_network

    folder = train_network(
        source,
        network=network,
        out=run.out,
        recipe=recipe,
        held_out=held_out,
        runtime=runtime,
        execution=execution,
        tolerance=images,
        resume=run.resume,
    )
    show_training(folder, run.json_file)


def show_training(folder: Path, json_file: Path | None, **more: Any) -> None:
    """Show the last and the best epoch of a run and what it could not use; `more` goes into the JSON.

    Raises:
        OSError: the run has lost its metrics.
    """
    if rank_of_environment():
        return  # the first process shows the figures
    end = training_end(folder)
    show({**asdict(end), **more}, json_file, training_table(end))
