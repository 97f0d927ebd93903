"""The whole VGG paper as a tool: its networks, recipe, protocols and experiment.

The public names are those in `__all__`; each is imported when it is first used, so that `import verydeep` is quick.
"""

from importlib import import_module
from typing import TYPE_CHECKING

from verydeep.version import __version__

if TYPE_CHECKING:
    from verydeep.deployment.export_weights import WrittenWeights, write_weights
    from verydeep.deployment.feature_classifier import Classification, classify, load_classifier
    from verydeep.deployment.feature_files import write_features
    from verydeep.deployment.features import Descriptor, features
    from verydeep.deployment.import_weights import Imported, Trained, import_weights
    from verydeep.deployment.predict import Prediction, predict
    from verydeep.deployment.push import push
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
    from verydeep.experiments.transfer import TransferOptions, transfer
    from verydeep.experiments.transfer_report import write_transfer_report
    from verydeep.images.open_boxed import BoxOptions
    from verydeep.images.scan import Scan, scan
    from verydeep.images.tolerance import Tolerance
    from verydeep.networks.arithmetic import NetworkDescription, describe, describe_stack
    from verydeep.networks.configurations import CONFIGURATIONS, Configuration
    from verydeep.networks.initialisation import Initialisation, initialise
    from verydeep.networks.vgg import VGG, vgg
    from verydeep.runs import Model, load, load_model, save
    from verydeep.runtime import Execution, Runtime
    from verydeep.training.loop import train
    from verydeep.training.recipe import Recipe

_MODULES = {
    "networks.configurations": ("CONFIGURATIONS", "Configuration"),
    "networks.arithmetic": ("NetworkDescription", "describe", "describe_stack"),
    "networks.vgg": ("VGG", "vgg"),
    "networks.initialisation": ("Initialisation", "initialise"),
    "runs": ("Model", "load", "load_model", "save"),
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
    "experiments.transfer": ("TransferOptions", "transfer"),
    "experiments.transfer_report": ("write_transfer_report",),
    "images.open_boxed": ("BoxOptions",),
    "images.scan": ("Scan", "scan"),
    "images.tolerance": ("Tolerance",),
    "deployment.predict": ("Prediction", "predict"),
    "deployment.import_weights": ("Imported", "Trained", "import_weights"),
    "deployment.export_weights": ("WrittenWeights", "write_weights"),
    "deployment.push": ("push",),
    "deployment.features": ("Descriptor", "features"),
    "deployment.feature_files": ("write_features",),
    "deployment.feature_classifier": ("Classification", "classify", "load_classifier"),
}

__all__ = [
    "CONFIGURATIONS",
    "VGG",
    "BoxOptions",
    "Classification",
    "Comparison",
    "Configuration",
    "Descriptor",
    "Evaluation",
    "Execution",
    "FullProcedure",
    "Grid",
    "Imported",
    "Initialisation",
    "Model",
    "NetworkDescription",
    "Prediction",
    "Recipe",
    "Runtime",
    "Scan",
    "Tolerance",
    "Trained",
    "TransferOptions",
    "WrittenWeights",
    "__version__",
    "classify",
    "compare",
    "describe",
    "describe_stack",
    "evaluate",
    "evaluate_boxes",
    "evaluation_report",
    "features",
    "import_weights",
    "initialise",
    "load",
    "load_classifier",
    "load_model",
    "localisation_recipe",
    "localisation_splits",
    "predict",
    "predict_boxes",
    "push",
    "reproduce",
    "save",
    "scan",
    "train",
    "transfer",
    "vgg",
    "write_features",
    "write_localisation_report",
    "write_predictions",
    "write_transfer_report",
    "write_weights",
]


def __getattr__(name: str) -> object:
    for module, names in _MODULES.items():
        if name in names:
            return getattr(import_module(f"verydeep.{module}"), name)
    raise AttributeError(f"module 'verydeep' has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
