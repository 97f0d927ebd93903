"""The index of a tar shard in WebDataset layout: `KEY.jpg` beside `KEY.cls` or `KEY.json`."""

import json
import tarfile
from collections.abc import Callable
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

from verydeep.images.image_kinds import IMAGE_SUFFIXES
from verydeep.machine import cache

_JSON_KEYS = ("class_name", "class", "label", "cls")
"""Where `KEY.json` may name or number the class; the first that is there counts."""

_LABEL_SUFFIXES = (".cls", ".json")
"""Where both are there, the first counts."""

_NO_LABEL = "-1"
"""How data sets mark images whose class is kept secret."""

_FORMAT = 1


class Entry(NamedTuple):
    """One image of a shard."""

    name: str
    """In the archive."""
    offset: int
    """Bytes from the start of the archive."""
    size: int
    """Bytes."""
    label: str
    """The class as the shard gives it: a name, or a number in decimal digits."""


def shard_entries(shard: Path, advance: Callable[[], None]) -> list[Entry]:
    """Return the images of a shard, from its index, which is kept until the file changes; then call `advance`.

    Raises:
        ValueError: it cannot be read, or an image has no class.
    """
    status = shard.stat()
    key = (_FORMAT, str(shard.resolve()), status.st_size, status.st_mtime_ns)
    entries = cache.remembered("shards", key, lambda: _index(shard), lambda stored: [Entry(*e) for e in stored])
    advance()
    return entries


def _index(shard: Path) -> list[Entry]:
    """Find every image with its class, by one pass over the headers."""
    try:
        with tarfile.open(shard, "r:") as archive:
            images, labels = _members(archive, shard)
            _check_end(archive, shard)
    except (tarfile.TarError, EOFError) as error:
        raise ValueError(f"{shard} is not a tar file that can be read at random: {error}") from error
    entries = []
    for key, member in images.items():
        label = next((labels[key, suffix] for suffix in _LABEL_SUFFIXES if (key, suffix) in labels), None)
        if label is None:
            raise ValueError(f"{shard} has no class for {member.name}: add a .cls or .json of the same name")
        entries.append(Entry(member.name, member.offset_data, member.size, _label(label[1], label[0], shard)))
    return entries


def _members(
    archive: tarfile.TarFile, shard: Path
) -> tuple[dict[str, tarfile.TarInfo], dict[tuple[str, str], tuple[str, bytes]]]:
    """Return the images by key, and name and contents of the labels by key and suffix."""
    images: dict[str, tarfile.TarInfo] = {}
    labels: dict[tuple[str, str], tuple[str, bytes]] = {}
    for member in archive:
        path = PurePosixPath(member.name)
        if not member.isfile() or path.name.startswith("."):
            continue
        stem, _, extension = path.name.partition(".")
        key, extension = str(path.parent / stem), f".{extension.lower()}"
        if extension in IMAGE_SUFFIXES:
            if key in images:
                raise ValueError(f"{shard} has two images of the name {key}")
            images[key] = member
        elif extension in _LABEL_SUFFIXES:
            content = archive.extractfile(member)
            labels[key, extension] = (member.name, content.read() if content else b"")
    return images, labels


def _check_end(archive: tarfile.TarFile, shard: Path) -> None:
    """Refuse a file that was cut off, is damaged, or goes on after its end: `tarfile` stops there without a word."""
    with shard.open("rb") as file:
        file.seek(archive.offset)
        rest = file.read(tarfile.RECORDSIZE)
        whole = len(rest) >= tarfile.BLOCKSIZE
        while rest and whole:
            whole = not any(rest)
            rest = file.read(tarfile.RECORDSIZE)
    if not whole:
        raise ValueError(f"{shard} is cut off or damaged: make it again")


def _label(content: bytes, name: str, shard: Path) -> str:
    """Read a `.cls`, or the first of `_JSON_KEYS` in a `.json`."""
    try:
        label: Any = content.decode().strip()
        if name.lower().endswith(".json"):
            fields = json.loads(label)
            label = next((fields[key] for key in _JSON_KEYS if key in fields), "")
    except (ValueError, TypeError) as error:
        raise ValueError(f"{name} in {shard} cannot be read: {error}") from error
    if not isinstance(label, str | int) or isinstance(label, bool) or str(label) in ("", _NO_LABEL):
        raise ValueError(f"{name} in {shard} names no class: a .json has it under {', '.join(_JSON_KEYS)}")
    return str(int(label)) if str(label).isdecimal() else str(label)
