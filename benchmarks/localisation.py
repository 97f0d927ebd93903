"""Appendix A on photographs: box heads from a trained classification run, tested on held-out images. Prints JSON.

    python benchmarks/localisation.py PHOTOGRAPHS RUN OUT [EPOCHS]

PHOTOGRAPHS is a folder with images/{airplanes,Faces,Motorbikes}/*.jpg of Caltech-101 and boxes/{airplane,face,
motorcycle}.csv (file,x0,y0,x1,y1,class). RUN is a classification run of any classes; network, crop and width are its
own. Into OUT go the images, dealt out by a fixed seed (three fifths to train on, one to steer the learning rate, one to
test on), a classification run of the three classes, the three box runs of the paper's Table 8, and a report. What
stands in OUT already is not done again.
"""

import csv
import json
import shutil
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np

import verydeep
from verydeep import runs
from verydeep.experiments.localisation_report import write_localisation_report
from verydeep.experiments.localise import FullProcedure, evaluate_boxes, localisation_recipe, localisation_splits
from verydeep.images.open_boxed import BoxOptions

FOLDERS = {"airplane": "airplanes", "face": "Faces", "motorcycle": "Motorbikes"}
SHARES = {"train": 0.6, "val": 0.2, "test": 0.2}
SEED = 0
EPOCHS = 180
CLASSIFIER_EPOCHS = 15
TABLE_8 = {"shared-fc": ("shared", True), "per-class-fc": ("per-class", True), "per-class-all": ("per-class", False)}


def main() -> None:
    """Trains, tests and prints the result."""
    photographs, run, out = (Path(argument) for argument in sys.argv[1:4])
    epochs = int(sys.argv[4]) if len(sys.argv) > 4 else EPOCHS
    images, options = deal_out(photographs, out), BoxOptions(boxes=(out / "boxes.csv",), skip_bad_boxes=True)
    trained = runs.load_model(run).net
    recipe = verydeep.Recipe(
        crop=trained.crop, width=trained.width, batch_norm=trained.batch_norm, batch=32, epochs=epochs, patience=10
    )
    classifying = replace(recipe, finetune=str(run), epochs=CLASSIFIER_EPOCHS)
    classifier = verydeep.train(str(images), out=out / "classifier", recipe=classifying, resume=True)
    folders = []
    for name, (regression, fc_only) in TABLE_8.items():
        splits, check = localisation_splits(str(images), regression=regression, options=options)
        for line in check.lines():
            print(line, file=sys.stderr)
        box_recipe = localisation_recipe(replace(recipe, finetune=str(run)), fc_only=fc_only)
        folders.append(verydeep.train(splits, out=out / name, recipe=box_recipe, resume=True))
    full = FullProcedure(classifiers=(classifier,))
    found = evaluate_boxes(folders, data=str(images), options=options, split="test", full=full)
    print(write_localisation_report(found, out / "report", data=str(images)), file=sys.stderr)
    print(json.dumps({"trained_from": str(run), "versions": runs.versions(), **found.to_dict()}, indent=2))


def deal_out(photographs: Path, out: Path) -> Path:
    """The images in train, val and test folders, each class divided by the same seed; and one file of boxes."""
    rows, rng = [], np.random.default_rng(SEED)
    for name, folder in FOLDERS.items():
        files = sorted((photographs / "images" / folder).glob("*.jpg"))
        ends = (np.cumsum([0, *SHARES.values()]) * len(files)).round().astype(int)
        order = rng.permutation(len(files))
        for split, start, end in zip(SHARES, ends, ends[1:], strict=False):
            target = out / "images" / split / name
            target.mkdir(parents=True, exist_ok=True)
            for place in order[start:end]:
                shutil.copy(files[place], target / files[place].name)
        with (photographs / "boxes" / f"{name}.csv").open(newline="") as file:
            rows += [(f"{name}/{row[0]}", *row[1:]) for row in csv.reader(file)]
    with (out / "boxes.csv").open("w", newline="") as file:
        csv.writer(file).writerows(rows)
    return out / "images"


if __name__ == "__main__":
    main()
