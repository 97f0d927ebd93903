"""Posteriors of a source kept under all that they follow from, so that a second protocol or a fusion reuses them.

They lie in the user's folder for caches; deleting them loses nothing but time.
"""

import hashlib
import json
import os
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from verydeep import atomic, cache
from verydeep.images.decode import UnusableImageError

KIND = "posteriors"

MOST_BYTES = 10 * 2**30
"""In all; beyond it what was not used for the longest time is removed."""


@dataclass(kw_only=True)
class Posteriors:
    """What one network gives for the images of a source, as far as it is known."""

    values: NDArray[np.float32]
    """[N, classes]; rows of NaN for images that have not been computed or cannot be used."""
    refusals: dict[int, UnusableImageError] = field(default_factory=dict)
    """By index."""
    computed: int = 0
    """Rows that were not known before."""

    @property
    def missing(self) -> NDArray[np.int64]:
        """Indices of the images that have not been computed."""
        unknown = np.flatnonzero(np.isnan(self.values).any(axis=1))
        return np.setdiff1d(unknown, list(self.refusals))


def nothing_known(images: int, classes: int) -> Posteriors:
    """Before any image has been computed."""
    return Posteriors(values=np.full((images, classes), np.nan, dtype=np.float32))


def stored(key: object, images: int, classes: int) -> Posteriors:
    """What is kept under this key; nothing known if its file is gone or damaged."""
    path = _path(key)
    with suppress(OSError, SafetensorError, ValueError, TypeError, LookupError):
        with safe_open(path, framework="np") as file:
            about, values = file.metadata(), file.get_tensor(KIND)
        refusals = {index: UnusableImageError(*what) for index, what in json.loads(about["refusals"])}
        if values.shape == (images, classes) and about["sha256"] == _digest(values):
            os.utime(path)
            return Posteriors(values=values, refusals=refusals)
    return nothing_known(images, classes)


def store(key: object, posteriors: Posteriors) -> None:
    """Keeps them; where that is impossible they are computed again next time."""
    refusals = [(index, refusal.args) for index, refusal in posteriors.refusals.items()]
    about = {"refusals": json.dumps(refusals), "sha256": _digest(posteriors.values), "key": repr(key)}
    with suppress(OSError):
        path = _path(key)
        path.parent.mkdir(parents=True, exist_ok=True)
        atomic.write_bytes(path, save({KIND: posteriors.values}, metadata=about))
        _prune(path)


def _path(key: object) -> Path:
    name = hashlib.sha256(repr(key).encode(errors="surrogateescape")).hexdigest()
    return cache.folder() / KIND / f"{name}.safetensors"


def _digest(values: NDArray[np.float32]) -> str:
    return hashlib.sha256(values.tobytes()).hexdigest()


def _prune(newest: Path) -> None:
    files = sorted(newest.parent.glob("*.safetensors"), key=lambda file: file.stat().st_mtime, reverse=True)
    total = 0
    for file in files:
        total += file.stat().st_size
        if total > MOST_BYTES and file != newest:
            file.unlink()
