"""Appendix A on photographs: box heads from a trained classification run, tested on held-out images. Prints JSON.

PHOTOGRAPHS is a folder with images/{airplanes,Faces,Motorbikes}/*.jpg of Caltech-101 and boxes/{airplane,face,
motorcycle}.csv (file,x0,y0,x1,y1,class). RUN is a classification run of any classes; network, crop and width are its
own. For each seed the images are dealt out again (three fifths to train on, one to steer the learning rate, one to test
on), and OUT/SEED gets them, a classification run of the three classes, box runs of both regressions with all layers
and with the fully connected ones (the paper's Table 8 and the one it leaves out), and a report. What stands in OUT
already is not done again, so seeds can also be run one by one.

    python benchmarks/localisation.py PHOTOGRAPHS RUN OUT [--seeds 0,1,2] [--epochs 600] [--patience 50]
"""

import argparse
import csv
import json
import shutil
import sys
from collections.abc import Mapping
from dataclasses import replace
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np

import verydeep
from verydeep.box_regression import Regression
from verydeep.images.boxes.geometry import CORRECT_IOU
from verydeep.images.boxes.options import BoxOptions
from verydeep.localisation.evaluate import evaluate_boxes
from verydeep.localisation.options import FullProcedure
from verydeep.localisation.report import write_localisation_report
from verydeep.localisation.results import Localisation
from verydeep.localisation.training import localisation_recipe, localisation_splits
from verydeep.runs.model import load_model
from verydeep.runs.record import versions
from verydeep.statistics import percentile_interval
from verydeep.transfer_learning.measures import _resampled_recalls

FOLDERS = {"airplane": "airplanes", "face": "Faces", "motorcycle": "Motorbikes"}
SHARES = {"train": 0.6, "val": 0.2, "test": 0.2}
BATCH = 32
CLASSIFIER_EPOCHS = 15
HEADS: dict[str, tuple[Regression, bool]] = {
    "shared-fc": ("shared", True),
    "per-class-fc": ("per-class", True),
    "shared-all": ("shared", False),
    "per-class-all": ("per-class", False),
}
"""Regression, and whether the fully connected layers alone learn it."""


def main() -> None:
    """Train, test and print the result."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("photographs", type=Path)
    parser.add_argument("run", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--seeds", default="0,1,2")
    parser.add_argument("--epochs", type=int, default=600)
    parser.add_argument("--patience", type=int, default=50)
    args = parser.parse_args()
    architecture = load_model(args.run).net.architecture
    recipe = verydeep.Recipe(
        crop=architecture.crop,
        width=architecture.width,
        batch_norm=architecture.batch_norm,
        batch=BATCH,
        epochs=args.epochs,
        patience=args.patience,
        finetune=str(args.run),
    )
    results = {
        seed: trained_and_tested(args.photographs, args.out / seed, replace(recipe, seed=int(seed)))
        for seed in args.seeds.split(",")
    }
    summary = {
        "trained_from": str(args.run),
        "versions": versions(),
        **over_seeds(results),
        "seeds": {seed: one.to_dict() for seed, one in results.items()},
    }
    print(json.dumps(summary, indent=2))


def trained_and_tested(photographs: Path, out: Path, recipe: verydeep.Recipe) -> Localisation:
    """Train and test everything of one seed."""
    images = deal_out(photographs, out, recipe.seed)
    options = BoxOptions(boxes=(out / "boxes.csv",), skip_bad_boxes=True)
    classifying = replace(recipe, epochs=CLASSIFIER_EPOCHS)
    classifier = verydeep.train(str(images), out=out / "classifier", recipe=classifying, resume=True)
    folders = []
    for name, (regression, fc_only) in HEADS.items():
        splits, check = localisation_splits(str(images), regression=regression, options=options)
        for line in check.lines():
            print(line, file=sys.stderr)
        box_recipe = localisation_recipe(recipe, fc_only=fc_only)
        folders.append(verydeep.train(splits, out=out / name, recipe=box_recipe, resume=True))
    full = FullProcedure(classifiers=(classifier,))
    results = evaluate_boxes(folders, data=str(images), options=options, split="test", full=full)
    print(write_localisation_report(results, out / "report", data=str(images)), file=sys.stderr)
    return results


def deal_out(photographs: Path, out: Path, seed: int) -> Path:
    """Copy the images into train, val and test folders, each class divided by the seed; write one file of boxes."""
    rows, rng = [], np.random.default_rng(seed)
    for name, folder in FOLDERS.items():
        files = sorted((photographs / "images" / folder).glob("*.jpg"))
        ends = (np.cumsum([0, *SHARES.values()]) * len(files)).round().astype(int)
        order = rng.permutation(len(files))
        for split, start, end in zip(SHARES, ends, ends[1:], strict=False):
            target = out / "images" / split / name
            target.mkdir(parents=True, exist_ok=True)
            for position in order[start:end]:
                shutil.copy(files[position], target / files[position].name)
        with (photographs / "boxes" / f"{name}.csv").open(newline="") as file:
            rows += [(f"{name}/{row[0]}", *row[1:]) for row in csv.reader(file)]
    with (out / "boxes.csv").open("w", newline="") as file:
        csv.writer(file).writerows(rows)
    return out / "images"


def over_seeds(results: Mapping[str, Localisation]) -> dict[str, Any]:
    """Average the errors of the centre crop over classes and seeds, with intervals by a bootstrap over images.

    An image is resampled with the results of every seed that tested it, so one that is tested twice counts as one.
    """
    labels = {
        name: label for one in results.values() for name, label in zip(one.images.ids, one.images.labels, strict=True)
    }
    positions = {name: position for position, name in enumerate(sorted(labels))}
    right = np.zeros((len(HEADS), len(results), len(positions)), bool)
    tested = np.zeros(right.shape[1:], bool)
    for number, one in enumerate(results.values()):
        its = [positions[name] for name in one.images.ids]
        tested[number, its] = True
        right[:, number, its] = one.images.overlaps > CORRECT_IOU
    classes = np.array([labels[name] for name in positions])
    resampled = 100 - _resampled_recalls(right, tested, classes)
    errors = np.mean([_errors(right, tested & (classes == label)) for label in np.unique(classes)], axis=0)
    return {
        "images_tested": len(positions),
        "errors": {
            name: {"error": of_head.mean(), "ci95": list(percentile_interval(its)), "of_seeds": of_head.tolist()}
            for name, of_head, its in zip(HEADS, errors, resampled, strict=True)
        },
        "differences": {
            f"{one} - {other}": {
                "difference": (errors[i] - errors[j]).mean(),
                "ci95": list(percentile_interval(resampled[i] - resampled[j])),
                "of_seeds": (errors[i] - errors[j]).tolist(),
            }
            for (i, one), (j, other) in combinations(enumerate(HEADS), 2)
        },
    }


def _errors(right: np.ndarray, tested: np.ndarray) -> np.ndarray:
    """Return the errors of each head with each seed, `[heads, seeds]` in percent, over the images that it tested."""
    return 100 - 100 * (right & tested).sum(axis=2) / tested.sum(axis=1)


if __name__ == "__main__":
    main()
