"""The whole VGG paper as a tool: its networks, recipe, protocols and experiment.

The public names are those in `__all__`; each is imported when it is first used, so that `import verydeep` is quick.
"""

from importlib import import_module
from typing import TYPE_CHECKING

from verydeep.version import __version__

if TYPE_CHECKING:
    from verydeep.deployment.predict import Prediction, predict
    from verydeep.evaluation.compare import compare
    from verydeep.evaluation.evaluate import evaluate
    from verydeep.evaluation.paired import Comparison
    from verydeep.evaluation.predictions import write_predictions
    from verydeep.evaluation.report import evaluation_report
    from verydeep.evaluation.results import Evaluation
    from verydeep.experiments.grid import Grid
    from verydeep.experiments.localisation_report import write_localisation_report
    from verydeep.experiments.localise import FullProcedure, evaluate_boxes, localisation_recipe, localisation_splits
    from verydeep.experiments.localise_images import predict_boxes
    from verydeep.experiments.reproduce import reproduce
    from verydeep.images.open_boxed import BoxOptions
    from verydeep.images.scan import Scan, scan
    from verydeep.images.tolerance import Tolerance
    from verydeep.networks.arithmetic import NetworkDescription, describe, describe_stack
    from verydeep.networks.configurations import CONFIGURATIONS, Configuration
    from verydeep.networks.initialisation import Initialisation, initialise
    from verydeep.networks.vgg import VGG, vgg
    from verydeep.runs import load
    from verydeep.runtime import Execution, Runtime
    from verydeep.training.loop import train
    from verydeep.training.recipe import Recipe

_MODULES = {
    "networks.configurations": ("CONFIGURATIONS", "Configuration"),
    "networks.arithmetic": ("NetworkDescription", "describe", "describe_stack"),
    "networks.vgg": ("VGG", "vgg"),
    "networks.initialisation": ("Initialisation", "initialise"),
    "runs": ("load",),
    "runtime": ("Execution", "Runtime"),
    "training.recipe": ("Recipe",),
    "training.loop": ("train",),
    "evaluation.evaluate": ("evaluate",),
    "evaluation.results": ("Evaluation",),
    "evaluation.compare": ("compare",),
    "evaluation.paired": ("Comparison",),
    "evaluation.predictions": ("write_predictions",),
    "evaluation.report": ("evaluation_report",),
    "experiments.grid": ("Grid",),
    "experiments.reproduce": ("reproduce",),
    "experiments.localise": ("FullProcedure", "evaluate_boxes", "localisation_recipe", "localisation_splits"),
    "experiments.localise_images": ("predict_boxes",),
    "experiments.localisation_report": ("write_localisation_report",),
    "images.open_boxed": ("BoxOptions",),
    "images.scan": ("Scan", "scan"),
    "images.tolerance": ("Tolerance",),
    "deployment.predict": ("Prediction", "predict"),
}

__all__ = [
    "CONFIGURATIONS",
    "VGG",
    "BoxOptions",
    "Comparison",
    "Configuration",
    "Evaluation",
    "Execution",
    "FullProcedure",
    "Grid",
    "Initialisation",
    "NetworkDescription",
    "Prediction",
    "Recipe",
    "Runtime",
    "Scan",
    "Tolerance",
    "__version__",
    "compare",
    "describe",
    "describe_stack",
    "evaluate",
    "evaluate_boxes",
    "evaluation_report",
    "initialise",
    "load",
    "localisation_recipe",
    "localisation_splits",
    "predict",
    "predict_boxes",
    "reproduce",
    "scan",
    "train",
    "vgg",
    "write_localisation_report",
    "write_predictions",
]


def __getattr__(name: str) -> object:
    for module, names in _MODULES.items():
        if name in names:
            return getattr(import_module(f"verydeep.{module}"), name)
    raise AttributeError(f"module 'verydeep' has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
