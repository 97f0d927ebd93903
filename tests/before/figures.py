"""What the stored folders were made with, and what is computed from them; by runpy, for make.py and the tests.

Only names in `verydeep.__all__` and names of files, all relative to the folder that holds the stored ones.
"""

from dataclasses import asdict, replace

import verydeep

IMAGES, BOXES = "images", "images/boxes.csv"

SMALL = verydeep.Recipe(crop=32, width=1 / 64, batch=4, dropout=0.25)
RECIPE = replace(SMALL, epochs=10, learning_rate=2e-2, patience=10, seed=2)
STOPPED_RECIPE = replace(SMALL, epochs=3, learning_rate=5e-3, scale="256:512", schedule="step", step_epochs=1, seed=5)
STOPPED = 4
"""Steps after which stopped_run was stopped: one of its second epoch."""

BOX_RECIPE = verydeep.localisation_recipe(
    replace(SMALL, epochs=20, learning_rate=3e-3, finetune="finished_run"), fc_only=True
)
BOX_OPTIONS = verydeep.BoxOptions(boxes=(BOXES,))

GRID = verydeep.Grid(only=("A", "B-256"), tables=(3, 4))
GRID_RECIPE = replace(SMALL, epochs=1, learning_rate=5e-3)

TRANSFER = verydeep.TransferOptions(train=3, test=2, splits=1)
DESCRIPTOR = verydeep.Descriptor(layers=("pool5", "relu7"), scales="paper")

EXPORTED = ("exported/network.pt2", "exported/network.onnx", "exported/network.xml")
PREDICTIONS = ("predictions_dense.csv", "predictions_crops.parquet")
FEATURES = ("features.safetensors", "features.parquet")

CLASSIFIERS = ("finished_run", "model", "model_with_batch_norm", "experiment/runs/seed-0/B-256", *EXPORTED)
"""Folders and files that predict classes."""


def probabilities(run):
    """Return the probability of each image's classes."""
    return {
        found.image: dict(zip(found.classes, found.probabilities, strict=True))
        for found in verydeep.predict(run, f"{IMAGES}/val", scales="paper")
    }


def errors(run="finished_run"):
    """By dense evaluation and crops together."""
    found = verydeep.evaluate(run, data=IMAGES, protocol="both")
    keys = ("n", "top1_wrong", "top1_error", "expected_calibration_error", "scales", "mirror")
    return {key: value for key, value in asdict(found.fused).items() if key in keys}


def layer_outputs(run="imported_without_fc"):
    """Return pool5 of each image by an imported network, and which of its layers are random."""
    model, descriptor = verydeep.load_model(run), verydeep.Descriptor(layers=("pool5",))
    found = verydeep.features(run, IMAGES, descriptor=descriptor, split="val")
    return {
        "drawn": model.random_layers if hasattr(model, "random_layers") else model.drawn,  # as it was called before
        "pool5": {one.id: one.values["pool5"].tolist() for one in found},
    }


def boxes(run="boxes_run"):
    """Return each image's box from the centre crop, and the probability of the class that the full procedure names."""
    found = verydeep.evaluate_boxes([run], data=IMAGES, options=BOX_OPTIONS).images
    full = verydeep.FullProcedure(classifiers=("finished_run",))
    named = verydeep.predict_boxes(run, f"{IMAGES}/val", full=full)
    return {
        "centre crops": dict(zip(found.ids, found.predicted[0].tolist(), strict=True)),
        "whole images": {one.image: dict(zip(one.classes, one.probabilities, strict=True)) for one in named},
    }


def scores(folder="classifier"):
    """Return the score of each image's classes."""
    return {
        found.image: dict(zip(found.classes, found.scores, strict=True))
        for found in verydeep.classify(folder, f"{IMAGES}/val")
    }


def difference():
    """Return how two files of predictions compare, but for the interval, which later versions compute otherwise."""
    return {name: value for name, value in asdict(verydeep.compare(*PREDICTIONS)).items() if name != "difference_ci95"}


def everything():
    """All of these, by name."""
    return {
        "probabilities": {run: probabilities(run) for run in CLASSIFIERS},
        "errors": errors(),
        "layer outputs": layer_outputs(),
        "boxes": boxes(),
        "scores": scores(),
        "difference": difference(),
    }
