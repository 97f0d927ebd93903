"""A linear SVM over networks' features as a folder that holds all it needs, and what it makes of images.

FOLDER/classifier.json         classes, whether an image may show several, descriptor, C, SHA-256 of the weights
FOLDER/classifier.safetensors  weights [classes, D] and biases [classes]
FOLDER/0, FOLDER/1, ...        the networks' models (config.json, model.safetensors), in the order of the features
"""

import json
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from verydeep import atomic, runs
from verydeep.deployment import pieces
from verydeep.deployment.features import PENULTIMATE, Descriptor, Extraction, compute_part, extraction
from verydeep.deployment.linear_svm import LinearSVM, stacked
from verydeep.images.given import GivenImage, GivenImages, given_images
from verydeep.images.tolerance import MAX_PIXELS, Tolerance
from verydeep.runtime import Runtime

ABOUT, WEIGHTS = runs.CLASSIFIER, "classifier.safetensors"

FORMAT = 1


@dataclass(frozen=True, kw_only=True)
class FeatureClassifier:
    """A linear SVM and the networks whose features it takes."""

    svm: LinearSVM
    classes: tuple[str, ...]
    models: tuple[runs.Model, ...]
    descriptors: tuple[Descriptor, ...]
    """Of each network."""
    several_labels: bool = False
    """Whether an image may show several classes."""


@dataclass(frozen=True, kw_only=True)
class Classification:
    """What a classifier makes of one image."""

    image: str
    """Its path; `image 3` for the fourth of those given as pixels or bytes."""
    classes: tuple[str, ...]
    """Those with the highest scores, the first first; empty when the image cannot be used."""
    scores: tuple[float, ...]
    """Of each, in units of the margin: above 0 on the class's side of its plane. They are no probabilities."""
    error: str | None = None
    """Why the image cannot be used."""

    def to_dict(self) -> dict[str, Any]:
        """The same as a plain dictionary, ready for JSON."""
        return asdict(self)


def is_classifier(folder: str | Path) -> bool:
    """Whether a folder is one that `save_classifier` wrote."""
    return (atomic.standing(Path(folder)) / ABOUT).is_file()


def check_classifier_folder(folder: Path) -> None:
    """Refuses, before any work, a folder that holds something else than a classifier.

    Raises:
        ValueError: it does.
    """
    if folder.exists() and not (folder.is_dir() and ((folder / ABOUT).is_file() or not any(folder.iterdir()))):
        raise ValueError(f"{folder} holds other things than a classifier: choose another folder")


def save_classifier(
    svm: LinearSVM,
    asked: Sequence[Extraction],
    classes: Sequence[str],
    folder: Path,
    *,
    several_labels: bool = False,
) -> None:
    """Writes a classifier and copies of its networks; the folder appears whole.

    Args:
        svm: over the features that were asked for, one network's after the other's.
        asked: of each network.
        classes: their names.
        folder: replaced if it holds a classifier, made if it is not there.
        several_labels: whether an image may show several classes.

    Raises:
        ValueError: the folder holds other things.
        OSError: it cannot be written.
    """
    from safetensors.numpy import save_file

    check_classifier_folder(folder)
    with atomic.new_folder(folder) as aside:
        for number, one in enumerate(asked):
            runs.save_model(one.model, aside / str(number))
        save_file({"weights": svm.weights, "biases": svm.biases}, aside / WEIGHTS)
        about = {
            "format": FORMAT,
            "classes": list(classes),
            "several_labels": several_labels,
            "c": svm.c,
            "networks": [
                {"scales": list(one.scales), "pool": one.pool, "mirror": one.mirror, "normalise": one.normalise}
                for one in asked
            ],
            "weights_sha256": runs.file_sha256(aside / WEIGHTS),
        }
        atomic.write_json(aside / ABOUT, about)


def load_classifier(folder: str | Path) -> FeatureClassifier:
    """The classifier that `save_classifier` wrote, on the CPU.

    Raises:
        ValueError: the folder holds none, or it is damaged or of a newer version.
    """
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    path = atomic.standing(Path(folder))
    if not (path / ABOUT).is_file():
        raise ValueError(f"{folder} holds no classifier: verydeep transfer --out FOLDER writes one")
    try:
        about = json.loads((path / ABOUT).read_text(encoding="utf-8"))
        if about["format"] > FORMAT:
            raise ValueError("a newer version of verydeep wrote it")
        if about["weights_sha256"] != runs.file_sha256(path / WEIGHTS):
            raise ValueError(f"{WEIGHTS} is not what was saved: its SHA-256 differs")
        arrays, classes = load_file(path / WEIGHTS), tuple(about["classes"])
        descriptors = tuple(Descriptor(**one) for one in about["networks"])
        svm = LinearSVM(weights=arrays["weights"], biases=arrays["biases"], c=about["c"])
        models = tuple(runs.load_model(path / str(number)) for number in range(len(descriptors)))
    except (OSError, ValueError, KeyError, TypeError, SafetensorError) as error:
        raise ValueError(f"{folder} does not hold a usable classifier: {' '.join(str(error).split())}") from error
    several = bool(about.get("several_labels", False))  # a key that older classifiers lack
    return FeatureClassifier(svm=svm, classes=classes, models=models, descriptors=descriptors, several_labels=several)


def classify(
    classifier: str | Path | FeatureClassifier,
    images: GivenImage | GivenImages | Iterable[GivenImage],
    *,
    top: int = 5,
    runtime: Runtime | None = None,
    max_pixels: int = MAX_PIXELS,
) -> Iterator[Classification]:
    """The classes with the highest scores for every image, in the order given, as they are computed.

    Where an image may show several classes, all whose score is above 0 are among them.

    An image that cannot be used gives a classification with `error` set, and the others go on.

    Args:
        classifier: a folder, or a classifier that is loaded already (`load_classifier`).
        images: as for `predict`.
        top: how many classes.
        runtime: device, and processes that decode, so many for each network and scale.
        max_pixels: larger images cannot be used.

    Raises:
        ValueError: unusable classifier, `top` below 1, or a path that does not exist.
    """
    if top < 1:
        raise ValueError(f"top must be 1 or more, not {top}")
    loaded = classifier if isinstance(classifier, FeatureClassifier) else load_classifier(classifier)
    source = images if isinstance(images, GivenImages) else given_images(images)
    tolerance = Tolerance(max_bad=100, max_pixels=max_pixels)
    asked = [
        extraction(model, source, descriptor=descriptor, runtime=runtime, tolerance=tolerance)
        for model, descriptor in zip(loaded.models, loaded.descriptors, strict=True)
    ]
    return _classifications(loaded, asked, source, top)


def _classifications(
    loaded: FeatureClassifier, asked: Sequence[Extraction], source: GivenImages, top: int
) -> Iterator[Classification]:
    """Pieces of the source, each of as many images as take a few seconds."""
    most = min(one.images_at_once for one in asked)
    with ExitStack() as open_now:
        opened = []
        for one in asked:
            limits = {"workers": one.runtime.workers, "max_pixels": one.tolerance.max_pixels}
            opened.append(open_now.enter_context(pieces.decoding(source, share=range(len(source)), **limits)))
        start, at_once = 0, min(pieces.FIRST_IMAGES, most)
        while start < len(source):
            began, indices = time.monotonic(), range(start, min(start + at_once, len(source)))
            parts = [compute_part(one, indices, images) for one, images in zip(asked, opened, strict=True)]
            seconds = time.monotonic() - began
            errors = {refusal.name: refusal.reason for part in parts for refusal in part.refusals}
            rows = [dict(zip(part.indices, part.values[PENULTIMATE], strict=True)) for part in parts]
            for index in indices:
                name = source.ids[index]
                if name in errors:
                    yield Classification(image=name, classes=(), scores=(), error=errors[name])
                else:
                    yield _classification(loaded, name, [of_network[index] for of_network in rows], top)
            start, at_once = indices.stop, min(pieces.next_piece(at_once, seconds), most)


def _classification(
    loaded: FeatureClassifier, name: str, features: Sequence[NDArray[np.floating]], top: int
) -> Classification:
    """Of one image, from its features by each network."""
    scores = loaded.svm.scores(stacked([of_network[None] for of_network in features]))[0]
    shown = int((scores > 0).sum()) if loaded.several_labels else 0
    best = np.argsort(-scores, kind="stable")[: max(top, shown)]
    return Classification(
        image=name,
        classes=tuple(loaded.classes[label] for label in best),
        scores=tuple(scores[best].tolist()),
    )
