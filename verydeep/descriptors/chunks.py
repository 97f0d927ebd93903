"""Chunks of features with their SHA-256, kept beside the file that they are for until it is complete.

FILE.parts/0123456789abcdef/   for one descriptor, network and source; others have another folder
                               000000.safetensors: the first images, and so on
"""

import hashlib
import json
import shutil
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

import numpy as np
from jaxtyping import Float
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from verydeep.descriptors.features import Chunk
from verydeep.images.decode import Refusal, UnusableImageError
from verydeep.machine import atomic
from verydeep.machine.documents import parse_json
from verydeep.machine.errors import one_line
from verydeep.machine.regular_files import check_file

_CHUNK_FOLDERS = 16 * "[0-9a-f]"

_INDICES, _REFUSALS, _SHA256 = "indices", "refusals", "sha256"


def folder(file: Path) -> Path:
    """Return the folder that holds the chunks of a file."""
    return file.with_name(f"{file.name}.parts")


def keep(chunk_file: Path, chunk: Chunk) -> None:
    """Write a chunk.

    Raises:
        OSError: it cannot be written.
    """
    chunk_file.parent.mkdir(parents=True, exist_ok=True)
    refusals = json.dumps([(refusal.name, refusal.kind, refusal.detail) for refusal in chunk.refusals])
    tensors = {**chunk.values, _INDICES: np.array(chunk.indices, dtype=np.int64)}
    about = {_REFUSALS: refusals, _SHA256: _digest(tensors, refusals)}
    atomic.write_bytes(chunk_file, save(tensors, metadata=about))


def check(chunk_file: Path) -> None:
    """Check that a chunk is as it was kept.

    Raises:
        ValueError: it is damaged.
    """
    check_file(chunk_file)
    try:
        with safe_open(chunk_file, "numpy") as opened:
            about, tensors = opened.metadata() or {}, {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118 (not a mapping)
    except SafetensorError as error:
        raise ValueError(one_line(error)) from error
    if about.get(_SHA256) != _digest(tensors, about.get(_REFUSALS, "")):
        raise ValueError("it has changed since it was kept")


def _digest(tensors: Mapping[str, np.ndarray], refusals: str) -> str:
    digest = hashlib.sha256(refusals.encode())
    for name in sorted(tensors):
        digest.update(f"{name} {tensors[name].dtype} {tensors[name].shape}".encode())
        digest.update(np.ascontiguousarray(tensors[name]).data)
    return digest.hexdigest()


def read(chunk_file: Path) -> tuple[list[int], list[UnusableImageError]]:
    """Return the indices of the images in a chunk, and the refusals."""
    with safe_open(chunk_file, "numpy") as opened:
        stored = parse_json((opened.metadata() or {}).get(_REFUSALS, ""), list[tuple[str, Refusal, str]])
        return opened.get_tensor(_INDICES).tolist(), [UnusableImageError(*refusal) for refusal in stored]


def read_layer(chunk_file: Path, layer: str) -> Float[np.ndarray, "N ..."]:
    """Return a layer's values for the images in a chunk."""
    with safe_open(chunk_file, "numpy") as opened:
        values: Float[np.ndarray, "N ..."] = opened.get_tensor(layer)
        return values


def clear(file: Path) -> None:
    """Delete all chunks of a file, also those of other descriptors or sources, and no other files."""
    for chunk_folder in folder(file).glob(_CHUNK_FOLDERS):
        shutil.rmtree(chunk_folder)
    with suppress(OSError):  # it is not empty
        folder(file).rmdir()
