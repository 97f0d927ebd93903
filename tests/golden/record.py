"""Figures of small trainings and tests, from public names and the files of a run alone: modules may move.

`python tests/golden/record.py` writes them beside this file, one JSON file for each of `RECORDED`. To be done only when
a change is meant to change numbers; `git diff` then shows which.
"""

import json
import math
import struct
import sys
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from tensorboardX.proto.event_pb2 import Event

from verydeep import (
    BoxOptions,
    Descriptor,
    FullProcedure,
    Recipe,
    TransferOptions,
    evaluate,
    evaluate_boxes,
    features,
    localisation_recipe,
    localisation_splits,
    predict,
    save,
    train,
    transfer,
    vgg,
)

FOLDER = Path(__file__).parent

TINY = Recipe(crop=32, width=0.05, batch=4, epochs=2, learning_rate=1e-3, seed=3)

SIZES = ((40, 52), (64, 37), (33, 33), (48, 48), (32, 90), (51, 46))


def training(place):
    """The paper's recipe on digits; another from its weights, by all that is not in the paper; a rate that drops."""
    recipe = Recipe(crop=32, width=1 / 8, batch=128, epochs=2, learning_rate=5e-4, seed=1)
    first = train("digits", network="A", out=place / "A", recipe=recipe)
    more = {"batch_norm": True, "scale": "256:512", "label_smoothing": 0.1, "schedule": "cosine", "warm_up": 1}
    tiny = replace(TINY, epochs=3, learning_rate=5e-4, **more)
    pictures = str(_classes(place / "pictures"))
    still = replace(TINY, epochs=4, learning_rate=1e-12, patience=1)
    return {
        "paper": _curves(first),
        "not_the_paper": _curves(train(pictures, network="C", out=place / "C", recipe=tiny)),
        "drops": _curves(train(pictures, network="A-LRN", out=place / "still", recipe=still)),
        "from_a_run": _curves(
            train(
                pictures,
                network="B",
                out=place / "B",
                recipe=replace(TINY, init=str(train(pictures, network="A", out=place / "tiny", recipe=TINY))),
            )
        ),
    }


def posteriors(place):
    """By every protocol, of one network, of one with batch normalisation, and of both fused."""
    plain, normalised = network(place / "D", "D"), network(place / "C", "C", batch_norm=True)
    images = str(_classes(place / "pictures", parts=("test",)))
    found = {}
    for protocol in ("dense", "crops", "both"):
        for scales in ("single", "paper"):
            found[f"{protocol}, {scales}"] = _evaluated(plain, images, protocol=protocol, scales=scales)
    found["batch normalisation"] = _evaluated(normalised, images)
    found["fused"] = _evaluated([plain, normalised], images, scales=[256, 384])
    file = sorted(Path(images).rglob("*.png"))[0]
    (one,) = predict(plain, file, top=3)
    found["prediction"] = {"posteriors": [list(one.probabilities)]}
    return found


def boxes(place):
    """A training of boxes by the classes and one for all, and both tests of it."""
    images = _with_boxes(place / "images")
    options = BoxOptions(boxes=(images / "boxes.csv",))
    classifier = train(str(images), network="A", out=place / "classifier", recipe=TINY)
    recipe = replace(TINY, finetune=str(classifier), epochs=8, learning_rate=0.02, dropout=0.0)
    runs = []
    for regression, fc_only in (("per-class", False), ("shared", True)):
        splits, _ = localisation_splits(str(images), regression=regression, options=options)
        runs.append(train(splits, out=place / regression, recipe=localisation_recipe(recipe, fc_only=fc_only)))
    full = FullProcedure(classifiers=(classifier,))
    found = evaluate_boxes(runs, data=str(images), options=options, full=full)
    return {
        "trainings": [_curves(run) for run in runs],
        "boxes": found.images.predicted.tolist(),
        "iou": found.images.overlaps.tolist(),
        "wrong": [one.wrong for one in found.simplified],
        "full": [[one.name == "all together", one.true_class_error, one.top1_error] for one in found.full],
    }


def transferred(place):
    """Two networks, both stacked, and the baselines."""
    runs = [network(place / name, name) for name in ("A", "B")]
    images = _classes(place / "pictures", each=9, parts=("",), seed=5)
    options = TransferOptions(train=4, test=5, splits=3, seed=2, scales=[256, 320], baseline=True)
    found = transfer(runs, data=str(images), options=options)
    return {
        "counts": [found.n, found.n_train, found.n_test],
        "descriptors": [
            {
                "kind": one.kind,
                "numbers": one.numbers,
                "means": list(one.means),
                "ci95": one.mean_ci95,
                "c": list(one.c),
            }
            for one in found.descriptors
        ],
        "differences": [[one.difference, *one.difference_ci95] for one in found.differences],
    }


def described(place):
    """Layers of all kinds of one set of images, pooled in each way."""
    run = network(place / "E", "E")
    images = _classes(place / "pictures", parts=("",))
    ways = {
        "paper": Descriptor(normalise=True, scales="paper"),
        "stacked": Descriptor(layers=("conv1_2", "relu3_2", "fc7"), scales=[256, 288], pool="stack"),
        "unpooled": Descriptor(layers=("pool5", "fc6", "fc8"), pool="none"),
        "not mirrored": Descriptor(layers=("relu7",), mirror=False),
    }
    return {
        way: [
            {layer: _summary(values) for layer, values in one.values.items()}
            for one in features(run, images, descriptor=descriptor)
        ]
        for way, descriptor in ways.items()
    }


RECORDED: dict[str, Callable[[Path], dict]] = {
    "training": training,
    "posteriors": posteriors,
    "boxes": boxes,
    "transfer": transferred,
    "features": described,
}


def network(folder, name, *, classes=3, batch_norm=False):
    """A run whose every weight is an integer of PCG64, scaled; so are biases, and means and variances where any are."""
    net = vgg(name, classes=classes, crop=32, width=0.05, batch_norm=batch_norm, mean_rgb=(120.0, 110.0, 90.0))
    rng = np.random.Generator(np.random.PCG64(sum(map(ord, name))))
    smaller = {"conv1_1.weight": 64, "fc8.weight": 16 if batch_norm else 1}  # or posteriors would be 0 and 1
    state = net.state_dict()
    for key, value in state.items():
        drawn = torch.tensor(rng.integers(-1000, 1001, tuple(value.shape)) / 1000, dtype=torch.float32)
        if key.endswith("running_var") or (value.ndim == 1 and key.endswith("weight")):
            state[key] = 1 + drawn / 2
        elif value.ndim == 1 and key != "mean_rgb":
            state[key] = drawn / 20
        elif value.ndim > 1:
            state[key] = drawn * math.sqrt(6 / value[0].numel()) / smaller.get(key, 1)
    net.load_state_dict(state)
    return save(net, folder, classes=[f"class{number}" for number in range(classes)])


def _classes(folder, *, classes=3, each=4, parts=("train", "val"), seed=0):
    """Blocks and noise, each class with more of one colour than of the others."""
    rng = np.random.Generator(np.random.PCG64(seed))
    for part in parts:
        for label in range(classes):
            to = folder / part / f"class{label}"
            to.mkdir(parents=True)
            for number in range(each):
                _picture(rng, label, SIZES[(number + label) % len(SIZES)]).save(to / f"{number}.png")
    return folder


def _picture(rng, label, size):
    height, width = size
    pixels = np.kron(rng.integers(0, 140, (height // 8 + 1, width // 8 + 1, 3)), np.ones((8, 8, 1), dtype=np.int64))
    pixels = pixels[:height, :width] + rng.integers(0, 40, (height, width, 3))
    pixels[..., label % 3] += 75
    return Image.fromarray(pixels.astype(np.uint8))


def _with_boxes(folder):
    """White rectangles on black, flat or tall, and `boxes.csv`."""
    rng, lines = np.random.Generator(np.random.PCG64(1)), []
    for part, count in (("train", 10), ("val", 6)):
        for number in range(count):
            label = number % 2
            h, w = (15, 28)[:: 1 - 2 * label]
            top, left = int(rng.integers(0, 48 - h)), int(rng.integers(0, 60 - w))
            pixels = np.zeros((48, 60, 3), dtype=np.uint8)
            pixels[top : top + h, left : left + w] = 255
            name = f"class{label}/{part}{number}.png"
            (folder / part / name).parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels).save(folder / part / name)
            lines.append(f"{name},{left},{top},{left + w},{top + h},class{label}\n")
    (folder / "boxes.csv").write_text("".join(lines))
    return folder


def _curves(run):
    """Return the figures of every step and of every epoch."""
    epochs = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    names = ("step", "loss", "training_error", "validation_error", "learning_rate")
    losses, rates = _points(run, "step/loss"), _points(run, "step/learning_rate")
    return {"losses": losses, "rates": rates, "epochs": {name: [epoch[name] for epoch in epochs] for name in names}}


def _points(run, tag):
    """Return what TensorBoard draws, in the order of its steps."""
    found = {}
    for file in sorted((run / "tensorboard").iterdir()):
        data, place = file.read_bytes(), 0
        while place < len(data):  # length, its checksum, record, its checksum
            (length,) = struct.unpack_from("<Q", data, place)
            event = Event.FromString(data[place + 12 : place + 12 + length])
            place += 12 + length + 4
            for value in event.summary.value:
                if value.tag == tag:
                    found[event.step] = value.simple_value
    return [found[step] for step in sorted(found)]


def _evaluated(run, images, **how):
    found = evaluate(run, data=images, cache=False, **how)
    return {"wrong": found.fused.top1_wrong, "posteriors": found.images.posteriors.tolist()}


def _summary(values):
    """Shape, root mean square, and numbers from all over it."""
    flat = values.astype(np.float64).ravel()
    chosen = flat[:: max(1, len(flat) // 8)].tolist()
    return {"shape": list(values.shape), "rms": math.sqrt((flat**2).mean()), "some": chosen}


def rounded(value):
    """To 7 digits, as JSON has it."""
    if isinstance(value, dict):
        return {name: rounded(one) for name, one in value.items()}
    if isinstance(value, list | tuple):
        return [rounded(one) for one in value]
    return float(f"{value:.7g}") if isinstance(value, float) else value


if __name__ == "__main__":
    for name in sys.argv[1:] or RECORDED:
        with tempfile.TemporaryDirectory() as folder:
            figures = rounded(RECORDED[name](Path(folder)))
        (FOLDER / f"{name}.json").write_text(json.dumps(figures, separators=(",", ":")) + "\n")
