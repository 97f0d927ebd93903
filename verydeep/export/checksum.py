"""The SHA-256 that ONNX and OpenVINO files state of themselves, by which one that was changed is known.

It covers graph, weights and metadata: the file, with zeros where it stands, and the `.bin` beside an OpenVINO file.
"""

import hashlib
from pathlib import Path

from verydeep.export.metadata import KEY

SHA256 = f"{KEY}_sha256"
"""Its name, beside the metadata."""

UNSTATED = "0" * 64


def checksum(file: Path, stated: str) -> str:
    """Of a file in which `stated` stands for it; its last place counts, as metadata follow the weights.

    Raises:
        ValueError: `stated` is no SHA-256, or does not stand in the file.
        OSError: a file cannot be read.
    """
    data = file.read_bytes()
    place = _place(data, stated)
    found = hashlib.sha256(memoryview(data)[:place])
    found.update(UNSTATED.encode())
    found.update(memoryview(data)[place + len(stated) :])
    if file.suffix == ".xml":
        with file.with_suffix(".bin").open("rb") as weights:
            hashlib.file_digest(weights, lambda: found)
    return found.hexdigest()


def state_checksum(file: Path) -> None:
    """Writes it over the zeros in its place."""
    place = _place(file.read_bytes(), UNSTATED)
    found = checksum(file, UNSTATED)
    with file.open("r+b") as opened:
        opened.seek(place)
        opened.write(found.encode())


def check_checksum(file: Path, stated: object) -> None:
    """Refuses a file that is not what was exported; what a damaged one states may be no text at all.

    Raises:
        ValueError: it states nothing, or something else.
        OSError: a file cannot be read.
    """
    if not isinstance(stated, str) or stated != checksum(file, stated):
        raise ValueError("it is not what was exported: its SHA-256 differs")


def _place(data: bytes, stated: str) -> int:
    place = data.rfind(stated.encode()) if len(stated) == len(UNSTATED) else -1
    if place < 0:
        raise ValueError("it does not state its SHA-256")
    return place
