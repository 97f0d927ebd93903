"""Sources made of others or of samples in memory."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar

from verydeep.images.decode import UnusableImageError
from verydeep.images.sources.source import ImagePath, ObjectBox, Sample, Source, digest


@dataclass(frozen=True, kw_only=True)
class MemorySource:
    """Encoded images held in memory."""

    boxes: ClassVar[None] = None
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

    def paths(self, index: int) -> tuple[ImagePath, ...]:
        return (ImagePath(self.samples[index].id),)

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
    def boxes(self) -> tuple[ObjectBox, ...] | None:
        boxes = self.source.boxes
        return None if boxes is None else tuple(boxes[index] for index in self.indices)

    @cached_property
    def fingerprint(self) -> str:
        return digest(self.source.fingerprint, self.indices)

    def paths(self, index: int) -> tuple[ImagePath, ...]:
        return self.source.paths(self.indices[index])

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, index: int) -> Sample:
        return self.source[self.indices[index]]


@dataclass(frozen=True, kw_only=True)
class Unchanged:
    """Another source whose files must still be what they were: one that has changed since cannot be used."""

    source: Source
    digests: Sequence[bytes]
    """What `contents_digests` returned."""

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
    def boxes(self) -> Sequence[ObjectBox] | None:
        return self.source.boxes

    @property
    def fingerprint(self) -> str:
        return self.source.fingerprint

    def paths(self, index: int) -> tuple[ImagePath, ...]:
        return self.source.paths(index)

    def __len__(self) -> int:
        return len(self.source)

    def __getitem__(self, index: int) -> Sample:
        sample = self.source[index]
        if hashlib.sha256(sample.data).digest() != self.digests[index]:
            raise UnusableImageError(sample.id, "unreadable", "its file has changed meanwhile")
        return sample
