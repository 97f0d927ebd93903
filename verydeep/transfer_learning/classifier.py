"""A linear SVM over networks' features as a folder that holds all it needs, and what it makes of images.

FOLDER/classifier.json         classes, whether an image may show several, descriptors, C, SHA-256 of weights and itself
FOLDER/classifier.safetensors  weights [classes, D] and biases [classes]
FOLDER/0, FOLDER/1, ...        the networks' models (config.json, model.safetensors), in the order of the features
"""

import hashlib
import json
import math
import os
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from verydeep.descriptors.descriptor import PENULTIMATE, Descriptor
from verydeep.descriptors.features import Extraction, compute_part, extraction
from verydeep.evaluation.dense import MOST_PIXELS
from verydeep.images.open import open_given
from verydeep.images.sources.given import GivenImage, GivenImages
from verydeep.images.tolerance import MAX_PIXELS, Tolerance
from verydeep.machine import atomic
from verydeep.machine.runtime import Runtime
from verydeep.networks.configurations import PAPER_CROP
from verydeep.prediction import pieces
from verydeep.runs.files import CLASSIFIER, CONFIG, WEIGHTS
from verydeep.runs.model import Model, file_sha256, load_model, save_model
from verydeep.transfer_learning.linear_svm import LinearSVM, stacked

ABOUT, SVM_WEIGHTS = CLASSIFIER, "classifier.safetensors"

FORMAT = 1

NAMED = 3
"""Files that are in the way, at most."""

_LATER = frozenset({"several_labels", "sha256"})
"""What older classifiers lack."""


@dataclass(frozen=True, kw_only=True)
class FeatureClassifier:
    """A linear SVM and the networks whose features it takes."""

    svm: LinearSVM
    classes: tuple[str, ...]
    models: tuple[Model, ...]
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
    return (atomic.locate(Path(folder)) / ABOUT).is_file()


def check_classifier_folder(folder: Path) -> None:
    """Refuses, before any work, a folder that cannot be replaced without a loss.

    Raises:
        ValueError: it holds something else than a classifier, or is the one in which the process works.
    """
    place = Path(os.path.realpath(atomic.locate(folder)))
    if not place.exists():
        return
    others = _in_the_way(place) if place.is_dir() else [place.name]
    if others:
        named = ", ".join([*others[:NAMED], *(["..."] if len(others) > NAMED else [])])
        raise ValueError(f"{folder} holds other things than a classifier ({named}): choose another folder")
    if Path.cwd().is_relative_to(place):  # a shell in it would go on in the one that is deleted
        raise ValueError(
            f"{folder} is the folder you are in, which would be replaced: choose another, or leave it first"
        )


def _in_the_way(place: Path) -> list[str]:
    """What a folder holds besides a whole classifier's files."""
    found = list(place.iterdir())
    try:
        networks = len(_about(place)["networks"])
    except (OSError, ValueError):
        return sorted(entry.name for entry in found)
    folders = {place / str(number) for number in range(networks)}
    files = {place / ABOUT, place / SVM_WEIGHTS}
    files |= {folder / name for folder in folders for name in (CONFIG, WEIGHTS)}
    found += [entry for folder in folders if folder.is_dir() for entry in folder.iterdir()]
    own = {entry for entry in found if (entry in folders and entry.is_dir()) or (entry in files and entry.is_file())}
    return sorted(entry.relative_to(place).as_posix() for entry in found if entry not in own)


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
        ValueError: as `check_classifier_folder`.
        OSError: it cannot be written.
    """
    from safetensors.numpy import save_file

    check_classifier_folder(folder)
    with atomic.new_folder(folder) as aside:
        for number, one in enumerate(asked):
            save_model(one.model, aside / str(number))
        save_file({"weights": svm.weights, "biases": svm.biases}, aside / SVM_WEIGHTS)
        about = {
            "format": FORMAT,
            "classes": list(classes),
            "several_labels": several_labels,
            "c": svm.c,
            "networks": [
                {"scales": list(one.scales), "pool": one.pool, "mirror": one.mirror, "normalise": one.normalise}
                for one in asked
            ],
            "weights_sha256": file_sha256(aside / SVM_WEIGHTS),
        }
        atomic.write_json(aside / ABOUT, {**about, "sha256": _sha256(about)})


def load_classifier(folder: str | Path) -> FeatureClassifier:
    """The classifier that `save_classifier` wrote, on the CPU.

    Raises:
        ValueError: the folder holds none, or it is damaged or of a newer version.
    """
    from safetensors import SafetensorError

    path = atomic.locate(Path(folder))
    if not (path / ABOUT).is_file():
        raise ValueError(f"{folder} holds no classifier: verydeep transfer --out FOLDER writes one")
    try:
        return _loaded(path)
    except (OSError, ValueError, SafetensorError) as error:
        raise ValueError(f"{folder} does not hold a usable classifier: {' '.join(str(error).split())}") from error


def _loaded(path: Path) -> FeatureClassifier:
    from safetensors.numpy import load_file

    about = _about(path)
    if about["weights_sha256"] != file_sha256(path / SVM_WEIGHTS):
        raise ValueError(f"{SVM_WEIGHTS} is not what was saved: its SHA-256 differs")
    arrays = load_file(path / SVM_WEIGHTS)
    if set(arrays) != {"weights", "biases"}:
        raise ValueError(f"{SVM_WEIGHTS} holds other things than weights and biases")
    svm = LinearSVM(weights=arrays["weights"], biases=arrays["biases"], c=about["c"])
    models = tuple(load_model(path / str(number)) for number in range(len(about["networks"])))
    numbers = sum(_numbers(model, **one) for model, one in zip(models, about["networks"], strict=True))
    wanted = (len(about["classes"]), numbers)
    if svm.weights.shape != wanted or svm.biases.shape != wanted[:1]:
        raise ValueError(
            f"{wanted[0]:,} classes and {numbers:,} features do not go with weights {list(svm.weights.shape)} "
            f"and biases {list(svm.biases.shape)}"
        )
    return FeatureClassifier(
        svm=svm,
        classes=tuple(about["classes"]),
        models=models,
        descriptors=tuple(Descriptor(**one) for one in about["networks"]),
        several_labels=about.get("several_labels", False),
    )


def _numbers(model: Model, *, scales: list[int], pool: str, **_: bool) -> int:
    """How many describe an image.

    Raises:
        ValueError: at such a scale none can be described.
    """
    largest = math.isqrt(MOST_PIXELS) * PAPER_CROP // model.net.architecture.crop
    if max(scales) > largest:
        raise ValueError(f"scales are above {largest:,}, too large for any image")
    return model.net.fc7.out_features * (len(scales) if pool == "stack" else 1)


def _about(path: Path) -> dict[str, Any]:
    """What classifier.json says.

    Raises:
        ValueError: it is damaged or of a newer version.
        OSError: it cannot be read.
    """
    try:
        about = json.loads((path / ABOUT).read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{ABOUT} is no JSON: {error}") from error
    version = about.get("format") if isinstance(about, dict) else None
    if type(version) is not int or version < 1:
        raise ValueError(f"{ABOUT} says no format")
    if version > FORMAT:
        raise ValueError("a newer version of verydeep wrote it")
    _check_names(about, {"format", "classes", "c", "networks", "weights_sha256"}, optional=_LATER)
    classes, c, networks = about["classes"], about["c"], about["networks"]
    if not _is_list(classes, str) or len(set(classes)) < len(classes):
        raise ValueError("classes are not different names")
    if type(about.get("several_labels", False)) is not bool:
        raise ValueError("several_labels is not true or false")
    if type(c) not in (int, float) or not 0 < c < math.inf:
        raise ValueError("c is no number above 0")
    if not _is_list(networks, dict):
        raise ValueError("networks are no list of descriptors")
    for network in networks:
        _check_descriptor(network)
    if about.get("sha256") not in (None, _sha256(about)):
        raise ValueError(f"{ABOUT} is not what was saved: its SHA-256 differs")
    return cast(dict[str, Any], about)


def _check_descriptor(network: dict[str, Any]) -> None:
    _check_names(network, {"scales", "pool", "mirror", "normalise"})
    scales = network["scales"]
    if not _is_list(scales, int) or min(scales) < PAPER_CROP or len(set(scales)) < len(scales):
        raise ValueError(f"scales are not different whole numbers from {PAPER_CROP} up")
    if network["pool"] not in ("avg", "stack"):
        raise ValueError("pool is not avg or stack")
    for name in ("mirror", "normalise"):
        if type(network[name]) is not bool:
            raise ValueError(f"{name} is not true or false")


def _check_names(values: dict[str, Any], wanted: set[str], *, optional: frozenset[str] = frozenset()) -> None:
    if missing := sorted(wanted - set(values)):
        raise ValueError(f"{ABOUT} lacks {', '.join(map(repr, missing))}")
    if unknown := sorted(set(values) - wanted - optional):
        raise ValueError(f"{ABOUT} has unknown values: {', '.join(map(repr, unknown))}")


def _is_list(value: Any, kind: type) -> bool:
    """Whether it is one of at least one value, all of a kind; true and false are no numbers."""
    return isinstance(value, list) and bool(value) and all(type(one) is kind for one in value)


def _sha256(about: dict[str, Any]) -> str:
    """Of all that classifier.json says but this."""
    said = {name: value for name, value in about.items() if name != "sha256"}
    return hashlib.sha256(json.dumps(said, sort_keys=True).encode()).hexdigest()


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
    source = open_given(images)
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
