"""Sources whose images have a box each."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from verydeep.images.sources.source import ImagePath, ObjectBox, Sample, Source, digest


@dataclass(frozen=True, kw_only=True)
class Boxed:
    """Images of another source that have a box each."""

    source: Source
    boxes: tuple[ObjectBox, ...]

    @property
    def classes(self) -> tuple[str, ...]:
        return self.source.classes

    @property
    def labels(self) -> Sequence[int]:
        return self.source.labels

    @property
    def ids(self) -> Sequence[str]:
        return self.source.ids

    @cached_property
    def fingerprint(self) -> str:
        return digest(self.source.fingerprint, *(location.box.tolist() for location in self.boxes))

    def paths(self, index: int) -> tuple[ImagePath, ...]:
        return self.source.paths(index)

    def __len__(self) -> int:
        return len(self.source)

    def __getitem__(self, index: int) -> Sample:
        return self.source[index]
