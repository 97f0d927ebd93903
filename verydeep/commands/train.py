"""The verb `train`."""

from dataclasses import asdict
from pathlib import Path
from typing import Any

from verydeep.commands.next_options import given_options
from verydeep.commands.options import ExecutionOptions, ImageOptions, RecipeOptions, RunFolderOptions, RuntimeOptions
from verydeep.commands.starting_point import QuickOption
from verydeep.commands.training_cost import say_cost, show_dry_run
from verydeep.images.sources.default import DIGITS
from verydeep.images.tolerance import Tolerance
from verydeep.machine.lock import locked
from verydeep.machine.runtime import Execution, Runtime
from verydeep.machine.torchrun import rank_of_environment, under_torchrun
from verydeep.presentation.terminal import say_next, show
from verydeep.training.recipe import Recipe, network_asked_for
from verydeep.training.tables import training_end, training_table


def train(
    source: str = DIGITS,
    *,
    network: str | None = None,
    quick: QuickOption = False,
    dry_run: bool = False,
    held_out: float | None = None,
    run: RunFolderOptions,
    recipe: RecipeOptions = Recipe(),
    images: ImageOptions = Tolerance(),
    runtime: RuntimeOptions = Runtime(),
    execution: ExecutionOptions = Execution(),
) -> None:
    """Train a network by the paper's recipe, or go on from WEIGHTS (--from), and leave a run folder.

    A good classifier of few photographs comes from weights that have seen many: --from hub:timm/vgg16.tv_in1k, or a
    file. From the paper come --init RUN, which copies net A's first layers into a deeper one, and --finetune RUN, which
    goes on with all layers of a run, at another S say. --from and --finetune take over network, crop, width and S.

    Args:
        source: The images (see below).
        network: A, A-LRN, B, B-5x5, C, D or E. Required unless --from or --finetune name weights to go on from.
        dry_run: Only show images, classes and steps, and about how long and with how much memory it would take.
        held_out: Share of each class's training images, 0.125 say, that the learning rate follows, always the same
            ones, so that the validation images can test. Without it, it follows the validation images.
        run.resume: Continue a run that was stopped, with the options as before; start it if it does not exist.
            `verydeep train --out RUN --resume` takes them from the run.
    """
    network = network_asked_for(network, recipe)  # before PyTorch is imported
    from verydeep.images.open import open_for_training
    from verydeep.images.sources.splits import with_steering_images
    from verydeep.training.job import check_folder
    from verydeep.training.loop import train as train_network
    from verydeep.training.start import network_of

    del quick  # other options have followed from it (`starting_point`)
    how: Any = {"runtime": runtime, "execution": execution, "tolerance": images}
    try:
        check_folder(run.out, resume=run.resume)
    except ValueError:
        with locked(None if rank_of_environment() else run.out):  # if another process is writing it, that is the error
            raise
    splits, name = open_for_training(source), network_of(network, recipe, run.out)
    if held_out is not None:
        splits = with_steering_images(splits, held_out)
    if dry_run:
        show_dry_run(splits, name, recipe, run.json_file, **how)
        return
    if not (run.resume or under_torchrun() or execution.fc_parallel):
        say_cost(splits, name, recipe, **how)
    folder = train_network(splits, network=name, out=run.out, recipe=recipe, resume=run.resume, **how)
    show_training(folder, run.json_file)
    say_next([folder], "verydeep", "evaluate", folder, "--data", source, *given_options(images))


def show_training(folder: Path, json_file: Path | None, **more: Any) -> None:
    """Show the last and the best epoch of a run and its unusable images; `more` goes into the JSON.

    Raises:
        OSError: the run's metrics are missing.
    """
    if rank_of_environment():
        return  # the first process shows the figures
    end = training_end(folder)
    show({**asdict(end), **more}, json_file, training_table(end))
