"""A training as it was asked for."""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import torch

from verydeep.images.sources.splits import Splits
from verydeep.images.tolerance import Tolerance
from verydeep.machine.processes import Processes
from verydeep.machine.runtime import Execution, Runtime
from verydeep.networks.architecture import Architecture
from verydeep.runs.model import weights_fingerprint
from verydeep.training.recipe import Recipe


@dataclass(frozen=True, kw_only=True)
class TrainingJob:
    """A training to be done, by this process alone or together with others."""

    splits: Splits
    network: str
    """Its name in the paper."""
    recipe: Recipe
    runtime: Runtime
    execution: Execution
    tolerance: Tolerance
    out: Path
    """The run folder."""
    device: torch.device
    processes: Processes

    @cached_property
    def architecture(self) -> Architecture:
        """The network to train; it follows from the other fields, so that they cannot disagree."""
        return Architecture(
            network=self.network,
            classes=len(self.splits.classes),
            crop=self.recipe.crop,
            width=self.recipe.width,
            batch_norm=self.recipe.batch_norm,
            boxes=self.splits.regression,
        )

    @cached_property
    def fingerprints(self) -> dict[str, str]:
        """Fingerprints of the images and of the weights to start from, which are read for that."""
        images = {split: self.splits.source(split).fingerprint for split in ("train", "val")}
        if self.splits.whole_train is not None:
            images["train_whole"] = self.splits.whole_train
        if self.recipe.start is None:
            return images
        kind = "init" if self.recipe.finetune is None else "finetune"
        return {**images, kind: weights_fingerprint(self.recipe.start)}
