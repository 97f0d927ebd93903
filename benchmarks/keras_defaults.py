"""Train Keras' VGG16 for a stated time with Keras' own defaults, and test it once: prints JSON.

What somebody would run who knows Keras and not this package: `keras.applications.VGG16(weights=None)` and its
`preprocess_input`, images stretched to squares and not augmented as `image_dataset_from_directory` gives them, loaded
beside the training by a thread for each core, `compile(loss=..., metrics=...)` and `fit` in batches of 32. The
optimiser is then RMSprop at rate 0.001. With `--optimiser adam` the rest is as in Keras' own example of classifying
photographs, whose network is another: Adam at 3e-4 (1e-3 in some versions of the example, too much for a VGG), batches
of 128, mirrored and rotated images (https://keras.io/examples/vision/image_classification_from_scratch/).
It stops after the last epoch that the time has room for, or where after half of the time the loss of an epoch is
still chance's. Needs `keras` 3; PyTorch computes, unless KERAS_BACKEND says otherwise.

    python benchmarks/keras_defaults.py PHOTOGRAPHS [--crop 64] [--minutes 120] [--optimiser rmsprop] [--seed 0]
"""

import argparse
import json
import os
import time
from pathlib import Path
from typing import Any

os.environ.setdefault("KERAS_BACKEND", "torch")  # read once, when Keras is imported

import keras  # type: ignore[import-not-found]
import numpy as np
from PIL import Image
from plain_training import in_vain, labelled_files

BATCHES = {"rmsprop": 32, "adam": 128}
"""The default of `fit` and of `image_dataset_from_directory`, and the batch of Keras' example."""

ADAM_RATE = 3e-4

CORES = len(os.sched_getaffinity(0))


class Photographs(keras.utils.PyDataset):  # type: ignore[misc]
    """Images of a folder, CLASS/*.jpg, stretched to squares, in batches."""

    def __init__(self, folder: Path, *, crop: int, batch: int, shuffled: np.random.Generator | None) -> None:
        super().__init__(workers=CORES)
        names, self.images = labelled_files(folder)
        self.classes, self.crop, self.batch, self.shuffled = len(names), crop, batch, shuffled
        self.on_epoch_end()

    def __len__(self) -> int:
        return -(-len(self.images) // self.batch)

    def __getitem__(self, index: int) -> tuple[Any, Any]:
        chosen = [self.images[place] for place in self.order[index * self.batch : (index + 1) * self.batch]]
        pixels = np.stack([stretched(path, self.crop) for path, _ in chosen])
        return keras.applications.vgg16.preprocess_input(pixels), np.array([label for _, label in chosen])

    def on_epoch_end(self) -> None:
        """Choose the order of the next epoch."""
        count = len(self.images)
        self.order = np.arange(count) if self.shuffled is None else self.shuffled.permutation(count)


def stretched(path: Path, side: int) -> Any:
    """Return an image as a square, float32 [side, side, 3] in 0..255."""
    with Image.open(path) as file:
        return np.asarray(file.convert("RGB").resize((side, side), Image.Resampling.BILINEAR), np.float32)


class UntilTime(keras.callbacks.Callback):  # type: ignore[misc]
    """Stop when the time has no room for another epoch like the longest one, or when training is in vain."""

    def __init__(self, seconds: float, *, classes: int) -> None:
        super().__init__()
        self.seconds, self.classes, self.in_vain = seconds, classes, False
        self.began, self.ends = time.perf_counter(), [0.0]

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        """Look at the clock, and at the loss."""
        self.ends.append(time.perf_counter() - self.began)
        self.in_vain = in_vain((logs or {})["loss"], passed=self.ends[-1] / self.seconds, classes=self.classes)
        if self.in_vain or self.ends[-1] + max(np.diff(self.ends)) > self.seconds:
            self.model.stop_training = True


def main() -> None:
    """Train for the time, test once, print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("photographs", type=Path, help="a folder with train/CLASS and val/CLASS")
    parser.add_argument("--crop", type=int, default=64)
    parser.add_argument("--minutes", type=float, default=120)
    parser.add_argument("--optimiser", choices=("rmsprop", "adam"), default="rmsprop")
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args()
    keras.utils.set_random_seed(asked.seed)
    training, testing = (
        Photographs(asked.photographs / part, crop=asked.crop, batch=BATCHES[asked.optimiser], shuffled=shuffled)
        for part, shuffled in (("train", np.random.default_rng(asked.seed)), ("val", None))
    )
    net = keras.applications.VGG16(weights=None, classes=training.classes, input_shape=(asked.crop, asked.crop, 3))
    if asked.optimiser == "adam":
        layers = keras.layers.RandomFlip("horizontal"), keras.layers.RandomRotation(0.1)
        net = keras.Sequential([keras.Input((asked.crop, asked.crop, 3)), *layers, net])
    net.compile(
        optimizer=keras.optimizers.Adam(ADAM_RATE) if asked.optimiser == "adam" else "rmsprop",
        loss="sparse_categorical_crossentropy",
        metrics=["accuracy"],
    )
    until = UntilTime(60 * asked.minutes, classes=training.classes)
    history = net.fit(training, epochs=10**6, verbose=2, callbacks=[until]).history
    _, accuracy = net.evaluate(testing, verbose=0)
    found = {
        "cores": CORES,
        "keras": keras.__version__,
        "backend": keras.backend.backend(),
        "seconds": until.ends[-1],
        "epochs": len(until.ends) - 1,
        "losses": history["loss"],
        "in_vain": until.in_vain,
        "top1_error": 100 * (1 - accuracy),
        "n": len(testing.images),
    }
    print(json.dumps({**vars(asked), **found}, default=str, indent=2))


if __name__ == "__main__":
    main()
