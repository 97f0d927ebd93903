"""Tar shards in WebDataset layout: `KEY.jpg` beside `KEY.cls` or `KEY.json`, read at random through an index."""

import json
import os
import re
import tarfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from glob import glob
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

import numpy as np
from braceexpand import braceexpand
from numpy.typing import NDArray

from verydeep.images.decode import UnusableImageError
from verydeep.images.sources.folders import subfolders
from verydeep.images.sources.source import (
    IMAGE_SUFFIXES,
    SPLIT_NAMES,
    Part,
    Sample,
    digest,
    natural_order,
    number,
    one_of_each,
)
from verydeep.machine import cache
from verydeep.presentation.progress import reporting

SUFFIX = ".tar"

CLASS_NAMES_FILE = "classes.txt"
"""Beside the shards: a class name a line, in the order of the numbers that the shards give."""

JSON_KEYS = ("class_name", "class", "label", "cls")
"""Where `KEY.json` may name or number the class; the first that is there counts."""

LABEL_SUFFIXES = (".cls", ".json")
"""Where both are there, the first counts."""

NO_LABEL = "-1"
"""How data sets mark images whose class is kept secret."""

INDEX_FORMAT = 1

_SPLIT = re.compile(r"(?<![a-z])(train|validation|val|test)(?![a-z])")


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


@dataclass(frozen=True, kw_only=True)
class ShardSource:
    """Images in tar files, ordered by class and name: how they were packed makes no difference."""

    shards: tuple[Path, ...]
    classes: tuple[str, ...]
    labels: tuple[int, ...]
    names: tuple[str, ...]
    """In their archives."""
    places: NDArray[np.int64]
    """[N, 3]: which shard, offset and size in bytes."""

    @cached_property
    def fingerprint(self) -> str:
        return digest(self.classes, *zip(self.names, self.labels, self.places[:, 2].tolist(), strict=True))

    @cached_property
    def _shown(self) -> list[str]:
        """Names of the shards for messages: with their folders only where they need them."""
        unique = len({shard.name for shard in self.shards}) == len(self.shards)
        return [shard.name if unique else str(shard) for shard in self.shards]

    @cached_property
    def ids(self) -> tuple[str, ...]:
        return tuple(self._id(index) for index in range(len(self)))

    def _id(self, index: int) -> str:
        return f"{self._shown[self.places[index, 0]]}/{self.names[index]}"

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, index: int) -> Sample:
        shard, offset, size = self.places[index].tolist()
        path = self.shards[shard]
        full_name = self._id(index)
        try:
            with path.open("rb", buffering=0) as file:
                data = os.pread(file.fileno(), size, offset)
        except OSError as error:
            raise UnusableImageError(full_name, "unreadable", error.strerror or str(error)) from error
        if len(data) != size:
            raise UnusableImageError(full_name, "unreadable", f"{path} has become shorter since it was opened")
        return Sample(data, self.labels[index], full_name)


def holds_shards(root: Path) -> bool:
    """Whether a folder holds tar files and no folders, or `train`, `val` and `test` folders that do."""
    folders = subfolders(root)
    known = {name for names in SPLIT_NAMES.values() for name in names}
    if not folders:
        return bool(_tar_files(root))
    return {folder.name for folder in folders} <= known and all(
        _tar_files(folder) and not subfolders(folder) for folder in folders
    )


def names_shards(name: str) -> bool:
    """Whether a SOURCE names tar files: one, or many by {000..099}, {train,val} or *."""
    return name.endswith(SUFFIX)


def shard_parts(name: str) -> dict[str, Part]:
    """The splits of shards: a folder, a file, or a pattern.

    A shard belongs to the split whose name is a word of its file's name or, where they lie in several folders, is its
    folder's name; where no shard has one, all of them are the part `all`.

    Raises:
        ValueError: shards that are not there, belong to no split while others do, or cannot be read.
    """
    shards = _shards(name)
    of_split: dict[str, dict[str, list[Path]]] = {split: {} for split in SPLIT_NAMES}
    folders_count = len({shard.parent for shard in shards}) > 1
    for shard in shards:
        found = _split_name(shard, folders_count=folders_count)
        for split, names in SPLIT_NAMES.items():
            if found in names:
                of_split[split].setdefault(found, []).append(shard)
    one_of_each({split: list(by_name) for split, by_name in of_split.items()}, name)
    parts = {split: next(iter(by_name.values())) for split, by_name in of_split.items() if by_name}
    stray = [shard for shard in shards if _split_name(shard, folders_count=folders_count) is None]
    if parts and stray:
        raise ValueError(f"{stray[0]} belongs to no split, while others have {' or '.join(parts)} in their names")
    with reporting("index of tar shards", len(shards)) as report:
        entries = {shard: _entries(shard, report.advance) for shard in shards}
    return {
        split: _part(name if split == "all" else f"{name}, {split}", chosen, entries)
        for split, chosen in (parts or {"all": shards}).items()
    }


def _shards(name: str) -> list[Path]:
    """All shards that a SOURCE stands for, in order."""
    root = Path(name).expanduser()
    if root.is_dir():
        return _tar_files(root) + [shard for folder in subfolders(root) for shard in _tar_files(folder)]
    try:
        patterns = list(braceexpand(str(root)))
    except ValueError:
        raise ValueError(f"{name}: braces that do not match") from None
    shards = [Path(path) for pattern in patterns for path in (sorted(glob(pattern)) if "*" in pattern else [pattern])]
    missing = [shard for shard in shards if not shard.is_file()]
    if missing or not shards:
        raise ValueError(f"no file {missing[0] if missing else name}" + _of_how_many(len(missing), len(shards)))
    return list(dict.fromkeys(shards))


def _of_how_many(missing: int, shards: int) -> str:
    return f" ({missing:,} of {shards:,} shards are not there)" if shards > 1 else ""


def _tar_files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.glob(f"*{SUFFIX}") if path.is_file() and not path.name.startswith("."))


def _split_name(shard: Path, *, folders_count: bool) -> str | None:
    words = _SPLIT.findall(shard.name.lower())
    if words or not folders_count:
        return str(words[0]) if words else None
    folder = Path(os.path.abspath(shard)).parent.name  # links into a store keep the names that they have here
    return folder if any(folder in names for names in SPLIT_NAMES.values()) else None


def _part(where: str, shards: Sequence[Path], entries: dict[Path, list[Entry]]) -> Part:
    lists = {shard: _class_names(shard) for shard in shards}
    listed = dict.fromkeys(name for names in lists.values() for name in names)
    found = [
        (_class_name(entry.label, lists[shard], shard), entry.name, (which, entry.offset, entry.size))
        for which, shard in enumerate(shards)
        for entry in entries[shard]
    ]
    if not found:
        raise ValueError(f"no images in {where}: samples are an image and a .cls or .json of the same name")
    present = {label for label, _, _ in found}
    names = tuple(name for name in listed if name in present) or tuple(sorted(present, key=natural_order))
    own = dict(number(names, names))
    found.sort(key=lambda image: (own[image[0]], *image[1:]))

    def numbered(classes: tuple[str, ...]) -> ShardSource:
        label_of = dict(number(names, classes))
        return ShardSource(
            shards=tuple(shards),
            classes=classes,
            labels=tuple(label_of[label] for label, _, _ in found),
            names=tuple(name for _, name, _ in found),
            places=np.array([place for _, _, place in found], dtype=np.int64),
        )

    return Part(where=where, names=names, numbered=numbered)


def _class_names(shard: Path) -> tuple[str, ...]:
    """What the `classes.txt` beside a shard, or one folder above, lists; nothing where there is none."""
    for folder in (shard.parent, shard.parent.parent):
        if (folder / CLASS_NAMES_FILE).is_file():
            return _read_class_names(folder / CLASS_NAMES_FILE)
    return ()


def _read_class_names(file: Path) -> tuple[str, ...]:
    try:
        names = tuple(name.strip() for name in file.read_text(encoding="utf-8-sig").splitlines())
    except UnicodeDecodeError as error:
        raise ValueError(f"{file} is not UTF-8: {error}") from error
    if len(set(names)) < len(names) or not all(names):
        raise ValueError(f"{file} must name each class once, a line each, without empty lines")
    return names


def _class_name(label: str, listed: tuple[str, ...], shard: Path) -> str:
    """The class of a label. Where classes are listed a number is a place in the list, else it is a name itself."""
    if not listed or (label in listed and not label.isdecimal()):
        return label
    if label.isdecimal() and int(label) < len(listed):
        return listed[int(label)]
    raise ValueError(f"{shard} has a sample of class {label}, which {CLASS_NAMES_FILE} beside it does not list")


def _entries(shard: Path, advance: Callable[[], None]) -> list[Entry]:
    """The images of a shard; its index is remembered until the file changes."""
    status = shard.stat()
    key = (INDEX_FORMAT, str(shard.resolve()), status.st_size, status.st_mtime_ns)
    entries = cache.remembered("shards", key, lambda: _index(shard), lambda stored: [Entry(*e) for e in stored])
    advance()
    return entries


def _index(shard: Path) -> list[Entry]:
    """Every image with its class; by one pass over the headers."""
    images: dict[str, tarfile.TarInfo] = {}
    labels: dict[tuple[str, str], tuple[str, bytes]] = {}
    try:
        with tarfile.open(shard, "r:") as archive:
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
                elif extension in LABEL_SUFFIXES:
                    content = archive.extractfile(member)
                    labels[key, extension] = (member.name, content.read() if content else b"")
            _check_end(archive, shard)
    except (tarfile.TarError, EOFError) as error:
        raise ValueError(f"{shard} is not a tar file that can be read at random: {error}") from error
    found = []
    for key, member in images.items():
        label = next((labels[key, suffix] for suffix in LABEL_SUFFIXES if (key, suffix) in labels), None)
        if label is None:
            raise ValueError(f"{shard} has no class for {member.name}: a .cls or .json of the same name")
        found.append(Entry(member.name, member.offset_data, member.size, _label(label[1], label[0], shard)))
    return found


def _check_end(archive: tarfile.TarFile, shard: Path) -> None:
    """Refuses a file that was cut off, is damaged, or goes on behind its end: `tarfile` stops there without a word."""
    with shard.open("rb") as file:
        file.seek(archive.offset)
        rest = file.read(tarfile.RECORDSIZE)
        whole = len(rest) >= tarfile.BLOCKSIZE
        while rest and whole:
            whole = not any(rest)
            rest = file.read(tarfile.RECORDSIZE)
    if not whole:
        raise ValueError(f"{shard} is cut off or damaged: make it anew")


def _label(content: bytes, name: str, shard: Path) -> str:
    """What a `.cls` holds, or the first of `JSON_KEYS` in a `.json`."""
    try:
        text = content.decode().strip()
        if not name.lower().endswith(".json"):
            found: Any = text
        else:
            fields = json.loads(text)
            found = next((fields[key] for key in JSON_KEYS if key in fields), "")
    except (ValueError, TypeError) as error:
        raise ValueError(f"{name} in {shard} cannot be read: {error}") from error
    if not isinstance(found, str | int) or isinstance(found, bool) or str(found) in ("", NO_LABEL):
        raise ValueError(f"{name} in {shard} names no class: a .json has it under {', '.join(JSON_KEYS)}")
    return str(int(found)) if str(found).isdecimal() else str(found)
