"""Three small trainings of digits, one of which starts from another."""

import torch

from verydeep import Execution, Recipe, Runtime, Tolerance
from verydeep.images.open import open_for_training
from verydeep.images.sources.source import subset
from verydeep.images.sources.splits import Splits
from verydeep.reproduction.training_task import TrainingTask
from verydeep.runs.files import MODEL, WEIGHTS

CPU = torch.device("cpu")


def tasks(folder, *, epochs=1):
    """A, and D from it; and a net that starts from nothing."""
    parts = {split: subset(open_for_training("digits").source(split), tuple(range(10))) for split in ("train", "val")}
    recipe = Recipe(crop=32, width=0.05, batch=5, epochs=epochs, learning_rate=1e-3)
    recipes = {"A": recipe, "C": recipe, "D": Recipe(**{**vars(recipe), "init": str(folder / "A")})}
    return [
        TrainingTask(
            name=name,
            splits=Splits(name="ten digits", sources=parts),
            network=name,
            out=folder / name,
            recipe=own,
            runtime=Runtime(device="cpu"),
            execution=Execution(precision="fp32"),
            tolerance=Tolerance(),
            may_diverge=False,
        )
        for name, own in recipes.items()
    ]


def weights(folder):
    return {name: (folder / name / MODEL / WEIGHTS).read_bytes() for name in "ACD"}
