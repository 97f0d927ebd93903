"""What a training leaves to go on from, and what it leaves in the end."""

import time
from collections.abc import Callable, Mapping
from pathlib import Path

from torch import Tensor

from verydeep.images.sources.source import Splits
from verydeep.runs.files import BEST, CHECKPOINTS, MODEL
from verydeep.runs.model import Model, save_model
from verydeep.training import checkpoint
from verydeep.training.checkpoint import Checkpoint
from verydeep.training.parallel import whole
from verydeep.training.preparation import Training


def save_checkpoint(training: Training) -> None:
    """A checkpoint; every process calls it, because layers may be shared, and the first one writes."""
    net, optimiser = training.machinery.net, training.machinery.optimiser
    weights = {name: whole(value) for name, value in net.state_dict().items()}
    buffers = {name: optimiser.state[value].get("momentum_buffer") for name, value in net.named_parameters()}
    found = Checkpoint(
        weights=weights,
        momentum={name: whole(buffer) for name, buffer in buffers.items() if buffer is not None},
        position=training.position,
    )
    training.machinery.processes.from_first(lambda: checkpoint.save(training.out / CHECKPOINTS, found))
    training.saved = time.monotonic()


def save_models(training: Training, splits: Splits, *, say: Callable[[str], None]) -> None:
    """The network as it is now, and as it was when the validation error was lowest."""
    net, position, out = training.machinery.net, training.position, training.out
    weights = {name: whole(value) for name, value in net.state_dict().items()}
    checkpoints, best_step = out / CHECKPOINTS, position.best_step or position.step

    def save(found: Mapping[str, Tensor], folder: Path) -> None:
        recipe = training.recipe
        net_then = net.with_weights(found)
        save_model(Model(net=net_then, classes=splits.classes, scale=recipe.scale, flip=recipe.flip), folder)

    def write() -> None:
        best = None if best_step == position.step else checkpoint.load_step(checkpoints, best_step)
        if best is not None or best_step == position.step:
            save(best.weights if best is not None else weights, out / BEST)
        else:
            place = checkpoint.place_of(checkpoints, best_step)
            say(f"{place} is damaged or gone, so there is no {out / BEST}, which would come from it")
        save(weights, out / MODEL)

    training.machinery.processes.from_first(write)


def last_checkpoint(out: Path) -> str:
    """Which one there is to go on from, in words."""
    found = checkpoint.newest(out / CHECKPOINTS)
    return f"the last checkpoint is {found}" if found else "there is no checkpoint yet"
