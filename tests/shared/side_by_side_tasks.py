"""Three small trainings of digits, one of which starts from another."""

import torch
from ten_digits import ten_digits

from verydeep import Execution, Recipe, Runtime, Tolerance
from verydeep.reproduction.training_task import TrainingTask
from verydeep.runs.files import MODEL, WEIGHTS

CPU = torch.device("cpu")


def tasks(folder, *, epochs=1):
    """A, and D from it; and a net that starts from nothing."""
    images = ten_digits()
    recipe = Recipe(crop=32, width=0.05, batch=5, epochs=epochs, learning_rate=1e-3)
    recipes = {"A": recipe, "C": recipe, "D": Recipe(**{**vars(recipe), "init": str(folder / "A")})}
    return [
        TrainingTask(
            name=name,
            splits=images,
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
