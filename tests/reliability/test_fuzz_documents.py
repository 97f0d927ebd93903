"""Documents of any content end in a value or in one line, whether a function or the command reads them."""

import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from fuzzing import PYTHONS, refusal, tried
from in_time import in_time
from made_up_grids import ERRORS
from PIL import Image
from several_commands import status_of

from verydeep.commands.options import options_file
from verydeep.evaluation.predictions import compare
from verydeep.exported_networks.metadata import from_json
from verydeep.images.annotations.box_files import read_boxes
from verydeep.images.annotations.image_names import read_image_list
from verydeep.images.annotations.label_files import several_labels
from verydeep.images.quarantine import read_quarantine
from verydeep.images.sources.given import given_images
from verydeep.machine.documents import read_json
from verydeep.reproduction.kept_findings import kept_findings
from verydeep.reproduction.plan_file import read_plan
from verydeep.reproduction.stored_tests import outcomes_digest, read_test, write_outcomes
from verydeep.runs.model import load_config, load_model
from verydeep.runs.record import read_metrics, read_record
from verydeep.training.checkpoint import Progress, load_latest
from verydeep.training.recipe import recipe_from
from verydeep.transfer_learning.classifier_folder import load_classifier

BEFORE = Path(__file__).parents[1] / "before" / "written_at_0046bf4"

METADATA = {
    "format": 1,
    "version": "0.1.0",
    "network": "A",
    "crop": 32,
    "width": 0.1,
    "batch_norm": False,
    "int8": False,
    "mean_rgb": [1.0, 2.0, 3.0],
    "classes": ["a", "b"],
    "scale": "256",
    "flip": True,
    "weights_sha256": None,
}
COCO = {
    "images": [{"id": 1, "file_name": "a.png", "width": 5, "height": 6}, {"id": 2, "file_name": "b.png"}],
    "categories": [{"id": 1, "name": "cat"}, {"id": 2, "name": "dog"}],
    "annotations": [
        {"image_id": 1, "category_id": 1, "bbox": [1, 2, 3, 4]},
        {"image_id": 2, "category_id": 2, "bbox": [1, 2, 3, 4], "iscrowd": 0},
    ],
}
VOC = """<annotation><filename>{}.png</filename><size><width>5</width><height>6</height></size><object><name>{}</name>
<difficult>0</difficult><bndbox><xmin>1</xmin><ymin>2</ymin><xmax>3</xmax><ymax>4</ymax></bndbox></object></annotation>
"""
OUTCOMES = {name: np.random.default_rng(number).random((2, 12)) < 0.3 for number, name in enumerate(ERRORS)}
RESULTS = {
    "guessing": 90.0,
    "margin": 1.0,
    "unfinished": ["D-256"],
    "recipe": {"init": "glorot"},
    "trainings": [{"name": "A-256", "start": None}, *({"name": f"{one}-256", "start": "A-256"} for one in "BD")],
    "seeds": [0, 1],
    "outcomes_sha256": outcomes_digest(OUTCOMES),
    "not_told": "",
}
BOXES = "file,x0,y0,x1,y1,class\na.png,1,2,3,4,cat\nb.png,1,2,3,4,dog\n"
PREDICTIONS = "id,true_class,class_1,probability_1\r\n1.jpg,cat,cat,0.5\r\n2.jpg,dog,cat,0.5\r\n"
TOML = 'network = "A"\ncrop = 32\nwidth = 0.05\nflip = false\nscale = "256:512"\nepochs = 2\nlearning-rate = 0.01\n'


def record(file):
    found = read_record(file.parent)
    return recipe_from(found.recipe), found.architecture


def labels(file, separator=None):
    """Read what the two images show, by a file or by the folder that it is in."""
    place = file.parent if file.suffix in (".txt", ".xml", ".yaml") else file
    return several_labels(place, given_images(file.parents[1] / "pictures"), separator=separator)


READERS = {
    "config.json": ("model/config.json", lambda file: (load_config(file.parent), load_model(file.parent))),
    "run.json": ("finished_run/run.json", record),
    "metrics.jsonl": ("finished_run/metrics.jsonl", lambda file: read_metrics(file.parent)),
    "state.json": (
        "stopped_run/checkpoints/step-00000004/state.json",
        lambda file: (read_json(file, Progress, exact=True), load_latest(file.parents[1])),
    ),
    "manifest.json": ("stopped_run/checkpoints/step-00000004/manifest.json", lambda file: load_latest(file.parents[1])),
    "classifier.json": ("classifier/classifier.json", lambda file: load_classifier(file.parent)),
    "plan.json": ("experiment/plan.json", lambda file: read_plan(file.parent)),
    "test.json": ("experiment/evaluations/seed-0/A-256 dense paper.json", read_test),
    "quarantine.jsonl": ('{"split": "val", "image": "1.jpg", "reason": "truncated (x)"}\n', read_quarantine),
    "metadata.json": (json.dumps(METADATA), lambda file: from_json(file.read_bytes())),
    "predictions.csv": (PREDICTIONS, lambda file: compare(file, file)),
    "options.toml": (TOML, lambda file: options_file(["--config", str(file)])),
    "findings/results.json": (json.dumps(RESULTS), lambda file: kept_findings(file.parent)),
    "boxes/coco.json": (json.dumps(COCO), read_boxes),
    "boxes/boxes.csv": (BOXES, read_boxes),
    "boxes/voc.xml": (VOC.format("a", "cat"), read_boxes),
    "lists/test.txt": (
        "a\npictures/b.png\n",
        lambda file: read_image_list(file, given_images(file.parents[1] / "pictures")),
    ),
    "labels/lines.csv": ("file,class\na.png,cat\nb.png,dog\n", labels),
    "labels/cells.tsv": ("file\tclass\na.png\tcat|dog\nb.png\tdog\n", lambda file: labels(file, "|")),
    "labels/columns.csv": ("file;cat;dog\na.png;1;0\nb.png;0;1\n", labels),
    "labels/boxes.csv": (BOXES, labels),
    "labels/coco.json": (json.dumps(COCO), labels),
    "voc/a.xml": (VOC.format("a", "cat"), labels),
    "yolo/a.txt": ("0 0.5 0.5 0.2 0.2\n1 0.5 0.5 0.2 0.2\n", labels),
    "names/classes.txt": ("cat\ndog\n", labels),
    "yaml/data.yaml": ("path: ../x\nnames:\n  0: cat\n  1: dog\n", labels),
}
"""What is mutated, a path below `BEFORE` or its text, and what reads it."""

BESIDE = {
    "voc/b.xml": VOC.format("b", "dog"),
    "yolo/b.txt": "1 0.5 0.5 0.2 0.2\n",
    "names/a.txt": "0 0.5 0.5 0.2 0.2\n",
    "names/b.txt": "1 0.5 0.5 0.2 0.2\n",
    "yaml/a.txt": "0 0.5 0.5 0.2 0.2\n",
    "yaml/b.txt": "1 0.5 0.5 0.2 0.2\n",
}
"""Other files that a reader finds in the folder of the mutated one."""

TRANSFER = ("transfer", "{before}/finished_run", "--data", "{pictures}")
"""A test of two images, which ends with: too few of each class."""

COMMANDS = {
    "options.toml": (
        *("train", "{before}/images", "--dry-run", "--precision", "fp32"),  # auto would measure both
        *("--out", "{before}/run", "--config", "{file}"),
    ),
    "findings/results.json": ("findings", "{folder}"),
    "findings/outcomes.npz": ("findings", "{folder}", "--json", "-"),
    "predictions.csv": ("compare", "{file}", "{before}/predictions_dense.csv"),
    "lists/test.txt": (*TRANSFER, "--labels", "{before}/labels/lines.csv", "--test-images", "{file}"),
    "labels/lines.csv": (*TRANSFER, "--labels", "{file}"),
    "labels/cells.tsv": (*TRANSFER, "--labels", "{file}", "--label-separator", "|"),
    "labels/columns.csv": (*TRANSFER, "--labels", "{file}"),
    "labels/coco.json": (*TRANSFER, "--labels", "{file}"),
    "voc/a.xml": (*TRANSFER, "--labels", "{folder}"),
    "yolo/a.txt": (*TRANSFER, "--labels", "{folder}"),
    "yaml/data.yaml": (*TRANSFER, "--labels", "{folder}"),
}
"""Command lines that read a mutated file."""


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Copy of the folders that the readers need, so that the file alone is changed."""
    place = tmp_path_factory.mktemp("documents") / "before"
    shutil.copytree(BEFORE, place)
    found = {}
    for name, (source, _) in {**READERS, **{name: (text, None) for name, text in BESIDE.items()}}.items():
        if source.endswith((".json", ".jsonl")) and "\n" not in source and not source.startswith("{"):
            found[name] = place / source
        else:
            found[name] = place / name
            found[name].parent.mkdir(exist_ok=True)
            found[name].write_text(source, newline="")
    found["findings/outcomes.npz"] = place / "findings" / "outcomes.npz"
    write_outcomes(found["findings/outcomes.npz"], OUTCOMES)
    (place / "pictures").mkdir()
    for image in ("a.png", "b.png"):
        Image.new("RGB", (5, 6)).save(place / "pictures" / image)
    return {name: (file, file.read_bytes()) for name, file in found.items()}


@pytest.mark.parametrize("name", READERS)
def test_a_mutated_document_ends_in_a_value_or_a_line(files, name, battery, figure):
    times = 6_000 // len(READERS) if battery else 8
    assert refusal(READERS[name][1], files[name][0]) == []
    lines = tried(*files[name], name, times, lambda file: refusal(READERS[name][1], file))
    assert [line for kind, line in lines if kind in line or len(line) > 2100] == []
    figure(28, f"fuzzed {name}", f"{times:,} mutations, {len(lines):,} refused in a line, the others read")


@pytest.mark.parametrize("name", [name for name in READERS if name != "metadata.json"])  # of no file of its own
def test_a_pipe_in_place_of_a_document_is_not_waited_for(files, name):
    file, content = files[name]
    file.unlink()
    os.mkfifo(file)
    try:
        with in_time():
            told = refusal(READERS[name][1], file)
    finally:
        file.unlink()
        file.write_bytes(content)
    assert all(PYTHONS.search(line) is None for _, line in told)


@pytest.mark.parametrize("name", COMMANDS)
def test_a_command_ends_with_a_status_and_a_line(files, name, battery, figure, capfd):
    """In this process; 0 or, since such a file is wrong use, 2, and no word of Python's."""
    times = 4_000 // len(COMMANDS) if battery else 8
    (file, _), statuses = files[name], []
    places = {"file": file, "folder": file.parent, "before": files["plan.json"][0].parents[1]}
    places["pictures"] = places["before"] / "pictures"
    arguments = [part.format(**places) for part in COMMANDS[name]]

    def read(_):
        statuses.append(status_of(*arguments))
        said = capfd.readouterr()
        assert said.err.count("verydeep: ") == bool(statuses[-1]), said.err
        return [said.err] if statuses[-1] else []

    lines = tried(*files[name], name, times, read)
    assert set(statuses) <= {0, 2}
    assert [line for line in lines if PYTHONS.search(line)] == []
    told = ", ".join(f"{statuses.count(status):,} with {status}" for status in sorted(set(statuses)))
    figure(28, f"fuzzed {COMMANDS[name][0]} {name}", f"{times:,} mutations: {told}")
