"""A linear SVM over networks' features as a folder that holds all it needs.

FOLDER/classifier.json         classes, whether an image may show several, descriptors, C, SHA-256 of weights and itself
FOLDER/classifier.safetensors  weights [classes, D] and biases [classes]
FOLDER/0, FOLDER/1, ...        the networks' models (config.json, model.safetensors), in the order of the features
"""

import math
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from verydeep.descriptors.descriptor import Descriptor
from verydeep.descriptors.extraction import Extraction
from verydeep.evaluation.pixel_limits import MOST_PIXELS
from verydeep.machine import atomic
from verydeep.machine.errors import one_line
from verydeep.networks.configurations import PAPER_CROP
from verydeep.runs.files import CLASSIFIER, CONFIG, WEIGHTS
from verydeep.runs.model import Model, file_sha256, load_model, save_model
from verydeep.transfer_learning.classifier_file import ClassifierFile, read_classifier_file, write_classifier_file
from verydeep.transfer_learning.linear_svm import LinearSVM

_SVM_WEIGHTS = "classifier.safetensors"

_MOST_NAMED = 3
"""Files in the way that a message names."""


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


def is_classifier(folder: str | Path) -> bool:
    """Return whether a folder is one that `save_classifier` wrote."""
    return (atomic.locate(Path(folder)) / CLASSIFIER).is_file()


def check_classifier_folder(folder: Path) -> None:
    """Refuse, before any work, a folder that cannot be replaced without a loss.

    Raises:
        ValueError: it holds something other than a classifier, or is the process's working folder.
    """
    path = Path(os.path.realpath(atomic.locate(folder)))
    if not path.exists():
        return
    others = _other_contents(path) if path.is_dir() else [path.name]
    if others:
        named = ", ".join([*others[:_MOST_NAMED], *(["..."] if len(others) > _MOST_NAMED else [])])
        raise ValueError(f"{folder} holds other things than a classifier ({named}): choose another folder")
    if Path.cwd().is_relative_to(path):  # a shell in it would remain in the deleted one
        raise ValueError(
            f"{folder} is the folder you are in, which would be replaced: choose another, or leave it first"
        )


def _other_contents(path: Path) -> list[str]:
    """Return what a folder holds besides the files of a whole classifier."""
    entries = list(path.iterdir())
    try:
        networks = len(read_classifier_file(path).descriptors)
    except (OSError, ValueError):
        return sorted(entry.name for entry in entries)
    folders = {path / str(number) for number in range(networks)}
    files = {path / CLASSIFIER, path / _SVM_WEIGHTS}
    files |= {folder / name for folder in folders for name in (CONFIG, WEIGHTS)}
    entries += [entry for folder in folders if folder.is_dir() for entry in folder.iterdir()]
    own = {entry for entry in entries if (entry in folders and entry.is_dir()) or (entry in files and entry.is_file())}
    return sorted(entry.relative_to(path).as_posix() for entry in entries if entry not in own)


def save_classifier(
    svm: LinearSVM,
    extractions: Sequence[Extraction],
    classes: Sequence[str],
    folder: Path,
    *,
    several_labels: bool = False,
) -> None:
    """Write a classifier and copies of its networks; the folder appears whole.

    Args:
        svm: over the extracted features, one network's after the other's.
        extractions: one for each network.
        classes: their names.
        folder: replaced if it holds a classifier, made if it does not exist.
        several_labels: whether an image may show several classes.

    Raises:
        ValueError: as `check_classifier_folder`.
        OSError: it cannot be written.
    """
    from safetensors.numpy import save_file

    check_classifier_folder(folder)
    with atomic.new_folder(folder) as aside:
        for number, one in enumerate(extractions):
            save_model(one.model, aside / str(number))
        save_file({"weights": svm.weights, "biases": svm.biases}, aside / _SVM_WEIGHTS)
        contents = ClassifierFile(
            classes=tuple(classes),
            several_labels=several_labels,
            c=svm.c,
            descriptors=tuple(one.descriptor for one in extractions),
            weights_sha256=file_sha256(aside / _SVM_WEIGHTS),
        )
        write_classifier_file(aside, contents)


def load_classifier(folder: str | Path) -> FeatureClassifier:
    """Load the classifier that `save_classifier` wrote, on the CPU.

    Raises:
        ValueError: the folder holds none, or it is damaged or of a newer version.
    """
    from safetensors import SafetensorError

    path = atomic.locate(Path(folder))
    if not (path / CLASSIFIER).is_file():
        raise ValueError(f"{folder} holds no classifier: verydeep transfer --out FOLDER writes one")
    try:
        return _loaded(path)
    except (OSError, ValueError, SafetensorError) as error:
        raise ValueError(f"{folder} does not hold a usable classifier: {one_line(error)}") from error


def _loaded(path: Path) -> FeatureClassifier:
    contents = read_classifier_file(path)
    models = tuple(load_model(path / str(number)) for number in range(len(contents.descriptors)))
    features = sum(_feature_count(*pair) for pair in zip(models, contents.descriptors, strict=True))
    return FeatureClassifier(
        svm=_loaded_svm(path / _SVM_WEIGHTS, contents, features),
        classes=contents.classes,
        models=models,
        descriptors=contents.descriptors,
        several_labels=contents.several_labels,
    )


def _loaded_svm(file: Path, contents: ClassifierFile, features: int) -> LinearSVM:
    from safetensors.numpy import load_file

    if contents.weights_sha256 != file_sha256(file):
        raise ValueError(f"{file.name} is not what was saved: its SHA-256 differs")
    arrays = load_file(file)
    if set(arrays) != {"weights", "biases"}:
        raise ValueError(f"{file.name} holds other things than weights and biases")
    weights, biases, classes = arrays["weights"], arrays["biases"], len(contents.classes)
    if weights.shape != (classes, features) or biases.shape != (classes,):
        raise ValueError(
            f"{classes:,} classes and {features:,} features do not go with weights {list(weights.shape)} "
            f"and biases {list(biases.shape)}"
        )
    return LinearSVM(weights=weights, biases=biases, c=contents.c)


def _feature_count(model: Model, descriptor: Descriptor) -> int:
    """Return how many numbers describe an image.

    Raises:
        ValueError: the scales are too large to describe any image.
    """
    largest = math.isqrt(MOST_PIXELS) * PAPER_CROP // model.net.architecture.crop
    scales = [scale for scale in descriptor.scales if isinstance(scale, int)]
    if max(scales) > largest:
        raise ValueError(f"scales are above {largest:,}, too large for any image")
    return model.net.fc7.out_features * (len(scales) if descriptor.pool == "stack" else 1)
