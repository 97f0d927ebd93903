"""What is computed for a file of features, kept beside it until it stands.

FILE.parts/lock                held by the process that writes FILE
FILE.parts/0123456789abcdef/   for what is asked for; other images, weights or layers have another folder
                               000000.safetensors: the first images, and so on
"""

import fcntl
import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from verydeep.descriptors.features import Part
from verydeep.images.decode import UnusableImageError
from verydeep.machine import atomic

LOCK, OF_ORDERS = "lock", 16 * "[0-9a-f]"
"""What lies in FILE.parts."""

INDICES, REFUSALS = "indices", "refusals"


class WrittenElsewhereError(OSError):
    """Another process is writing the same file."""


@contextmanager
def alone(file: Path) -> Iterator[None]:
    """While no other process writes the same file; however this one ends, others may then.

    Raises:
        WrittenElsewhereError: another one is at it.
        OSError: nothing can be written there.
    """
    lock = folder(file) / LOCK
    lock.parent.mkdir(parents=True, exist_ok=True)
    with lock.open("w") as opened:
        try:
            fcntl.lockf(opened, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except (BlockingIOError, PermissionError):
            told = f"another process is writing {file}: wait for it, or name another file"
            raise WrittenElsewhereError(told) from None
        yield


def folder(file: Path) -> Path:
    """Where the parts of a file lie."""
    return file.with_name(f"{file.name}.parts")


def keep(part_file: Path, part: Part) -> None:
    """Writes a part."""
    from safetensors.numpy import save

    part_file.parent.mkdir(parents=True, exist_ok=True)
    refusals = [(refusal.name, refusal.kind, refusal.detail) for refusal in part.refusals]
    tensors = {**part.values, INDICES: np.array(part.indices, dtype=np.int64)}
    atomic.write_bytes(part_file, save(tensors, metadata={REFUSALS: json.dumps(refusals)}))


def read(part_file: Path) -> tuple[list[int], list[UnusableImageError]]:
    """Indices of the images in a part, and those that were refused."""
    from safetensors import safe_open

    with safe_open(part_file, "numpy") as opened:
        refusals = [UnusableImageError(*found) for found in json.loads(opened.metadata()[REFUSALS])]
        return opened.get_tensor(INDICES).tolist(), refusals


def read_layer(part_file: Path, layer: str) -> NDArray[np.floating]:
    """A layer's values in a part, [len(indices), ...]."""
    from safetensors import safe_open

    with safe_open(part_file, "numpy") as opened:
        found: NDArray[np.floating] = opened.get_tensor(layer)
        return found


def clear(file: Path) -> None:
    """Removes all parts of a file, also those of what was asked for before, and nothing else that lies there."""
    for of_order in folder(file).glob(OF_ORDERS):
        shutil.rmtree(of_order)
    (folder(file) / LOCK).unlink()
    with suppress(OSError):  # it holds something else
        folder(file).rmdir()
