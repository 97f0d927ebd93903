"""A training that takes a second, for tests and for the scripts that they start."""

import hashlib
import io
from dataclasses import asdict, replace

import numpy as np
from PIL import Image

from verydeep import Recipe
from verydeep.images.sources.source import Sample, memory_source
from verydeep.images.sources.splits import Splits
from verydeep.runs.record import read_metrics

CLASSES = ("dark", "light")

RECIPE = Recipe(crop=32, width=0.05, batch=4, epochs=2, learning_rate=1e-3, scale="256:512", seed=5)

IMAGES = 10
"""Images to train on, in three batches, the last of which is smaller."""

STEPS = 3
"""Steps in an epoch."""


def recipe(epochs):
    """Return a recipe of so many epochs; if nothing is learned the rate drops but does not end the training."""
    return replace(RECIPE, epochs=epochs, patience=max(1, epochs // 3), drops=3)


def pictures(count, seed):
    """Make noise that is dark or light, as PNG files."""
    rng = np.random.default_rng(seed)
    samples = []
    for index in range(count):
        label = index % len(CLASSES)
        buffer = io.BytesIO()
        Image.fromarray((rng.integers(0, 100, (40, 44, 3)) + 150 * label).astype(np.uint8)).save(buffer, "PNG")
        samples.append(Sample(buffer.getvalue(), label, f"{index}.png"))
    return memory_source(classes=CLASSES, samples=tuple(samples))


def splits(training=IMAGES, validation=6):
    return Splits(name="noise", sources={"train": pictures(training, 0), "val": pictures(validation, 1)})


def folder(place, training=IMAGES, validation=6):
    """Write the same images as files, for the command line."""
    for part, source in splits(training, validation).sources.items():
        for sample in source:
            file = place / part / CLASSES[sample.label] / sample.id
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(sample.data)
    return place


def digest(checkpoint):
    """Return a digest of all that does not depend on the clock, to the bit."""
    progress = {**asdict(checkpoint.progress), "seconds": None, "waited": None}
    found = hashlib.sha256(repr(progress).encode())
    for tensors in (checkpoint.weights, checkpoint.momentum):
        for name, value in sorted(tensors.items()):
            found.update(f"{name} {value.dtype} {list(value.shape)}".encode())
            found.update(value.detach().contiguous().numpy().tobytes())
    return found.hexdigest()


def learning(run):
    """Return the metrics that do not depend on the clock."""
    names = ("epoch", "step", "learning_rate", "loss", "training_error", "validation_error")
    return [{name: getattr(epoch, name) for name in names} for epoch in read_metrics(run)]


def strays(run):
    """Return leftovers of files and folders that were being written."""
    return sorted(str(path.relative_to(run)) for path in run.rglob(".*"))
