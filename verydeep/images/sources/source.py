"""What images come from: map-style sources, so that order, resuming and sharing are arithmetic on indices."""

import hashlib
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple, Protocol

import numpy as np

from verydeep.box_regression import Regression
from verydeep.ilsvrc_classes import places
from verydeep.images.decode import UnusableImageError

IMAGE_SUFFIXES = frozenset(
    {
        ".jpg",
        ".jpeg",
        ".jpe",
        ".jfif",
        ".png",
        ".bmp",
        ".gif",
        ".webp",
        ".tif",
        ".tiff",
        ".ppm",
        ".pgm",
        ".pbm",
        ".pnm",
        ".jp2",
        ".avif",
    }
)

SPLIT_NAMES = {"train": ("train",), "val": ("val", "validation"), "test": ("test",)}

VALIDATION_SHARE = 0.2
"""Of each class, held out where a source brings no validation images."""

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
    def ids(self) -> Sequence[str]:
        """The name of every image, as its sample has it, without reading any."""

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
    regression: Regression | None = None
    """What is learned of the boxes, if that is what is learned: then all parts are `Boxed`."""

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
class Part:
    """The images of one split, before it is settled which number each class has."""

    where: str
    """For messages: a folder, shards, a split of a hub data set."""
    names: tuple[str, ...]
    """Classes of which there are images here, in an order of its own."""
    numbered: Callable[[tuple[str, ...]], Source]
    """The source, given all classes in the order of their numbers; `names` are among them."""


@dataclass(frozen=True, kw_only=True)
class MemorySource:
    """Encoded images held in memory."""

    classes: tuple[str, ...]
    samples: tuple[Sample, ...]

    @cached_property
    def labels(self) -> tuple[int, ...]:
        return tuple(sample.label for sample in self.samples)

    @cached_property
    def ids(self) -> tuple[str, ...]:
        return tuple(sample.id for sample in self.samples)

    @cached_property
    def fingerprint(self) -> str:
        return digest(self.classes, *((hashlib.sha256(s.data).hexdigest(), s.label, s.id) for s in self.samples))

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
    def ids(self) -> tuple[str, ...]:
        ids = self.source.ids
        return tuple(ids[index] for index in self.indices)

    @cached_property
    def fingerprint(self) -> str:
        return digest(self.source.fingerprint, self.indices)

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, index: int) -> Sample:
        return self.source[self.indices[index]]


@dataclass(frozen=True, kw_only=True)
class Unchanged:
    """Another source whose files must be what they were: one that has changed meanwhile cannot be used."""

    source: Source
    digests: Sequence[bytes]
    """As `contents_digests` found them."""

    @property
    def classes(self) -> tuple[str, ...]:
        return self.source.classes

    @property
    def labels(self) -> Sequence[int]:
        return self.source.labels

    @property
    def ids(self) -> Sequence[str]:
        return self.source.ids

    @property
    def fingerprint(self) -> str:
        return self.source.fingerprint

    def __len__(self) -> int:
        return len(self.source)

    def __getitem__(self, index: int) -> Sample:
        sample = self.source[index]
        if hashlib.sha256(sample.data).digest() != self.digests[index]:
            raise UnusableImageError(sample.id, "unreadable", "its file has changed meanwhile")
        return sample


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


def hold_out(source: Source, labels: Sequence[int]) -> dict[str, Source]:
    """`train` and `val`, a fifth of each class, always the same images.

    `labels` are the source's by the order of its own classes: what is held out must not depend on a net's.

    Raises:
        ValueError: a class has a single image.
    """
    for label, count in Counter(source.labels).items():
        if count < 2:
            raise ValueError(
                f"class {source.classes[label]} has a single image, which cannot be both for training and for "
                "validation: add more, or a val folder"
            )
    train, val = stratified_split(labels, VALIDATION_SHARE)
    return {
        "train": Subset(source=source, indices=tuple(train)),
        "val": Subset(source=source, indices=tuple(val)),
    }


def natural_order(name: str) -> tuple[bool, int, str]:
    """To sort class names by: numbers by value, before names."""
    return (not name.isdecimal(), int(name) if name.isdecimal() else 0, name)


def some(names: Sequence[str], most: int = 5, between: str = ", ") -> str:
    """The first few of them, for a message."""
    more = f" and {len(names) - most:,} more" if len(names) > most else ""
    return between.join(names[:most]) + more


def number(names: Iterable[str], classes: tuple[str, ...]) -> list[tuple[str, int]]:
    """Each name with its place among the classes."""
    numbers = places(classes)
    return [(name, numbers[name]) for name in names]


def one_of_each(found: dict[str, list[str]], where: str) -> dict[str, str]:
    """Names of splits as a source has them, by ours: a source may say `val` or `validation`, not both.

    Raises:
        ValueError: it says both.
    """
    for names in found.values():
        if len(names) > 1:
            raise ValueError(f"{where} has both {' and '.join(names)}: keep one of them")
    return {split: names[0] for split, names in found.items() if names}


def contents_digests(source: Source, advance: Callable[[], None] = lambda: None) -> list[bytes]:
    """The SHA-256 of every image file, in order: reads them all. `advance` is called after each."""
    found = []
    for index in range(len(source)):
        try:
            data = source[index].data
        except UnusableImageError as refusal:
            data = repr(refusal).encode(errors="surrogateescape")
        found.append(hashlib.sha256(data).digest())
        advance()
    return found


def digest(*parts: object) -> str:
    """Hexadecimal SHA-256 of what the parts look like when printed."""
    return hashlib.sha256("\n".join(map(repr, parts)).encode()).hexdigest()
