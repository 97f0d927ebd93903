"""Class folders: image files, each in the folder of its class, perhaps in `train`, `val` and `test` folders."""

import itertools
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path

from verydeep.ilsvrc_classes import normal_form
from verydeep.images.sources.inventory import Found, FoundFile, Inventory, found_in
from verydeep.images.sources.source import ImagePath, Source, digest, numbered
from verydeep.images.sources.splits import (
    SPLIT_NAMES,
    FoundSplits,
    SourceKind,
    UnnumberedSplit,
    folder_names,
    names_of_present_splits,
    natural_order,
)
from verydeep.images.sources.walk import files_below, files_beside_folders, subfolders
from verydeep.machine.home import expanded
from verydeep.machine.regular_files import read_file


def _folder_splits(name: str) -> FoundSplits:
    """Find the splits of a folder; `all` alone where it holds class folders, which may be called train or test.

    A `train` without class folders in it is a class. A `test` without any, beside a `train` that has some, is left
    out: its classes are kept secret.

    Raises:
        ValueError: no images, two folders for one split, or splits in capital letters, which would be classes.
    """
    root = expanded(name)
    folders = {folder.name for folder in subfolders(root)}
    train_is_a_split = "train" in folders and bool(subfolders(root / "train"))
    if not train_is_a_split and not folders <= SPLIT_NAMES:
        if {name.lower() for name in folders} <= SPLIT_NAMES and all(_has_subfolders(root / name) for name in folders):
            names = " and ".join(sorted(folders))
            raise ValueError(f"{root}: {names} look like splits, whose folders are in small letters: rename them")
        return _found_splits(root, {"all": ""}, [])
    secret = {"test"} & folders if train_is_a_split and not _has_subfolders(root / "test") else set()
    present = names_of_present_splits(folders - secret, str(root))
    return _found_splits(root, present or {"all": ""}, folders - set(present.values()))


FOLDERS = SourceKind(
    described="a folder of images, one folder per class",
    fits=lambda name: expanded(name).is_dir(),
    splits=_folder_splits,
)


def _has_subfolders(folder: Path) -> bool:
    return folder.is_dir() and bool(subfolders(folder))


def _found_splits(root: Path, folder_of: Mapping[str, str], others: Iterable[str]) -> FoundSplits:
    """Open the folder of each split, and count the files in the folders `others` and beside all of them."""
    opened = {split: _split(root, folder) for split, folder in folder_of.items()}
    inventories = [inventory for _, inventory in opened.values()]
    places = {place: found for inventory in inventories for place, found in inventory.places.items()}
    if "" not in folder_of.values():
        places[""] = found_in(_unclassed(files_beside_folders(root), ""))
        places |= {folder: found_in(_unclassed(files_below(root / folder), folder)) for folder in sorted(others)}
    empty = tuple(folder for inventory in inventories for folder in inventory.empty)
    splits = {split: of_classes for split, (of_classes, _) in opened.items()}
    return FoundSplits(
        splits, Inventory(places={place: places[place] for place in places if places[place].files}, empty=empty)
    )


def _split(root: Path, within: str) -> tuple[UnnumberedSplit, Inventory]:
    """Find the classes in a folder of `root`."""
    folder = root / within
    entries = {name: [entry.within(name) for entry in files_below(folder / name)] for name in _class_folders(folder)}
    found = {name: found_in(entry.within(within) for entry in its_own) for name, its_own in entries.items()}
    places = {os.path.join(within, name): its_own for name, its_own in found.items()}
    inventory = Inventory(
        places={**places, within: found_in(_unclassed(files_beside_folders(folder), within))},
        empty=tuple(os.path.join(within, name) for name, its_own in found.items() if its_own.files == its_own.hidden),
    )
    paths = {
        name: sorted(path for what, path in its_own if what == "image")
        for name, its_own in entries.items()
        if found[name].images
    }
    if not paths:
        reasons = inventory.reasons()
        holds = f", which holds {'; '.join(reasons)}" if reasons else ""
        what = "no class folders with images in" if inventory.total.unclassed else "no images in"
        raise ValueError(f"{what} {folder}{holds}: it must hold one folder per class with images in it")
    for name, its_own in found.items():
        _check_class(folder / name, its_own)
    ids = tuple(path for of_class in paths.values() for path in of_class)
    labels = tuple(label for label, of_class in enumerate(paths.values()) for _ in of_class)
    source = _folder_source(folder, tuple(map(normal_form, paths)), ids, labels)
    return UnnumberedSplit(where=str(folder), names=source.classes, numbered=partial(numbered, source)), inventory


def _class_folders(root: Path) -> list[str]:
    """List the names of the folders that could be classes, in the order of the classes.

    Raises:
        ValueError: two have the same name, in two forms of Unicode.
    """
    names = sorted((folder.name for folder in subfolders(root)), key=lambda name: natural_order(normal_form(name)))
    for one, other in itertools.pairwise(names):
        if normal_form(one) == normal_form(other):
            raise ValueError(
                f"{root} has two folders called {one}, whose letters are stored in two ways (NFC and NFD): put their "
                "images into one"
            )
    return names


def _check_class(folder: Path, found: Found) -> None:
    """Raise ValueError for a class folder with files but no images."""
    if not found.images and found.left_out > found.hidden:
        reasons = "; ".join(Inventory(places={"": found}).reasons())
        raise ValueError(f"no images in {folder}, which holds {reasons}: if it is not a class, move the folder away")


def _unclassed(entries: Iterable[FoundFile], within: str) -> Iterator[FoundFile]:
    """Yield the files in a folder beside class folders, where an image has no class."""
    for entry in entries:
        yield entry._replace(what="unclassed" if entry.what == "image" else entry.what).within(within)


def _folder_source(root: Path, classes: tuple[str, ...], ids: Sequence[str], labels: Sequence[int]) -> Source:
    """Make a source of image files by their paths relative to `root`."""
    folders = folder_names(os.path.basename(os.path.abspath(root)))
    return Source(
        classes=classes,
        labels=labels,
        paths=partial(_paths, ids, folders),
        read=partial(_read, root, ids),
        fingerprint_of=partial(_fingerprint, root),
    )


def _paths(ids: Sequence[str], folders: tuple[str, ...], index: int) -> tuple[ImagePath, ...]:
    return (ImagePath(ids[index], folders),)


def _read(root: Path, ids: Sequence[str], index: int) -> bytes:
    return read_file(root / ids[index])


def _fingerprint(root: Path, source: Source) -> str:
    sizes = ((root / path).stat().st_size for path in source.ids)
    return digest(source.classes, *zip(source.ids, source.labels, sizes, strict=True))
