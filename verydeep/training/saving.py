"""What a training leaves to go on from, and what it leaves in the end."""

import sys
from pathlib import Path

from verydeep import runs
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
    training.machinery.processes.from_first(lambda: checkpoint.save(training.out / runs.CHECKPOINTS, found))


def save_models(training: Training, classes: tuple[str, ...]) -> None:
    """The network as it is now, and as it was when the validation error was lowest."""
    net, position, out = training.machinery.net, training.position, training.out
    weights = {name: whole(value) for name, value in net.state_dict().items()}

    def write() -> None:
        best = None
        if position.best_step is not None and position.best_step != position.step:
            best = checkpoint.load_step(out / runs.CHECKPOINTS, position.best_step)
            if best is None:
                place = out / runs.CHECKPOINTS / f"step-{position.best_step:08d}"
                print(f"{place} is damaged or gone: {out / runs.BEST} is the last epoch's network", file=sys.stderr)
        for folder, found in ((runs.BEST, best.weights if best is not None else weights), (runs.MODEL, weights)):
            model = runs.Model(
                net=net.with_weights(found), classes=classes, scale=training.recipe.scale, flip=training.recipe.flip
            )
            runs.save_model(model, out / folder)

    training.machinery.processes.from_first(write)


def last_checkpoint(out: Path) -> str:
    """Which one there is to go on from, in words."""
    found = checkpoint.newest(out / runs.CHECKPOINTS)
    return f"the last checkpoint is {found}" if found else "there is no checkpoint yet"
