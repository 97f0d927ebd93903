"""Tar shards in WebDataset layout, `KEY.jpg` beside `KEY.cls` or `KEY.json`, read at random through an index."""

import math
import os
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from functools import partial
from glob import glob
from pathlib import Path

import numpy as np
from braceexpand import braceexpand
from jaxtyping import Int64

from verydeep.ilsvrc_classes import normal_form
from verydeep.images.sources.inventory import Found, FoundFile, Inventory, found_in, is_leftover
from verydeep.images.sources.shard_index import ShardEntry, ShardIndex, shard_index
from verydeep.images.sources.source import ImagePath, Source, digest, numbered
from verydeep.images.sources.splits import (
    SPLIT_NAMES,
    FoundSplits,
    SourceKind,
    UnnumberedSplit,
    folder_names,
    names_of_present_splits,
    natural_order,
    whole_number,
)
from verydeep.images.sources.walk import files_beside_folders, subfolders
from verydeep.machine.home import expanded
from verydeep.machine.regular_files import open_file
from verydeep.machine.text_files import read_text
from verydeep.numbers import counted, number
from verydeep.presentation.terminal import reporting

_SUFFIX = ".tar"

_MOST_SHARDS = 1_000_000
"""Most names that braces may stand for."""

_RANGE = re.compile(r"(-?\d{1,18})\.\.(-?\d{1,18})(?=$|\.\.)")
"""The ends of `000..099`; one with steps, `0..8..2`, is counted as if it had none."""

_CLASS_NAMES_FILE = "classes.txt"
"""Beside the shards: a class name a line, in the order of the numbers that the shards give."""

_Extents = Int64[np.ndarray, "N 3"]
"""Where each image lies: which shard, offset and size in bytes."""

_SPLIT_WORD = re.compile(r"(?<![a-z])(train|validation|val|test)(?![a-z])")


def _shard_splits(name: str) -> FoundSplits:
    """Find the splits of shards, given as a folder, a file, or a pattern.

    A shard belongs to the split whose name is a word of its file's name or, where shards lie in several folders, is its
    folder's name; where no shard has one, all of them are `all`.

    Raises:
        ValueError: shards that are not there, belong to no split while others do, or cannot be read.
    """
    shards = _shards(name)
    folders_count = len({shard.parent for shard in shards}) > 1
    by_word: dict[str | None, list[Path]] = {}
    for shard in shards:
        by_word.setdefault(_split_word(shard, folders_count=folders_count), []).append(shard)
    stray = by_word.pop(None, [])
    theirs_by_ours = names_of_present_splits([word for word in by_word if word], name)
    chosen = {ours: by_word[theirs] for ours, theirs in theirs_by_ours.items()}
    if chosen and stray:
        raise ValueError(f"{stray[0]} belongs to no split, while others have {' or '.join(chosen)} in their names")
    with reporting("index of tar shards", len(shards)) as report:
        indices = {shard: shard_index(shard, report.advance) for shard in shards}
    entries = {shard: index.images for shard, index in indices.items()}
    splits = {
        split: _split(name if split == "all" else f"{name}, {split}", its_own, entries)
        for split, its_own in (chosen or {"all": shards}).items()
    }
    return FoundSplits(splits, Inventory(places=_places(expanded(name), indices)))


def _places(root: Path, indices: Mapping[Path, ShardIndex]) -> dict[str, Found]:
    """Count the files in each shard and, if `root` is a folder of them, beside them."""
    called = dict(zip(indices, _called([*indices]), strict=True))
    places = {
        full: Found(images=len(indices[shard].images)) + found_in(file.within(full) for file in indices[shard].others)
        for shard, (full, _) in called.items()
    }
    if root.is_dir():
        folders = ["", *(folder.name for folder in subfolders(root))]
        beside = [
            file for folder in folders for file in _beside(root / folder, folder, {shard.name for shard in indices})
        ]
        places[""] = found_in(beside)
    return {place: found for place, found in places.items() if found.files}


def _beside(folder: Path, within: str, shards: Collection[str]) -> Iterator[FoundFile]:
    """Yield the other files in a folder of shards."""
    for file in files_beside_folders(folder):
        if file.path == _CLASS_NAMES_FILE:
            yield FoundFile("label", file.path).within(within)
        elif file.what == "image":
            yield FoundFile("unclassed", file.path).within(within)
        elif file.path not in shards:
            yield file.within(within)


def _called(shards: Sequence[Path]) -> list[tuple[str, str]]:
    """Return two names of each shard: for messages, with its folders only where names repeat, and without folders."""
    unique = len({shard.name for shard in shards}) == len(shards)
    return [(shard.name if unique else str(shard), shard.name) for shard in shards]


def _fits(name: str) -> bool:
    """Return whether a SOURCE names tar files, or a folder that holds nothing but shards."""
    root = expanded(name)
    return _holds_shards(root) if root.is_dir() else name.endswith(_SUFFIX)


SHARDS = SourceKind(described="tar shards", fits=_fits, splits=_shard_splits)


def _holds_shards(root: Path) -> bool:
    """Return whether a folder holds tar files and no folders, or `train`, `val` and `test` folders that do."""
    folders = subfolders(root)
    if not folders:
        return bool(_tar_files(root))
    return all(folder.name in SPLIT_NAMES and _tar_files(folder) and not subfolders(folder) for folder in folders)


def _shards(name: str) -> list[Path]:
    """List all shards that a SOURCE stands for, in order."""
    root = expanded(name)
    if root.is_dir():
        return _tar_files(root) + [shard for folder in subfolders(root) for shard in _tar_files(folder)]
    patterns = _expanded(str(root))
    shards = [Path(path) for pattern in patterns for path in (sorted(glob(pattern)) if "*" in pattern else [pattern])]
    missing = [shard for shard in shards if not shard.is_file()]
    if missing or not shards:
        of_all = f" ({number(len(missing))} of {counted(len(shards), 'shard')} missing)" if len(shards) > 1 else ""
        raise ValueError(f"no file {missing[0] if missing else name}{of_all}")
    return list(dict.fromkeys(shards))


def _expanded(pattern: str) -> list[str]:
    """Expand braces, after counting the names that they stand for.

    Raises:
        ValueError: braces do not match, or stand for too many shards.
    """
    if _count(pattern) > _MOST_SHARDS:
        most = counted(_MOST_SHARDS, "shard")
        raise ValueError(f"{pattern} stands for more than {most}: name a folder of them, or fewer")
    try:
        return list(braceexpand(pattern))
    except ValueError:
        raise ValueError(f"{pattern}: braces that do not match") from None


def _count(pattern: str) -> int:
    """Count the names that braces stand for, innermost first; each leaves its place in `counts`, between zero bytes."""
    counts: list[int] = []

    def together(text: str) -> int:
        return math.prod(counts[int(place)] for place in re.findall("\0(\\d+)\0", text))

    while inner := re.search(r"\{([^{}]*)\}", pattern):
        ends = _RANGE.match(inner[1])
        each = [abs(int(ends[2]) - int(ends[1])) + 1] if ends else map(together, inner[1].split(","))
        pattern = f"{pattern[: inner.start()]}\0{len(counts)}\0{pattern[inner.end() :]}"
        counts.append(sum(each))
    return together(pattern)


def _tar_files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.glob(f"*{_SUFFIX}") if path.is_file() and not is_leftover(path.name))


def _split_word(shard: Path, *, folders_count: bool) -> str | None:
    """Return the name of the split that a shard belongs to, as its file or folder has it."""
    words = _SPLIT_WORD.findall(shard.name.lower())
    if words or not folders_count:
        return str(words[0]) if words else None
    folder = Path(os.path.abspath(shard)).parent.name  # links into a store keep the names that they have here
    return folder if folder in SPLIT_NAMES else None


def _split(where: str, shards: Sequence[Path], entries: dict[Path, list[ShardEntry]]) -> UnnumberedSplit:
    lists = {shard: _class_names(shard) for shard in shards}
    listed = dict.fromkeys(name for names in lists.values() for name in names)
    images = [
        (_class_name(entry.label, lists[shard], shard), entry.name, (which, entry.offset, entry.size))
        for which, shard in enumerate(shards)
        for entry in entries[shard]
    ]
    if not images:
        raise ValueError(f"no images in {where}: samples are an image and a .cls or .json of the same name")
    present = {class_name for class_name, _, _ in images}
    if listed and (unlisted := present - listed.keys()):
        which, label = next((shards[place[0]], name) for name, _, place in images if name in unlisted)
        raise ValueError(f"{which} has a sample of class {label}, but no {_CLASS_NAMES_FILE} beside it, as others have")
    names = tuple(name for name in listed if name in present) or tuple(sorted(present, key=natural_order))
    number_of = {name: place for place, name in enumerate(names)}
    images.sort(key=lambda image: (number_of[image[0]], *image[1:]))
    source = _shard_source(
        shards,
        names,
        tuple(number_of[class_name] for class_name, _, _ in images),
        tuple(name for _, name, _ in images),
        np.array([location for _, _, location in images], dtype=np.int64),
    )
    return UnnumberedSplit(where=where, names=names, numbered=partial(numbered, source))


def _shard_source(
    shards: Sequence[Path], classes: tuple[str, ...], labels: tuple[int, ...], names: tuple[str, ...], extents: _Extents
) -> Source:
    """Make a source of images in tar files, by their names in these."""
    called = _called(shards)
    folders = folder_names(os.path.basename(os.path.dirname(os.path.abspath(shards[0]))))
    return Source(
        classes=classes,
        labels=labels,
        paths=partial(_paths, called, folders, names, extents),
        read=partial(_read, shards, extents),
        fingerprint_of=partial(_fingerprint, names, extents),
    )


def _paths(
    shards: Sequence[tuple[str, str]], folders: tuple[str, ...], names: Sequence[str], extents: _Extents, index: int
) -> tuple[ImagePath, ...]:
    """Return an image's paths; a shard's first name is the one for messages."""
    (full, shard), name = shards[extents[index, 0]], names[index]
    return (ImagePath(f"{full}/{name}", folders), ImagePath(name, (shard, *folders)))


def _read(shards: Sequence[Path], extents: _Extents, index: int) -> bytes:
    shard, offset, size = extents[index].tolist()
    path = shards[shard]
    with open_file(path) as file:
        data = os.pread(file.fileno(), size, offset)
    if len(data) != size:
        raise OSError(f"{path} has become shorter since it was opened")
    return data


def _fingerprint(names: Sequence[str], extents: _Extents, source: Source) -> str:
    return digest(source.classes, *zip(names, source.labels, extents[:, 2].tolist(), strict=True))


def _class_names(shard: Path) -> tuple[str, ...]:
    """Read the `classes.txt` beside a shard, or one folder above; return no names where there is none."""
    for folder in (shard.parent, shard.parent.parent):
        if (folder / _CLASS_NAMES_FILE).is_file():
            return _read_class_names(folder / _CLASS_NAMES_FILE)
    return ()


def _read_class_names(file: Path) -> tuple[str, ...]:
    names = tuple(normal_form(name.strip()) for name in read_text(file, strict=True).splitlines())
    if len(set(names)) < len(names) or not all(names):
        raise ValueError(f"{file} must name each class once, a line each, without empty lines")
    return names


def _class_name(label: str, listed: tuple[str, ...], shard: Path) -> str:
    """Return the class of a label: where classes are listed a number counts in the list, else it is a name itself.

    `007` is a name if it is listed as one, else the number 7.
    """
    place = whole_number(label)
    if not listed or (label in listed and label != str(place)):
        return label
    if place is not None and place < len(listed):
        return listed[place]
    raise ValueError(f"{shard} has a sample of class {label}, which {_CLASS_NAMES_FILE} beside it does not list")
