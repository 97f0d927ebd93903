"""Class folders: image files, each in the folder of its class, perhaps in `train`, `val` and `test` folders."""

import os
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import ClassVar

from verydeep.images.decode import UnusableImageError
from verydeep.images.sources.kind import Kind
from verydeep.images.sources.source import IMAGE_SUFFIXES, ImagePath, Sample, digest
from verydeep.images.sources.splits import (
    SPLIT_NAMES,
    UnnumberedSplit,
    folder_names,
    names_of_present_splits,
    natural_order,
    with_numbers,
)


@dataclass(frozen=True, kw_only=True)
class FolderSource:
    """Image files below `root`, each in the folder of its class."""

    boxes: ClassVar[None] = None
    root: Path
    classes: tuple[str, ...]
    ids: tuple[str, ...]
    """Paths relative to `root`."""
    labels: tuple[int, ...]

    @cached_property
    def fingerprint(self) -> str:
        sizes = ((self.root / path).stat().st_size for path in self.ids)
        return digest(self.classes, *zip(self.ids, self.labels, sizes, strict=True))

    @cached_property
    def _folders(self) -> tuple[str, ...]:
        return folder_names(os.path.basename(os.path.abspath(self.root)))

    def paths(self, index: int) -> tuple[ImagePath, ...]:
        return (ImagePath(self.ids[index], self._folders),)

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, index: int) -> Sample:
        path = self.ids[index]
        try:
            return Sample((self.root / path).read_bytes(), self.labels[index], path)
        except OSError as error:
            raise UnusableImageError(path, "unreadable", error.strerror or str(error)) from error


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
    return UnnumberedSplit(where=str(root), names=tuple(images), numbered=partial(_numbered, root, images))


def _check_empty(folder: Path) -> None:
    """Refuse a class folder with files but no images."""
    kinds = {path.suffix for path in folder.rglob("[!.]*") if path.is_file()}
    if kinds:
        raise ValueError(
            f"{folder} holds files but no images ({', '.join(sorted(kinds))}): convert them, or move the folder away"
        )


def _numbered(root: Path, images: dict[str, list[str]], classes: tuple[str, ...]) -> FolderSource:
    pairs = [(path, label) for name, label in with_numbers(images, classes) for path in images[name]]
    return FolderSource(
        root=root,
        classes=classes,
        ids=tuple(path for path, _ in pairs),
        labels=tuple(label for _, label in pairs),
    )
