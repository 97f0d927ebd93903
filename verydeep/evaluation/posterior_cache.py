"""Posteriors of a source kept under all that they follow from, so that a second protocol or a fusion reuses them.

They lie in the user's folder for caches; deleting them loses nothing but time.
"""

import hashlib
import json
import os
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from verydeep.images.decode import UnusableImageError
from verydeep.machine import atomic, cache

KIND = "posteriors"

MOST_BYTES = 10 * 2**30
"""In all; beyond it what was not used for the longest time is removed."""


SECONDS_OF_A_WRITE = 3600.0
"""Half-written files are older only if nobody writes them any more."""


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
        return np.setdiff1d(np.flatnonzero(np.isnan(self.values[:, 0])), list(self.refusals))


def nothing_known(images: int, classes: int) -> Posteriors:
    """Before any image has been computed."""
    return Posteriors(values=np.full((images, classes), np.nan, dtype=np.float32))


def stored(key: object, ids: Sequence[str], classes: int) -> Posteriors:
    """What is kept under this key of the images of these names; nothing known if its file is gone or damaged."""
    path = _path(key)
    with suppress(OSError, SafetensorError, ValueError, TypeError, LookupError):
        with safe_open(path, framework="np") as file:
            about, values = file.metadata(), file.get_tensor(KIND)
        refusals = {i: UnusableImageError(ids[i], kind, what) for i, kind, what in json.loads(about["refusals"])}
        if values.shape == (len(ids), classes) and about["sha256"] == _digest(values, about["refusals"]):
            os.utime(path)
            return Posteriors(values=values, refusals=refusals)
    return nothing_known(len(ids), classes)


def store(key: object, posteriors: Posteriors) -> None:
    """Keeps them. What could not be read is not kept: it may be there next time.

    Raises:
        OSError: the disk is full, say.
    """
    refused = posteriors.refusals.items()
    refusals = json.dumps([(i, refusal.kind, refusal.detail) for i, refusal in refused if refusal.kind != "unreadable"])
    about = {"refusals": refusals, "sha256": _digest(posteriors.values, refusals), "key": repr(key)}
    path = _path(key)
    path.parent.mkdir(parents=True, exist_ok=True)
    atomic.write_bytes(path, save({KIND: posteriors.values}, metadata=about))
    _prune(path)


def _path(key: object) -> Path:
    name = hashlib.sha256(repr(key).encode(errors="surrogateescape")).hexdigest()
    return cache.folder() / KIND / f"{name}.safetensors"


def _digest(values: NDArray[np.float32], refusals: str) -> str:
    found = hashlib.sha256(np.ascontiguousarray(values).data)
    found.update(refusals.encode())
    return found.hexdigest()


def _prune(newest: Path) -> None:
    for left in newest.parent.glob(".*.partial"):
        if time.time() - left.stat().st_mtime > SECONDS_OF_A_WRITE:
            left.unlink(missing_ok=True)  # its process was killed
    files = sorted(newest.parent.glob("*.safetensors"), key=lambda file: file.stat().st_mtime, reverse=True)
    total = 0
    for file in files:
        total += file.stat().st_size
        if total > MOST_BYTES and file != newest:
            file.unlink(missing_ok=True)
