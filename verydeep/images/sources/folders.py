"""Class folders: image files, each in the folder of its class, perhaps in `train`, `val` and `test` folders."""

import os
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from verydeep.images.decode import UnusableImageError
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


@dataclass(frozen=True, kw_only=True)
class FolderSource:
    """Image files below `root`, each in the folder of its class."""

    root: Path
    classes: tuple[str, ...]
    paths: tuple[str, ...]
    """Relative to `root`."""
    labels: tuple[int, ...]

    @cached_property
    def fingerprint(self) -> str:
        sizes = ((self.root / path).stat().st_size for path in self.paths)
        return digest(self.classes, *zip(self.paths, self.labels, sizes, strict=True))

    @property
    def ids(self) -> tuple[str, ...]:
        return self.paths

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> Sample:
        path = self.paths[index]
        try:
            return Sample((self.root / path).read_bytes(), self.labels[index], path)
        except OSError as error:
            raise UnusableImageError(path, "unreadable", error.strerror or str(error)) from error


def folder_parts(root: Path) -> dict[str, Part]:
    """The splits of a folder; `all` alone where `root` holds class folders, which may be called train or test.

    A `train` without class folders in it is a class. A `test` without any, beside a `train` that has some, is left
    out: its classes are kept secret.

    Raises:
        ValueError: no images, two folders for one split, or split folders without `train`.
    """
    folders = {folder.name for folder in subfolders(root)}
    known = {name for names in SPLIT_NAMES.values() for name in names}
    train_is_a_split = "train" in folders and bool(subfolders(root / "train"))
    if not train_is_a_split and not folders <= known:
        return {"all": _part(root)}
    if train_is_a_split and "test" in folders and not subfolders(root / "test"):
        folders.remove("test")
    found = one_of_each(
        {split: [name for name in names if name in folders] for split, names in SPLIT_NAMES.items()}, str(root)
    )
    return {split: _part(root / name) for split, name in found.items()} or {"all": _part(root)}


def is_image_file(path: Path) -> bool:
    """Whether a file's name is that of an image, and not a hidden one (macOS leaves `._1.jpg` beside `1.jpg`)."""
    return path.suffix.lower() in IMAGE_SUFFIXES and not path.name.startswith(".") and os.path.isfile(path)


def image_files(path: Path) -> list[Path]:
    """A file, or the image files in a folder and below.

    Raises:
        ValueError: there is no such file, or no image in the folder.
    """
    if os.path.isdir(path):
        found = sorted(p for p in path.rglob("*") if is_image_file(p))
        if not found:
            raise ValueError(f"no images in {path}")
        return found
    if not os.path.exists(path):
        raise ValueError(f"no file {str(path)!r}")
    return [path]


def subfolders(root: Path) -> list[Path]:
    """Folders in `root`, hidden ones left out, by name."""
    return sorted(folder for folder in root.iterdir() if folder.is_dir() and not folder.name.startswith("."))


def _part(root: Path) -> Part:
    by_class = {
        folder.name: sorted(str(path.relative_to(root)) for path in folder.rglob("*") if is_image_file(path))
        for folder in sorted(subfolders(root), key=lambda folder: natural_order(folder.name))
    }
    empty = [name for name, paths in by_class.items() if not paths]
    by_class = {name: paths for name, paths in by_class.items() if paths}
    if not by_class:
        raise ValueError(f"no images in {root}: it must hold one folder per class with images in it")
    for name in empty:
        kinds = {path.suffix for path in (root / name).rglob("[!.]*") if path.is_file()}
        if kinds:
            raise ValueError(
                f"{root / name} holds files but no images ({', '.join(sorted(kinds))}): convert them, or move it away"
            )

    def numbered(classes: tuple[str, ...]) -> FolderSource:
        pairs = [(path, label) for name, label in number(by_class, classes) for path in by_class[name]]
        return FolderSource(
            root=root,
            classes=classes,
            paths=tuple(path for path, _ in pairs),
            labels=tuple(label for _, label in pairs),
        )

    return Part(where=str(root), names=tuple(by_class), numbered=numbered)
