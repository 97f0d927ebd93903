"""Chunks of features, kept beside the file that they are for until it is complete.

FILE.parts/0123456789abcdef/   for one descriptor, network and source; others have another folder
                               000000.safetensors: the first images, and so on
"""

import json
import shutil
from contextlib import suppress
from pathlib import Path

import numpy as np
from jaxtyping import Float

from verydeep.descriptors.features import Chunk
from verydeep.images.decode import Refusal, UnusableImageError
from verydeep.machine import atomic
from verydeep.machine.documents import parse_json

_CHUNK_FOLDERS = 16 * "[0-9a-f]"

_INDICES, _REFUSALS = "indices", "refusals"


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
        stored = parse_json((opened.metadata() or {}).get(_REFUSALS, ""), list[tuple[str, Refusal, str]])
        return opened.get_tensor(_INDICES).tolist(), [UnusableImageError(*refusal) for refusal in stored]


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
    with suppress(OSError):  # it holds something else
        folder(file).rmdir()
