"""Where images come from: the digits, or folders with one folder per class.

A source is map-style, so that order, resuming and sharing among processes are arithmetic on indices.
"""

import hashlib
import io
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path
from typing import NamedTuple, Protocol

import numpy as np
from PIL import Image

IMAGE_SUFFIXES = frozenset(
    {".jpg", ".jpeg", ".png", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".ppm", ".pgm", ".jp2", ".avif"}
)

SPLIT_FOLDERS = {"train": ("train",), "val": ("val", "validation"), "test": ("test",)}

VALIDATION_SHARE = 0.2
"""Of each class, held out where a source brings no validation images."""

DIGITS_TEST_SHARE, DIGITS_VALIDATION_SHARE = 0.2, 0.125
"""A fifth of the 1,797 digits (359) is for testing; an eighth of the rest (179) for the learning-rate schedule."""

_SPLIT_SEED = 0
"""Fixed, so that a held-out image is held out in every run on the same source."""


class Sample(NamedTuple):
    """One item of a source."""

    data: bytes
    """The encoded image, as it lies in its file."""
    label: int
    id: str


class Source(Protocol):
    """Images in a fixed order."""

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the classes, in the order of the labels."""

    @property
    def labels(self) -> Sequence[int]:
        """The label of every image, without reading any."""

    @property
    def fingerprint(self) -> str:
        """Hexadecimal digest of what the source holds; `FolderSource` looks at names and sizes, not into the files."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> Sample: ...


@dataclass(frozen=True, kw_only=True)
class Splits:
    """A source's parts: `train`, `val`, and `test` where the source has one."""

    name: str
    parts: dict[str, Source]

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the training classes."""
        return self.parts["train"].classes

    @property
    def testing(self) -> str:
        """The part for final figures: `test`, or `val` where that is all there is, as in the paper."""
        return "test" if "test" in self.parts else "val"

    def part(self, split: str) -> Source:
        """One part.

        Raises:
            ValueError: this source has no such split.
        """
        if split not in self.parts:
            raise ValueError(f"{self.name} has no split {split!r}: choose one of {', '.join(self.parts)}")
        return self.parts[split]


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
        return _digest(self.classes, *zip(self.paths, self.labels, sizes, strict=True))

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> Sample:
        path = self.paths[index]
        return Sample((self.root / path).read_bytes(), self.labels[index], path)


@dataclass(frozen=True, kw_only=True)
class MemorySource:
    """Encoded images held in memory."""

    classes: tuple[str, ...]
    samples: tuple[Sample, ...]

    @cached_property
    def labels(self) -> tuple[int, ...]:
        return tuple(sample.label for sample in self.samples)

    @cached_property
    def fingerprint(self) -> str:
        return _digest(self.classes, *((hashlib.sha256(s.data).hexdigest(), s.label, s.id) for s in self.samples))

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int) -> Sample:
        return self.samples[index]


@dataclass(frozen=True, kw_only=True)
class Subset:
    """Some images of another source."""

    source: Source
    indices: tuple[int, ...]

    @property
    def classes(self) -> tuple[str, ...]:
        return self.source.classes

    @cached_property
    def labels(self) -> tuple[int, ...]:
        labels = self.source.labels
        return tuple(labels[index] for index in self.indices)

    @cached_property
    def fingerprint(self) -> str:
        return _digest(self.source.fingerprint, self.indices)

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, index: int) -> Sample:
        return self.source[self.indices[index]]


def open_source(name: str) -> Splits:
    """The splits of SOURCE for training: `digits`, or a folder.

    A folder holds one folder per class, or `train/` and `val/` (also `validation/`, `test/`) that do. Where
    there is no validation split a fifth of each class is held out, always the same images. Class order is that
    of the training folders' names; other splits are matched to it by name.

    Raises:
        ValueError: no such folder, no images in it, fewer than two classes, a class with a single image, or one that
            training lacks.
    """
    if name == "digits":
        return digits()
    root = _folder(name)
    found = _split_folders(root)
    if found and "train" not in found:
        raise ValueError(f"{root} has {', '.join(path.name for path in found.values())} but no train folder")
    train = _folder_source(found.pop("train", root))
    others: dict[str, Source] = {split: _folder_source(path, train.classes) for split, path in found.items()}
    held_out = {} if "val" in others else _hold_out(train)
    return Splits(name=name, parts={"train": train, **held_out, **others})


def open_for_testing(name: str, classes: tuple[str, ...]) -> Splits:
    """The splits of SOURCE for a net that knows `classes`; there may be fewer of them, and few images of each.

    A folder of class folders also has the part `all`. Its `train` and `val` are what training would make of it.

    Raises:
        ValueError: no such folder, no images in it, or a class that the net does not know.
    """
    if name == "digits":
        return digits()
    root = _folder(name)
    found = _split_folders(root)
    parts: dict[str, Source] = {split: _folder_source(path, classes) for split, path in found.items()}
    whole = parts.get("train") if found else _folder_source(root, classes)
    if whole is not None and "val" not in parts and min(Counter(whole.labels).values()) > 1:
        parts |= _hold_out(whole)
    return Splits(name=name, parts=parts if found or whole is None else {**parts, "all": whole})


@cache
def digits() -> Splits:
    """The 1,797 handwritten digits (8 x 8 pixels, 10 classes) that come with scikit-learn, as PNG files in memory.

    They are a real data set, the test part of the UCI set 'Optical Recognition of Handwritten Digits'.
    """
    from sklearn.datasets import load_digits  # 1 s to import

    images, labels = load_digits(return_X_y=True)
    grey = np.round(images.reshape(-1, 8, 8) * (255 / 16)).astype(np.uint8)
    samples = tuple(
        Sample(_png(image), int(label), f"digit-{index:04d}")
        for index, (image, label) in enumerate(zip(grey, labels, strict=True))
    )
    whole = MemorySource(classes=tuple("0123456789"), samples=samples)
    rest, test = stratified_split(whole.labels, DIGITS_TEST_SHARE)
    train, val = stratified_split([whole.labels[index] for index in rest], DIGITS_VALIDATION_SHARE)
    parts = {"train": [rest[i] for i in train], "val": [rest[i] for i in val], "test": test}
    return Splits(
        name="digits",
        parts={split: Subset(source=whole, indices=tuple(indices)) for split, indices in parts.items()},
    )


def stratified_split(labels: Sequence[int], share: float) -> tuple[list[int], list[int]]:
    """Indices of two parts, the second with `share` of each class (at least one image, never all), each ascending.

    The choice is fixed: the same labels always give the same parts.

    Raises:
        ValueError: a class has a single image, so that it cannot be in both parts.
    """
    generator = np.random.Generator(np.random.PCG64(_SPLIT_SEED))
    by_label: dict[int, list[int]] = {}
    for index, label in enumerate(labels):
        by_label.setdefault(label, []).append(index)
    taken: list[int] = []
    for _, members in sorted(by_label.items()):
        if len(members) < 2:
            raise ValueError(
                "a class with a single image cannot be split into training and validation images: add more"
            )
        count = min(max(1, round(share * len(members))), len(members) - 1)
        taken += [members[i] for i in generator.permutation(len(members))[:count]]
    held_out = set(taken)
    return [index for index in range(len(labels)) if index not in held_out], sorted(taken)


def is_image_file(path: Path) -> bool:
    """Whether a file's name is that of an image, and not a hidden one (macOS leaves `._1.jpg` beside `1.jpg`)."""
    return path.suffix.lower() in IMAGE_SUFFIXES and not path.name.startswith(".") and path.is_file()


def _folder(name: str) -> Path:
    root = Path(name).expanduser()
    if not root.is_dir():
        raise ValueError(f"no folder {name!r}: give a folder of images, one folder per class, or the word digits")
    return root


def _split_folders(root: Path) -> dict[str, Path]:
    """`train`, `val` and `test` folders; none where `root` holds class folders, one of which may be called test."""
    folders = {folder.name for folder in _folders(root)}
    if "train" not in folders and not folders <= {name for names in SPLIT_FOLDERS.values() for name in names}:
        return {}
    found = {}
    for split, names in SPLIT_FOLDERS.items():
        there = [root / name for name in names if name in folders]
        if len(there) > 1:
            raise ValueError(f"{root} has both {' and '.join(path.name for path in there)}: keep one of them")
        if there:
            found[split] = there[0]
    return found


def _folders(root: Path) -> list[Path]:
    return sorted(folder for folder in root.iterdir() if folder.is_dir() and not folder.name.startswith("."))


def _hold_out(source: Source) -> dict[str, Source]:
    for label, count in Counter(source.labels).items():
        if count < 2:
            raise ValueError(
                f"class {source.classes[label]} has a single image, which cannot be both for training and for "
                "validation: add more, or a val folder"
            )
    train, val = stratified_split(source.labels, VALIDATION_SHARE)
    return {
        "train": Subset(source=source, indices=tuple(train)),
        "val": Subset(source=source, indices=tuple(val)),
    }


def _folder_source(root: Path, classes: tuple[str, ...] | None = None) -> FolderSource:
    """Images below `root`; with `classes`, their labels follow those names instead of the folders here."""
    by_class = {
        folder.name: sorted(str(path.relative_to(root)) for path in folder.rglob("*") if is_image_file(path))
        for folder in _folders(root)
    }
    by_class = {name: paths for name, paths in by_class.items() if paths}
    if not by_class:
        raise ValueError(f"no images in {root}: it must hold one folder per class with images in it")
    if classes is None:
        if len(by_class) < 2:
            raise ValueError(f"{root} has one class only ({next(iter(by_class))}): there is nothing to tell apart")
        classes = tuple(by_class)
    unknown = sorted(set(by_class) - set(classes))
    if unknown:
        raise ValueError(f"{root} has classes that training lacks: {', '.join(unknown)}; it has {', '.join(classes)}")
    pairs = [(path, classes.index(name)) for name, paths in by_class.items() for path in paths]
    return FolderSource(
        root=root, classes=classes, paths=tuple(path for path, _ in pairs), labels=tuple(label for _, label in pairs)
    )


def _png(grey: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(grey).save(buffer, "PNG")
    return buffer.getvalue()


def _digest(*parts: object) -> str:
    return hashlib.sha256("\n".join(map(repr, parts)).encode()).hexdigest()
