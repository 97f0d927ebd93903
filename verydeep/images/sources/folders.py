"""Class folders: image files, each in the folder of its class, perhaps in `train`, `val` and `test` folders."""

import os
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from verydeep.images.sources.source import IMAGE_SUFFIXES, ImagePath, Source, digest, numbered
from verydeep.images.sources.splits import (
    SPLIT_NAMES,
    Kind,
    UnnumberedSplit,
    folder_names,
    names_of_present_splits,
    natural_order,
)


def _folder_splits(name: str) -> dict[str, UnnumberedSplit]:
    """Find the splits of a folder; `all` alone where it holds class folders, which may be called train or test.

    A `train` without class folders in it is a class. A `test` without any, beside a `train` that has some, is left
    out: its classes are kept secret.

    Raises:
        ValueError: no images, or two folders for one split.
    """
    root = Path(name).expanduser()
    folders = {folder.name for folder in subfolders(root)}
    train_is_a_split = "train" in folders and bool(subfolders(root / "train"))
    if not train_is_a_split and not folders <= SPLIT_NAMES:
        return {"all": _split(root)}
    if train_is_a_split and "test" in folders and not subfolders(root / "test"):
        folders.remove("test")
    present = names_of_present_splits(folders, str(root))
    return {split: _split(root / theirs) for split, theirs in present.items()} or {"all": _split(root)}


FOLDERS = Kind(
    described="a folder of images, one folder per class",
    fits=lambda name: Path(name).expanduser().is_dir(),
    splits=_folder_splits,
)


def is_image_file(path: Path) -> bool:
    """Return whether a file's name is that of an image, and not hidden (macOS leaves `._1.jpg` beside `1.jpg`)."""
    return path.suffix.lower() in IMAGE_SUFFIXES and not path.name.startswith(".") and os.path.isfile(path)


def image_files(path: Path) -> list[Path]:
    """List the image files in a folder and below; a file stands for itself.

    Raises:
        ValueError: there is no such file, or no image in the folder.
    """
    if os.path.isdir(path):
        files = sorted(p for p in path.rglob("*") if is_image_file(p))
        if not files:
            raise ValueError(f"no images in {path}")
        return files
    if not os.path.exists(path):
        raise ValueError(f"no file {str(path)!r}")
    return [path]


def subfolders(root: Path) -> list[Path]:
    """List the folders in `root` by name, hidden ones left out."""
    return sorted(folder for folder in root.iterdir() if folder.is_dir() and not folder.name.startswith("."))


def _split(root: Path) -> UnnumberedSplit:
    by_class = {
        folder.name: sorted(str(path.relative_to(root)) for path in folder.rglob("*") if is_image_file(path))
        for folder in sorted(subfolders(root), key=lambda folder: natural_order(folder.name))
    }
    images = {name: paths for name, paths in by_class.items() if paths}
    if not images:
        raise ValueError(f"no images in {root}: it must hold one folder per class with images in it")
    for name in by_class:
        if name not in images:
            _check_empty(root / name)
    ids = tuple(path for paths in images.values() for path in paths)
    labels = tuple(label for label, paths in enumerate(images.values()) for _ in paths)
    source = _folder_source(root, tuple(images), ids, labels)
    return UnnumberedSplit(where=str(root), names=source.classes, numbered=partial(numbered, source))


def _check_empty(folder: Path) -> None:
    """Refuse a class folder with files but no images."""
    kinds = {path.suffix for path in folder.rglob("[!.]*") if path.is_file()}
    if kinds:
        raise ValueError(
            f"{folder} holds files but no images ({', '.join(sorted(kinds))}): convert them, or move the folder away"
        )


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
    return (root / ids[index]).read_bytes()


def _fingerprint(root: Path, source: Source) -> str:
    sizes = ((root / path).stat().st_size for path in source.ids)
    return digest(source.classes, *zip(source.ids, source.labels, sizes, strict=True))
