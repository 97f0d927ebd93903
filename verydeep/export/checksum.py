"""The SHA-256 that ONNX and OpenVINO files state of themselves, which reveals a change.

It covers graph, weights and metadata: the file, with zeros in the place of the SHA-256, and the `.bin` beside an
OpenVINO file.
"""

import hashlib
from pathlib import Path

from verydeep.export.metadata import KEY

SHA256 = f"{KEY}_sha256"
"""Name of the entry, beside the metadata."""

UNSTATED = "0" * 64


def _checksum(file: Path, stated: str) -> str:
    """Compute it for a file that states `stated`; the last occurrence counts, as metadata follow the weights.

    Raises:
        ValueError: `stated` is no SHA-256, or is not in the file.
        OSError: a file cannot be read.
    """
    data = file.read_bytes()
    place = _place(data, stated)
    digest = hashlib.sha256(memoryview(data)[:place])
    digest.update(UNSTATED.encode())
    digest.update(memoryview(data)[place + len(stated) :])
    if file.suffix == ".xml":
        with file.with_suffix(".bin").open("rb") as weights:
            hashlib.file_digest(weights, lambda: digest)
    return digest.hexdigest()


def state_checksum(file: Path) -> None:
    """Write a file's SHA-256 over the zeros in its place."""
    place = _place(file.read_bytes(), UNSTATED)
    value = _checksum(file, UNSTATED)
    with file.open("r+b") as opened:
        opened.seek(place)
        opened.write(value.encode())


def check_checksum(file: Path, stated: object) -> None:
    """Refuse a file that is not what was exported; a damaged one may state something that is not even text.

    Raises:
        ValueError: it states nothing, or another SHA-256.
        OSError: a file cannot be read.
    """
    if not isinstance(stated, str) or stated != _checksum(file, stated):
        raise ValueError("it is not what was exported: its SHA-256 differs")


def _place(data: bytes, stated: str) -> int:
    place = data.rfind(stated.encode()) if len(stated) == len(UNSTATED) else -1
    if place < 0:
        raise ValueError("it does not state its SHA-256")
    return place
