"""The state of a training in progress."""

import math
from dataclasses import dataclass
from pathlib import Path

from verydeep.images.crops import TrainingView
from verydeep.images.order import batches_per_epoch
from verydeep.images.quarantine import Quarantine
from verydeep.images.rescaled import RescaledImages
from verydeep.training.checkpoint import Progress
from verydeep.training.job import TrainingJob
from verydeep.training.learner import Learner
from verydeep.training.recipe import Recipe
from verydeep.training.schedule import learning_rate


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

    @property
    def recipe(self) -> Recipe:
        """The recipe of the job."""
        return self.job.recipe

    @property
    def out(self) -> Path:
        """The run folder."""
        return self.job.out

    @property
    def steps_per_epoch(self) -> int:
        """Batches that hold every training image once."""
        return batches_per_epoch(len(self.job.splits.source("train")), self.recipe.batch)

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
        all_steps = self.progress.step >= self.recipe.epochs * self.steps_per_epoch
        return (all_steps and not self.validation_due) or self.progress.plateau.finished

    @property
    def rate(self) -> float:
        """Learning rate of the next step."""
        return self._rate(self.progress.step)

    @property
    def last_rate(self) -> float:
        """Learning rate of the last step."""
        return self._rate(max(0, self.progress.step - 1))

    def _rate(self, step: int) -> float:
        return learning_rate(self.recipe, self.progress.plateau, step=step, steps_per_epoch=self.steps_per_epoch)
