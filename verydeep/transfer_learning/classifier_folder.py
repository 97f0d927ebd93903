"""A linear SVM over networks' features as a folder that holds all it needs.

FOLDER/classifier.json         classes, whether an image may show several, descriptors, C, and the SHA-256 of all files
FOLDER/classifier.safetensors  weights [classes, D] and biases [classes]
FOLDER/0, FOLDER/1, ...        the networks' models (config.json, model.safetensors), in the order of the features
"""

import hashlib
import json
import math
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from verydeep.descriptors.descriptor import Descriptor, VectorPool
from verydeep.evaluation.pixel_limits import MOST_PIXELS
from verydeep.machine import atomic
from verydeep.machine.documents import converted, read_json
from verydeep.machine.errors import one_line
from verydeep.networks.architecture import PAPER_CROP
from verydeep.networks.scales import check_test_scales
from verydeep.numbers import counted, first_few, number
from verydeep.runs.files import CLASSIFIER, CONFIG, WEIGHTS
from verydeep.runs.model import Model, file_sha256, load_config, load_model, save_model
from verydeep.transfer_learning.linear_svm import LinearSVM

_SVM_WEIGHTS = "classifier.safetensors"

_FORMAT = 1

_NETWORK_FIELDS = ("scales", "pool", "mirror", "normalise")

_MOST_NAMED = 3
"""Most of the files in the way that a message names."""


@dataclass(frozen=True, kw_only=True)
class FeatureClassifier:
    """A linear SVM and the networks whose features it takes."""

    svm: LinearSVM
    classes: tuple[str, ...]
    models: tuple[Model, ...]
    descriptors: tuple[Descriptor, ...]
    """One for each network."""
    several_labels: bool = False
    """Whether an image may show several classes."""


@dataclass(frozen=True, kw_only=True)
class _Format:
    """The field that files of all versions have."""

    format: int


@dataclass(frozen=True, kw_only=True)
class _Network:
    """How one network's features are computed."""

    scales: tuple[int, ...]
    pool: VectorPool
    mirror: bool
    normalise: bool
    model_sha256: str | None = None
    """SHA-256 of the network's weights; None in older files."""

    def __post_init__(self) -> None:
        """Refuse scales that are not possible."""
        check_test_scales(self.scales)


@dataclass(frozen=True, kw_only=True)
class _Stored:
    """The contents of classifier.json; the fields with a default are missing in older ones."""

    format: int
    classes: tuple[str, ...]
    several_labels: bool = False
    c: float
    networks: tuple[_Network, ...]
    weights_sha256: str
    sha256: str | None = None

    def __post_init__(self) -> None:
        """Refuse values that no classifier has."""
        if self.format < 1:
            raise ValueError("format is below 1")
        if not self.classes or len(set(self.classes)) < len(self.classes):
            raise ValueError("classes are not distinct names")
        if not 0 < self.c < math.inf:
            raise ValueError("c is not a number above 0")
        if not self.networks:
            raise ValueError("networks are missing")


def is_classifier(folder: str | Path) -> bool:
    """Return whether a folder is one that `save_classifier` wrote."""
    return (atomic.locate(Path(folder)) / CLASSIFIER).is_file()


def check_classifier_folder(folder: Path) -> None:
    """Refuse, before any work, a folder that cannot be replaced without a loss.

    Raises:
        ValueError: it holds something other than a classifier, or is the process's working folder.
        OSError: it is a folder of the system, as one that is mounted, or nothing can be written beside it.
    """
    path = Path(os.path.realpath(atomic.locate(folder)))
    if path.exists():
        others = _other_contents(path) if path.is_dir() else [path.name]
        if others:
            named = first_few(others, _MOST_NAMED)
            raise ValueError(f"{folder} contains something other than a classifier ({named}): choose another folder")
        if Path.cwd().is_relative_to(path):  # a shell in it would remain in the deleted one
            raise ValueError(
                f"{folder} is the folder you are in, which would be replaced: choose another, or leave it first"
            )
    atomic.check_new_folder(folder)


def _other_contents(path: Path) -> list[str]:
    """List the files in a folder besides those of a whole classifier."""
    entries = list(path.iterdir())
    try:
        networks = len(_read_file(path).networks)
    except (OSError, ValueError):
        return sorted(entry.name for entry in entries)
    folders = {path / str(place) for place in range(networks)}
    files = {path / CLASSIFIER, path / _SVM_WEIGHTS}
    files |= {folder / name for folder in folders for name in (CONFIG, WEIGHTS)}
    entries += [entry for folder in folders if folder.is_dir() for entry in folder.iterdir()]
    own = {entry for entry in entries if (entry in folders and entry.is_dir()) or (entry in files and entry.is_file())}
    return sorted(entry.relative_to(path).as_posix() for entry in entries if entry not in own)


def save_classifier(classifier: FeatureClassifier, folder: Path) -> None:
    """Write a classifier and copies of its networks; the folder appears whole.

    Args:
        classifier: its SVM is over the networks' features, one network's after the other's.
        folder: replaced if it holds a classifier, made if it does not exist.

    Raises:
        ValueError: as `check_classifier_folder`.
        OSError: it cannot be written.
    """
    check_classifier_folder(folder)
    svm = classifier.svm
    with atomic.new_folder(folder) as aside:
        networks = []
        for place, (model, descriptor) in enumerate(zip(classifier.models, classifier.descriptors, strict=True)):
            save_model(model, aside / str(place))
            described = {name: getattr(descriptor, name) for name in _NETWORK_FIELDS}
            networks.append({**described, "model_sha256": load_config(aside / str(place)).weights_sha256})
        save_file({"weights": svm.weights, "biases": svm.biases}, aside / _SVM_WEIGHTS)
        stored = {
            "format": _FORMAT,
            "classes": list(classifier.classes),
            "several_labels": classifier.several_labels,
            "c": svm.c,
            "networks": networks,
            "weights_sha256": file_sha256(aside / _SVM_WEIGHTS),
        }
        atomic.write_json(aside / CLASSIFIER, {**stored, "sha256": _sha256(stored)})


def load_classifier(folder: str | Path) -> FeatureClassifier:
    """Load the classifier that `save_classifier` wrote, on the CPU.

    Raises:
        ValueError: the folder holds none, or it is damaged or of a newer version.
    """
    path = atomic.locate(Path(folder))
    if not (path / CLASSIFIER).is_file():
        raise ValueError(f"{folder} holds no classifier: verydeep transfer --out FOLDER writes one")
    try:
        return _loaded(path)
    except (OSError, ValueError, SafetensorError) as error:
        raise ValueError(f"{folder} does not hold a usable classifier: {one_line(error)}") from error


def _loaded(path: Path) -> FeatureClassifier:
    stored = _read_file(path)
    descriptors = tuple(Descriptor(**{name: getattr(one, name) for name in _NETWORK_FIELDS}) for one in stored.networks)
    models = tuple(_loaded_model(path, place, one) for place, one in enumerate(stored.networks))
    features = sum(_feature_count(*pair) for pair in zip(models, descriptors, strict=True))
    return FeatureClassifier(
        svm=_loaded_svm(path / _SVM_WEIGHTS, stored, features),
        classes=stored.classes,
        models=models,
        descriptors=descriptors,
        several_labels=stored.several_labels,
    )


def _loaded_model(path: Path, place: int, network: _Network) -> Model:
    model = load_model(path / str(place))
    if network.model_sha256 not in (None, model.weights_sha256):
        raise ValueError(
            f"{place}/{WEIGHTS} is of another network than the classifier was fitted to: its SHA-256 differs"
        )
    return model


def _loaded_svm(file: Path, stored: _Stored, features: int) -> LinearSVM:
    if stored.weights_sha256 != file_sha256(file):
        raise ValueError(f"{file.name} has changed since it was saved: its SHA-256 differs")
    arrays = load_file(file)
    if set(arrays) != {"weights", "biases"}:
        raise ValueError(f"{file.name} contains something other than weights and biases")
    weights, biases, classes = arrays["weights"], arrays["biases"], len(stored.classes)
    if weights.shape != (classes, features) or biases.shape != (classes,):
        raise ValueError(
            f"{counted(classes, 'class', 'classes')} and {counted(features, 'feature')} do not go with weights "
            f"{list(weights.shape)} and biases {list(biases.shape)}"
        )
    return LinearSVM(weights=weights, biases=biases, c=stored.c)


def _feature_count(model: Model, descriptor: Descriptor) -> int:
    """Return how many numbers describe an image.

    Raises:
        ValueError: the scales are too large to describe any image.
    """
    largest = math.isqrt(MOST_PIXELS) * PAPER_CROP // model.net.architecture.crop
    scales = [scale for scale in descriptor.scales if isinstance(scale, int)]
    if max(scales) > largest:
        raise ValueError(f"scales are above {number(largest)}, too large for any image")
    return model.net.fc7.out_features * (len(scales) if descriptor.pool == "stack" else 1)


def _read_file(folder: Path) -> _Stored:
    """Return the contents of a folder's classifier.json, every value checked.

    Raises:
        ValueError: it cannot be read, or is damaged or of a newer version.
    """
    said = read_json(folder / CLASSIFIER, dict[str, Any])
    if said.get("format", 0) != _FORMAT and converted(said, _Format).format > _FORMAT:
        raise ValueError("a newer version of verydeep wrote it")
    try:
        stored = converted(said, _Stored, exact=True)
        for network in said["networks"]:
            converted(network, _Network, exact=True)
    except ValueError as error:
        raise ValueError(f"{CLASSIFIER}: {error}") from error
    if stored.sha256 not in (None, _sha256(said)):
        raise ValueError(f"{CLASSIFIER} has changed since it was saved: its SHA-256 differs")
    return stored


def _sha256(stored: dict[str, Any]) -> str:
    """Return the SHA-256 of all that classifier.json says except itself."""
    said = {name: value for name, value in stored.items() if name != "sha256"}
    return hashlib.sha256(json.dumps(said, sort_keys=True).encode()).hexdigest()
