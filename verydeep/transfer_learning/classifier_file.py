"""classifier.json: all about a classifier but its weights, written, and read with every field checked."""

import hashlib
import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

from verydeep.descriptors.descriptor import Descriptor, VectorPool
from verydeep.machine import atomic
from verydeep.networks.configurations import PAPER_CROP
from verydeep.runs.files import CLASSIFIER

_FORMAT = 1

_FIELDS = frozenset({"format", "classes", "c", "networks", "weights_sha256"})

_NEWER_FIELDS = frozenset({"several_labels", "sha256"})
"""What older classifiers lack."""

_NETWORK_FIELDS = ("scales", "pool", "mirror", "normalise")


@dataclass(frozen=True, kw_only=True)
class ClassifierFile:
    """Contents of a classifier.json."""

    classes: tuple[str, ...]
    several_labels: bool
    """Whether an image may show several classes."""
    c: float
    descriptors: tuple[Descriptor, ...]
    """One for each network, in the order of the features."""
    weights_sha256: str
    """SHA-256 of classifier.safetensors."""


def write_classifier_file(folder: Path, contents: ClassifierFile) -> None:
    """Write classifier.json into a folder, with a SHA-256 of itself.

    Raises:
        OSError: it cannot be written.
    """
    stored = {
        "format": _FORMAT,
        "classes": list(contents.classes),
        "several_labels": contents.several_labels,
        "c": contents.c,
        "networks": [{name: getattr(one, name) for name in _NETWORK_FIELDS} for one in contents.descriptors],
        "weights_sha256": contents.weights_sha256,
    }
    atomic.write_json(folder / CLASSIFIER, {**stored, "sha256": _sha256(stored)})


def read_classifier_file(folder: Path) -> ClassifierFile:
    """Read the classifier.json of a folder.

    Raises:
        ValueError: it is damaged or of a newer version.
        OSError: it cannot be read.
    """
    stored = _read_object(folder / CLASSIFIER)
    _check_format(stored)
    _check_names(stored, _FIELDS, optional=_NEWER_FIELDS)
    _check_classifier(stored)
    for network in stored["networks"]:
        _check_network(network)
    if stored.get("sha256") not in (None, _sha256(stored)):
        raise ValueError(f"{CLASSIFIER} is not what was saved: its SHA-256 differs")
    return ClassifierFile(
        classes=tuple(stored["classes"]),
        several_labels=stored.get("several_labels", False),
        c=stored["c"],
        descriptors=tuple(Descriptor(**{**one, "scales": tuple(one["scales"])}) for one in stored["networks"]),
        weights_sha256=stored["weights_sha256"],
    )


def _read_object(file: Path) -> dict[str, Any]:
    try:
        stored = json.loads(file.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{file.name} is not valid JSON: {error}") from error
    return stored if isinstance(stored, dict) else {}


def _check_format(stored: dict[str, Any]) -> None:
    version = stored.get("format")
    if type(version) is not int or version < 1:
        raise ValueError(f"{CLASSIFIER} says no format")
    if version > _FORMAT:
        raise ValueError("a newer version of verydeep wrote it")


def _check_classifier(stored: dict[str, Any]) -> None:
    if not _is_list_of(str, stored["classes"]) or _has_repeats(stored["classes"]):
        raise ValueError("classes are not distinct names")
    if type(stored.get("several_labels", False)) is not bool:
        raise ValueError("several_labels is not true or false")
    if type(stored["c"]) not in (int, float) or not 0 < stored["c"] < math.inf:
        raise ValueError("c is not a number above 0")
    if not _is_list_of(dict, stored["networks"]):
        raise ValueError("networks are not a list of descriptors")


def _check_network(network: dict[str, Any]) -> None:
    _check_names(network, frozenset(_NETWORK_FIELDS))
    scales = network["scales"]
    if not _is_list_of(int, scales) or min(scales) < PAPER_CROP or _has_repeats(scales):
        raise ValueError(f"scales are not distinct whole numbers from {PAPER_CROP} up")
    if network["pool"] not in get_args(VectorPool):
        raise ValueError(f"pool is not {' or '.join(get_args(VectorPool))}")
    for name in ("mirror", "normalise"):
        if type(network[name]) is not bool:
            raise ValueError(f"{name} is not true or false")


def _check_names(stored: dict[str, Any], required: frozenset[str], *, optional: frozenset[str] = frozenset()) -> None:
    if missing := sorted(required - set(stored)):
        raise ValueError(f"{CLASSIFIER} lacks {', '.join(map(repr, missing))}")
    if unknown := sorted(set(stored) - required - optional):
        raise ValueError(f"{CLASSIFIER} has unknown values: {', '.join(map(repr, unknown))}")


def _is_list_of(kind: type, value: object) -> bool:
    """Return whether it is a list of one or more values of a kind; true and false are not numbers."""
    return isinstance(value, list) and bool(value) and all(type(one) is kind for one in value)


def _has_repeats(values: list[Any]) -> bool:
    return len(set(values)) < len(values)


def _sha256(stored: dict[str, Any]) -> str:
    """Return the SHA-256 of all that classifier.json says except itself."""
    said = {name: value for name, value in stored.items() if name != "sha256"}
    return hashlib.sha256(json.dumps(said, sort_keys=True).encode()).hexdigest()
