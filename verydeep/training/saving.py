"""A training's state written as checkpoints, and its networks as model folders in the end."""

import time
from collections.abc import Callable, Mapping
from pathlib import Path

from torch import Tensor

from verydeep.runs.files import BEST, CHECKPOINTS, MODEL
from verydeep.runs.model import Model, save_model
from verydeep.training import checkpoint
from verydeep.training.checkpoint import Checkpoint
from verydeep.training.parallel import whole
from verydeep.training.state import TrainingState


def save_checkpoint(state: TrainingState) -> None:
    """Write a checkpoint in the first process; all call it, because they may share layers."""
    net, optimiser = state.learner.net, state.learner.optimiser
    buffers = {name: optimiser.state[value].get("momentum_buffer") for name, value in net.named_parameters()}
    current = Checkpoint(
        weights=_weights(state),
        momentum={name: whole(buffer) for name, buffer in buffers.items() if buffer is not None},
        progress=state.progress,
    )
    state.job.processes.from_first(lambda: checkpoint.save(state.out / CHECKPOINTS, current))
    state.saved = time.monotonic()


def save_models(state: TrainingState, *, say: Callable[[str], None]) -> None:
    """Write the network as it is now, and as it was when the validation error was lowest; all processes call it."""
    weights = _weights(state)

    def write() -> None:
        best = _best_weights(state, weights)
        if best is not None:
            _save_model(state, best, state.out / BEST)
        else:
            lost = checkpoint.folder_of(state.out / CHECKPOINTS, _best_step(state))
            say(f"{lost} is damaged or gone, so there is no {state.out / BEST}, which would come from it")
        _save_model(state, weights, state.out / MODEL)

    state.job.processes.from_first(write)


def last_checkpoint(out: Path) -> str:
    """Say which checkpoint of a run folder is the last."""
    newest = checkpoint.newest(out / CHECKPOINTS)
    return f"the last checkpoint is {newest}" if newest else "there is no checkpoint yet"


def _weights(state: TrainingState) -> dict[str, Tensor]:
    return {name: whole(value) for name, value in state.learner.net.state_dict().items()}


def _best_step(state: TrainingState) -> int:
    return state.progress.best_step or state.progress.step


def _best_weights(state: TrainingState, current: Mapping[str, Tensor]) -> Mapping[str, Tensor] | None:
    if _best_step(state) == state.progress.step:
        return current
    best = checkpoint.load_step(state.out / CHECKPOINTS, _best_step(state))
    return None if best is None else best.weights


def _save_model(state: TrainingState, weights: Mapping[str, Tensor], folder: Path) -> None:
    net, recipe = state.learner.net.with_weights(weights), state.recipe
    save_model(Model(net=net, classes=state.job.splits.classes, scale=recipe.scale, flip=recipe.flip), folder)
