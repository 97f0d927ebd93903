"""The verb `train`."""

from pathlib import Path
from typing import Any

from verydeep.commands.options import (
    ConfigFile,
    ExecutionOptions,
    ImageOptions,
    JsonFile,
    RecipeOptions,
    RuntimeOptions,
)
from verydeep.images.tolerance import Tolerance
from verydeep.machine.processes import rank_of_environment
from verydeep.machine.runtime import Execution, Runtime
from verydeep.presentation.terminal import show
from verydeep.training.recipe import Recipe
from verydeep.training.tables import training_table


def train(
    source: str = "digits",
    *,
    network: str | None = None,
    out: Path,
    resume: bool = False,
    config: ConfigFile = None,
    json_file: JsonFile = None,
    recipe: RecipeOptions = Recipe(),
    images: ImageOptions = Tolerance(),
    runtime: RuntimeOptions = Runtime(),
    execution: ExecutionOptions = Execution(),
) -> None:
    """Train a network by the paper's recipe and leave a run folder.

    Args:
        source: A folder, tar shards, hub:NAME or digits (see verydeep --help).
        network: A, A-LRN, B, B-5x5, C, D or E; with --finetune that of the run, if not said.
        out: The run folder to make.
        resume: Go on with a run that was stopped, the other options as before; begin it if it is not there.
        config: TOML file of options (learning_rate = 0.005); the command line overrides it.
        json_file: Write the last and the best epoch's figures to this file as well (- for standard output instead).
    """
    from verydeep.training.loop import train as train_network

    folder = train_network(
        source,
        network=network,
        out=out,
        recipe=recipe,
        runtime=runtime,
        execution=execution,
        tolerance=images,
        resume=resume,
    )
    if rank_of_environment():
        return  # the first process tells
    figures = training_figures(folder)
    show(figures, json_file, training_table(figures))


def training_figures(folder: Path) -> dict[str, Any]:
    """The last and the best epoch of a run, and what it could not use.

    Raises:
        OSError: the run has lost its metrics.
    """
    from verydeep.images.quarantine import read_quarantine
    from verydeep.runs.files import QUARANTINE
    from verydeep.runs.record import read_metrics, read_record

    epochs = read_metrics(folder)
    if not epochs:
        raise OSError(f"{folder} has lost its metrics; its model is good")
    return {
        "run": str(folder),
        "network": read_record(folder).network,
        "last": epochs[-1],
        "best": min(epochs, key=lambda epoch: epoch["validation_error"]),
        "unusable": read_quarantine(folder / QUARANTINE),
    }
