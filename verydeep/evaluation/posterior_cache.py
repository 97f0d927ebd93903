"""Cache of a source's posteriors under all that they depend on, so that a second protocol or a fusion reuses them.

It lies in the user's folder for caches; deleting it loses nothing but time.
"""

import hashlib
import json
import os
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from jaxtyping import Float32, Int
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from verydeep.images.decode import Refusal, UnusableImageError
from verydeep.machine import atomic, cache
from verydeep.machine.documents import parse_json
from verydeep.machine.errors import one_line
from verydeep.machine.regular_files import check_file

KIND = "posteriors"

_MOST_BYTES = 10 * 2**30
"""Size of all files together; beyond it the least recently used ones are removed."""

_SECONDS_OF_A_WRITE = 3600.0
"""Half-written files are older only if nobody writes them any more."""


@dataclass(kw_only=True)
class Posteriors:
    """Posteriors of a source's images by one network, as far as they are known."""

    values: Float32[np.ndarray, "N K"]
    """Rows of NaN for images that have not been computed or cannot be used."""
    refusals: dict[int, UnusableImageError] = field(default_factory=dict)
    """Why images cannot be used, by index."""
    computed: int = 0
    """Rows that were not known before."""

    @property
    def missing(self) -> Int[np.ndarray, " M"]:
        """Indices of the images that have not been computed."""
        return np.setdiff1d(np.flatnonzero(np.isnan(self.values[:, 0])), list(self.refusals))


def nothing_known(images: int, classes: int) -> Posteriors:
    """Return posteriors before any image has been computed."""
    return Posteriors(values=np.full((images, classes), np.nan, dtype=np.float32))


def stored(key: object, ids: Sequence[str], classes: int) -> Posteriors:
    """Return the posteriors stored under this key for these images; nothing known if its file is gone or damaged."""
    try:
        path = _path(key)
    except OSError:  # nothing is kept
        return nothing_known(len(ids), classes)
    try:
        if path.exists():
            known = _read(path, ids, classes)
            with suppress(OSError):  # a folder that is read-only
                os.utime(path)
            return known
    except (OSError, SafetensorError, ValueError) as error:
        cache.say_computed_again(f"{path}: {one_line(error)}")
    return nothing_known(len(ids), classes)


def _read(path: Path, ids: Sequence[str], classes: int) -> Posteriors:
    check_file(path)
    with safe_open(path, framework="np") as file:
        about, values = file.metadata() or {}, file.get_tensor(KIND)
    stated = about.get("refusals", "")
    if values.shape != (len(ids), classes) or about.get("sha256") != _digest(values, stated):
        raise ValueError("it has changed since it was kept")
    refusals = parse_json(stated, list[tuple[int, Refusal, str]])
    return Posteriors(values=values, refusals={i: UnusableImageError(ids[i], kind, what) for i, kind, what in refusals})


def store(key: object, posteriors: Posteriors) -> None:
    """Store posteriors. Images that could not be read are left open: they may be there next time.

    Raises:
        OSError: the disk is full, say, or there is no folder for caches.
    """
    refused = posteriors.refusals.items()
    refusals = json.dumps([(i, refusal.kind, refusal.detail) for i, refusal in refused if refusal.kind != "unreadable"])
    about = {"refusals": refusals, "sha256": _digest(posteriors.values, refusals), "key": repr(key)}
    path = _path(key)
    path.parent.mkdir(parents=True, exist_ok=True)
    cache.clear_place(path)
    atomic.write_bytes(path, save({KIND: posteriors.values}, metadata=about))
    _prune(path)


def _path(key: object) -> Path:
    name = hashlib.sha256(repr(key).encode(errors="surrogateescape")).hexdigest()
    return cache.folder() / KIND / f"{name}.safetensors"


def _digest(values: Float32[np.ndarray, "N K"], refusals: str) -> str:
    digest = hashlib.sha256(np.ascontiguousarray(values).data)
    digest.update(refusals.encode())
    return digest.hexdigest()


def _prune(newest: Path) -> None:
    """Remove half-written files of killed processes and, beyond the limit, the least recently used files."""
    for left, status in _with_status(newest.parent.glob(".*.partial")):
        if time.time() - status.st_mtime > _SECONDS_OF_A_WRITE:
            left.unlink(missing_ok=True)
    total = 0
    files = _with_status(newest.parent.glob("*.safetensors"))
    for file, status in sorted(files, key=lambda pair: pair[1].st_mtime, reverse=True):
        total += status.st_size
        if total > _MOST_BYTES and file != newest:
            file.unlink(missing_ok=True)


def _with_status(files: Iterable[Path]) -> Iterator[tuple[Path, os.stat_result]]:
    """Yield files with their status, without those that another process has renamed or removed meanwhile."""
    for file in files:
        with suppress(FileNotFoundError):
            yield file, file.stat()
