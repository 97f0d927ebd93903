"""Chunks of features, kept beside the file that they are for until it is complete.

FILE.parts/lock                held by the process that writes FILE
FILE.parts/0123456789abcdef/   for one descriptor, network and source; others have another folder
                               000000.safetensors: the first images, and so on
"""

import fcntl
import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import numpy as np
from jaxtyping import Float

from verydeep.descriptors.features import Chunk
from verydeep.images.decode import UnusableImageError
from verydeep.machine import atomic

LOCK = "lock"

_CHUNK_FOLDERS = 16 * "[0-9a-f]"

_INDICES, _REFUSALS = "indices", "refusals"


class WrittenElsewhereError(OSError):
    """Another process is writing the same file."""


@contextmanager
def alone(file: Path) -> Iterator[None]:
    """Keep other processes from writing the same file, until the block or this process ends.

    Raises:
        WrittenElsewhereError: another process is writing it.
        OSError: nothing can be written there.
    """
    lock = folder(file) / LOCK
    lock.parent.mkdir(parents=True, exist_ok=True)
    with lock.open("w") as opened:
        try:
            fcntl.lockf(opened, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except (BlockingIOError, PermissionError):
            message = f"another process is writing {file}: wait for it, or name another file"
            raise WrittenElsewhereError(message) from None
        yield


def folder(file: Path) -> Path:
    """Return the folder that holds the chunks of a file."""
    return file.with_name(f"{file.name}.parts")


def keep(chunk_file: Path, chunk: Chunk) -> None:
    """Write a chunk.

    Raises:
        OSError: it cannot be written.
    """
    from safetensors.numpy import save

    chunk_file.parent.mkdir(parents=True, exist_ok=True)
    refusals = [(refusal.name, refusal.kind, refusal.detail) for refusal in chunk.refusals]
    tensors = {**chunk.values, _INDICES: np.array(chunk.indices, dtype=np.int64)}
    atomic.write_bytes(chunk_file, save(tensors, metadata={_REFUSALS: json.dumps(refusals)}))


def read(chunk_file: Path) -> tuple[list[int], list[UnusableImageError]]:
    """Return the indices of the images in a chunk, and the refusals."""
    from safetensors import safe_open

    with safe_open(chunk_file, "numpy") as opened:
        refusals = [UnusableImageError(*refusal) for refusal in json.loads(opened.metadata()[_REFUSALS])]
        return opened.get_tensor(_INDICES).tolist(), refusals


def read_layer(chunk_file: Path, layer: str) -> Float[np.ndarray, "N ..."]:
    """Return a layer's values for the images in a chunk."""
    from safetensors import safe_open

    with safe_open(chunk_file, "numpy") as opened:
        values: Float[np.ndarray, "N ..."] = opened.get_tensor(layer)
        return values


def clear(file: Path) -> None:
    """Delete all chunks of a file, also those of other descriptors or sources, and nothing else that is there."""
    for chunk_folder in folder(file).glob(_CHUNK_FOLDERS):
        shutil.rmtree(chunk_folder)
    (folder(file) / LOCK).unlink()
    with suppress(OSError):  # it holds something else
        folder(file).rmdir()
