"""The index of a tar shard in WebDataset layout: `KEY.jpg` beside `KEY.cls` or `KEY.json`."""

import io
import posixpath
import tarfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

from verydeep.ilsvrc_classes import normal_form
from verydeep.images.image_kinds import has_image_suffix, holds_image, is_worth_opening, missing_for_heif
from verydeep.images.sources.inventory import FoundFile, is_hidden
from verydeep.machine import cache
from verydeep.machine.documents import MOST_BYTES, parse_json
from verydeep.numbers import counted

_JSON_KEYS = ("class_name", "class", "label", "cls")
"""Where `KEY.json` may name or number the class; the first that is there counts."""

_LABEL_SUFFIXES = (".cls", ".json")
"""If an image has both, the first counts."""

_NO_LABEL = "-1"
"""How data sets mark images whose class is kept secret."""

_FORMAT = 2


class ShardEntry(NamedTuple):
    """One image of a shard."""

    name: str
    """In the archive."""
    offset: int
    """Bytes from the start of the archive."""
    size: int
    """Bytes."""
    label: str
    """The class as the shard gives it: a name, or a number in digits, as text."""


class ShardIndex(NamedTuple):
    """The images of a shard, and its other files."""

    images: list[ShardEntry]
    others: list[FoundFile]
    """Files with images' classes, and those that nothing uses."""


class _File(NamedTuple):
    """A file of an archive, or a link to one."""

    name: str
    """As the archive has it, perhaps with `./` before it."""
    offset: int
    size: int


class _Name(NamedTuple):
    """A member's name, taken apart."""

    stem: str
    """Without its last ending."""
    key: str
    """Without all endings, as WebDataset names a sample."""
    suffix: str
    """The last ending, without capitals."""


def shard_index(shard: Path, advance: Callable[[], None]) -> ShardIndex:
    """Return the contents of a shard, from its index, which is kept until the file changes, and call `advance`.

    Raises:
        ValueError: it cannot be read, or an image has no class.
    """
    status = shard.stat()
    reads_heif = missing_for_heif() is None  # without its package HEIC images are left out
    key = (_FORMAT, str(shard.resolve()), status.st_size, status.st_mtime_ns, reads_heif)
    index = cache.remembered("shards", key, lambda: _index(shard), ShardIndex)
    advance()
    return index


def _index(shard: Path) -> ShardIndex:
    """Find every image with its class, by one pass over the headers."""
    try:
        with tarfile.open(shard, "r:") as archive:
            files, others = _files(archive, shard)
            _check_end(archive, shard)
    except (tarfile.TarError, EOFError) as error:
        raise ValueError(f"{shard} is not a tar file that can be read at random: {error}") from error
    with shard.open("rb") as data:
        images = _samples(files, data, shard)
        classes = {name: _label(data, files[name], name, shard) for name in dict.fromkeys(images.values())}
    entries = [ShardEntry(*files[name], classes[label]) for name, label in images.items()]
    others += [FoundFile("label" if name in classes else "other", name) for name in files if name not in images]
    return ShardIndex(entries, others)


def _files(archive: tarfile.TarFile, shard: Path) -> tuple[dict[str, _File], list[FoundFile]]:
    """Return the files by name, those that links lead to as well, and entries that cannot be samples."""
    files: dict[str, _File] = {}
    hidden: dict[str, _File] = {}
    links: dict[str, str] = {}
    raw_names: dict[str, str] = {}
    special: list[FoundFile] = []
    for member in archive:
        if member.isdir():
            continue
        name = posixpath.normpath(member.name)
        if name in files or name in links:
            raise ValueError(f"{shard} has two files called {name}")
        if member.issym() or member.islnk():
            above = posixpath.dirname(name) if member.issym() else ""
            raw_names[name] = member.name
            links[name] = posixpath.normpath(posixpath.join(above, member.linkname))
        elif member.issparse() or not member.isfile():
            special.append(FoundFile("special", name))
        else:
            (hidden if is_hidden(name) else files)[name] = _File(member.name, member.offset_data, member.size)
    others = [*special, *(FoundFile("hidden", name) for name in hidden)]
    everything = files | hidden
    for name, target in links.items():
        file = everything.get(_end(target, links))
        if is_hidden(name):
            others.append(FoundFile("hidden", name))
        elif file is not None:
            files[name] = file._replace(name=raw_names[name])
        else:
            inside = any(other.startswith(f"{target}/") for other in files)
            others.append(FoundFile("repeated" if inside else "dangling", name))
    return files, others


def _end(name: str, links: Mapping[str, str]) -> str:
    """Follow links from a name to one that is not a link, or until they go round in a circle."""
    for _ in links:
        if name not in links:
            break
        name = links[name]
    return name


def _samples(files: Mapping[str, _File], data: BinaryIO, shard: Path) -> dict[str, str]:
    """Return every image with the file that says its class, both by name.

    Raises:
        ValueError: an image has no class, or two have one stem.
    """
    names = {name: _named(name) for name in files}
    classes = {(stem, suffix): name for name, (stem, _, suffix) in names.items() if suffix in _LABEL_SUFFIXES}
    plain = {key for name, (stem, key, _) in names.items() if stem == key and has_image_suffix(name)}
    samples: dict[str, str] = {}
    stems: set[str] = set()
    for name, (stem, key, _) in names.items():
        # The class of `a.v2.jpg` is in `a.v2.cls`, else in `a.cls`, which belongs to `a.jpg` alone where there is one.
        of_another = key in plain and not (stem == key and has_image_suffix(name))
        own = None if of_another and stem == key else _class_file(stem, classes)
        label = own or (None if of_another else _class_file(key, classes))
        if not _is_image(name, label, data, files) or (label is None and of_another):
            continue
        if label is None:
            raise ValueError(f"{shard} has no class for {name}: add a .cls or .json of the same name")
        if stem in stems:
            raise ValueError(f"{shard} has two images of the name {stem}")
        stems.add(stem)
        samples[name] = label
    return samples


def _named(name: str) -> _Name:
    folder, file = posixpath.split(name)
    stem, suffix = posixpath.splitext(file)
    return _Name(posixpath.join(folder, stem), posixpath.join(folder, file.partition(".")[0]), suffix.lower())


def _class_file(stem: str, classes: Mapping[tuple[str, str], str]) -> str | None:
    return next((classes[stem, suffix] for suffix in _LABEL_SUFFIXES if (stem, suffix) in classes), None)


def _is_image(name: str, label: str | None, data: BinaryIO, files: Mapping[str, _File]) -> bool:
    """Return whether a file is an image by its ending or, if it has a class, by its first bytes."""
    by_bytes = label is not None and is_worth_opening(name)
    return has_image_suffix(name) or (by_bytes and holds_image(io.BytesIO(_bytes(data, files[name]))))


def _bytes(data: BinaryIO, file: _File) -> bytes:
    data.seek(file.offset)
    return data.read(file.size)


def _check_end(archive: tarfile.TarFile, shard: Path) -> None:
    """Raise ValueError for a file that is cut off, damaged, or goes on after its end: `tarfile` just stops there."""
    with shard.open("rb") as file:
        file.seek(archive.offset)
        rest = file.read(tarfile.RECORDSIZE)
        whole = len(rest) >= tarfile.BLOCKSIZE
        while rest and whole:
            whole = not any(rest)
            rest = file.read(tarfile.RECORDSIZE)
    if not whole:
        raise ValueError(f"{shard} is cut off or damaged: make it again")


def _label(data: BinaryIO, file: _File, name: str, shard: Path) -> str:
    """Read a `.cls`, or the first of `_JSON_KEYS` in a `.json`."""
    if file.size > MOST_BYTES:
        raise ValueError(f"{name} in {shard} has {counted(file.size, 'byte')}, too many for a file that names a class")
    content = _bytes(data, file)
    try:
        label: Any = content.decode().strip()
        if name.lower().endswith(".json"):
            fields = parse_json(content, dict[str, Any])
            label = next((fields[key] for key in _JSON_KEYS if key in fields), "")
    except ValueError as error:
        raise ValueError(f"{name} in {shard} cannot be read: {error}") from error
    if not isinstance(label, str | int) or isinstance(label, bool) or str(label) in ("", _NO_LABEL):
        raise ValueError(f"{name} in {shard} names no class: a .json has it under {', '.join(_JSON_KEYS)}")
    return normal_form(str(label))
