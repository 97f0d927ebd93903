"""The state of a training in progress, written as checkpoints, and its networks as model folders in the end."""

import math
import shutil
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from verydeep.images.crops import TrainingView
from verydeep.images.order import batches_per_epoch
from verydeep.images.quarantine import Quarantine
from verydeep.images.rescaled import RescaledImages
from verydeep.runs.files import BEST, CHECKPOINTS, MODEL
from verydeep.runs.model import Model, save_model
from verydeep.training import checkpoint
from verydeep.training.checkpoint import Checkpoint, Progress
from verydeep.training.frozen_features import FrozenFeatures
from verydeep.training.job import TrainingJob, note_kept_checkpoints
from verydeep.training.learner import Learner
from verydeep.training.parallel import whole
from verydeep.training.recipe import learning_rate


@dataclass(kw_only=True)
class TrainingState:
    """Everything that steps work on. `progress`, `saved` and the weights change; micro-batches may become smaller."""

    job: TrainingJob
    learner: Learner
    progress: Progress
    view: TrainingView
    validation: RescaledImages
    """This process's share of the validation images."""
    bad_images: Quarantine
    """Training images that cannot be used."""
    bad_validation: Quarantine
    """Validation images that cannot be used."""
    saved: float
    """When the last checkpoint was written, by `time.monotonic`."""
    features: FrozenFeatures | None = None
    """Features of frozen layers, if they are kept; steps begin behind those layers."""

    @property
    def steps_per_epoch(self) -> int:
        """Batches that hold every training image once."""
        return batches_per_epoch(len(self.job.splits.source("train")), self.job.recipe.batch)

    @property
    def epoch(self) -> int:
        """Epoch of the last step, from 1."""
        return max(1, math.ceil(self.progress.step / self.steps_per_epoch))

    @property
    def validation_due(self) -> bool:
        """Whether all steps of an epoch are done but its validation is not."""
        return self.progress.seconds > 0 and self.progress.step % self.steps_per_epoch == 0

    @property
    def ended(self) -> bool:
        """Whether nothing is left to do."""
        all_steps = self.progress.step >= self.job.recipe.epochs * self.steps_per_epoch
        return (all_steps and not self.validation_due) or self.progress.plateau.finished

    def rate(self, step: int) -> float:
        """Return the learning rate of a step of this epoch, counted from 0 over all epochs."""
        return learning_rate(self.job.recipe, self.progress.plateau, step=step, steps_per_epoch=self.steps_per_epoch)


def save_checkpoint(state: TrainingState) -> None:
    """Write a checkpoint in the first process; all call it, because they may share layers."""
    net, optimiser = state.learner.net, state.learner.optimiser
    buffers = {name: optimiser.state[value].get("momentum_buffer") for name, value in net.named_parameters()}
    current = Checkpoint(
        weights=_weights(state),
        momentum={name: whole(buffer) for name, buffer in buffers.items() if buffer is not None},
        progress=state.progress,
    )
    state.job.processes.from_first(lambda: checkpoint.save(state.job.out / CHECKPOINTS, current))
    state.saved = time.monotonic()


def save_models(state: TrainingState, *, say: Callable[[str], None]) -> None:
    """Write the network as it is now, and as it was when the validation error was lowest; all processes call it.

    Then checkpoints have done their work and are removed: those of net D with its momentum take 3 GB.
    """
    weights, progress, folder = _weights(state), state.progress, state.job.out / CHECKPOINTS
    best_step = progress.best_step or progress.step

    def save_as(name: str, weights: Mapping[str, Tensor]) -> None:
        net, recipe = state.learner.net.with_weights(weights), state.job.recipe
        model = Model(net=net, classes=state.job.splits.classes, scale=recipe.scale, flip=recipe.flip)
        save_model(model, state.job.out / name)

    def write() -> None:
        if best_step == progress.step:
            save_as(BEST, weights)
        elif best := checkpoint.load_step(folder, best_step):
            save_as(BEST, best.weights)
        else:
            lost = checkpoint.folder_of(folder, best_step)
            say(f"{lost} is damaged or gone, so there is no {state.job.out / BEST}, which would come from it")
        save_as(MODEL, weights)
        if state.job.execution.keep_checkpoints:
            note_kept_checkpoints(state.job.out)
        else:
            shutil.rmtree(folder)

    state.job.processes.from_first(write)


def last_checkpoint(out: Path) -> str:
    """Say which checkpoint of a run folder is the last."""
    newest = checkpoint.newest(out / CHECKPOINTS)
    return f"the last checkpoint is {newest}" if newest else "there is no checkpoint yet"


def _weights(state: TrainingState) -> dict[str, Tensor]:
    return {name: whole(value) for name, value in state.learner.net.state_dict().items()}
