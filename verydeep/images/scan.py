"""A look through a whole source before a training: what cannot be used, what it is made of, what stands in it twice."""

import hashlib
from collections import Counter, defaultdict
from contextlib import closing
from dataclasses import asdict, dataclass
from statistics import median
from typing import Any

from torch.utils.data import Dataset

from verydeep.images.decode import UnusableImageError, decode_for
from verydeep.images.open import open_for_training
from verydeep.images.quarantine import Quarantine
from verydeep.images.sources.source import Source
from verydeep.images.sources.splits import Splits
from verydeep.images.tolerance import Tolerance
from verydeep.images.workers import as_it_is, from_workers
from verydeep.presentation.progress import Reporter, reporting


@dataclass(frozen=True, kw_only=True)
class SplitScan:
    """What was found in one split."""

    split: str
    images: int
    per_class: dict[str, int]
    """Images of each class, unusable ones too; classes without any are there with 0."""
    unusable: dict[str, str]
    """Images that cannot be used, and why."""
    grey: int
    """Usable images whose pixels have three equal channels."""
    shorter_side: tuple[int, float, int] | None
    """Least, median and greatest over usable images, pixels; None where there are none."""
    longer_side: tuple[int, float, int] | None
    bytes: int
    """Of all image files."""


@dataclass(frozen=True, kw_only=True)
class Duplicates:
    """Places where exactly the same usable file stands."""

    images: tuple[tuple[str, str], ...]
    """Split and id of each."""
    classes: tuple[str, ...]
    """That it is said to show; more than one is a contradiction."""


@dataclass(frozen=True, kw_only=True)
class Scan:
    """What `scan` found in a source."""

    source: str
    splits: tuple[SplitScan, ...]
    duplicates: tuple[Duplicates, ...]

    @property
    def across_splits(self) -> tuple[Duplicates, ...]:
        """Those that stand in training and in validation or test: errors measured there are too low."""
        return tuple(found for found in self.duplicates if len({split for split, _ in found.images}) > 1)

    @property
    def contradictions(self) -> tuple[Duplicates, ...]:
        """Those that are said to show different classes."""
        return tuple(found for found in self.duplicates if len(found.classes) > 1)

    def to_dict(self) -> dict[str, Any]:
        """The same as plain dictionaries, ready for JSON."""
        return {
            **asdict(self),
            "across_splits": [asdict(found) for found in self.across_splits],
            "contradictions": [asdict(found) for found in self.contradictions],
        }


@dataclass(frozen=True, kw_only=True)
class _Look:
    """What there is to know of one image."""

    id: str
    sha256: str
    bytes: int
    size: tuple[int, int] | None = None
    grey: bool = False
    refusal: UnusableImageError | None = None


def scan(source: str | Splits, *, tolerance: Tolerance | None = None, workers: int = 0) -> Scan:
    """Reads and decodes every image of every split of SOURCE; finds the same unusable ones as a training would.

    Raises:
        ValueError: unusable source.
        WorkerDiedError: a process that decodes was killed, say.
    """
    splits = open_for_training(source) if isinstance(source, str) else source
    max_pixels = (tolerance or Tolerance()).max_pixels
    found, standing = [], defaultdict(list)
    with reporting("scan", sum(len(part) for part in splits.sources.values())) as report:
        for split, part in splits.sources.items():
            looks = _look_at(part, max_pixels, workers, report)
            found.append(_summary(split, part, looks))
            for look, label in zip(looks, part.labels, strict=True):
                if look.refusal is None:
                    standing[look.sha256].append((split, look.id, part.classes[label]))
    duplicates = tuple(
        Duplicates(
            images=tuple((split, name) for split, name, _ in places), classes=tuple(sorted({c for *_, c in places}))
        )
        for places in standing.values()
        if len(places) > 1
    )
    return Scan(source=splits.name, splits=tuple(found), duplicates=duplicates)


def check_images(source: Source, *, quarantine: Quarantine, workers: int = 0) -> None:
    """Puts every image that cannot be used into the quarantine.

    Raises:
        TooManyBadImagesError: the quarantine is full.
    """
    looks = _Looks(source, quarantine.tolerance.max_pixels)
    found = from_workers(looks, workers=workers, batch_size=None, collate_fn=as_it_is)
    with reporting(f"check of {quarantine.split} images", len(source)) as report, closing(found):
        quarantine.say = report.say
        for look in found:
            if look.refusal is not None:
                quarantine.add(look.refusal)
            report.advance()


def _look_at(part: Source, max_pixels: int, workers: int, report: Reporter) -> list[_Look]:
    looks: list[_Look] = []
    found = from_workers(_Looks(part, max_pixels), workers=workers, batch_size=None, collate_fn=as_it_is)
    with closing(found):
        for look in found:
            looks.append(look)
            if look.refusal is not None:
                report.say(str(look.refusal))
            report.advance()
    return looks


def _summary(split: str, part: Source, looks: list[_Look]) -> SplitScan:
    counts = Counter(part.labels)
    sizes = [look.size for look in looks if look.size is not None]
    return SplitScan(
        split=split,
        images=len(part),
        per_class={name: counts[label] for label, name in enumerate(part.classes)},
        unusable={look.id: look.refusal.reason for look in looks if look.refusal is not None},
        grey=sum(look.grey for look in looks),
        shorter_side=_spread([min(size) for size in sizes]),
        longer_side=_spread([max(size) for size in sizes]),
        bytes=sum(look.bytes for look in looks),
    )


def _spread(values: list[int]) -> tuple[int, float, int] | None:
    return (min(values), float(median(values)), max(values)) if values else None


@dataclass(frozen=True)
class _Looks(Dataset[Any]):
    """Adapts a source to the DataLoader."""

    source: Source
    max_pixels: int

    def __len__(self) -> int:
        return len(self.source)

    def __getitem__(self, index: int) -> _Look:
        try:
            data, _, name = self.source[index]
        except UnusableImageError as refusal:
            return _Look(id=refusal.name, sha256="", bytes=0, refusal=refusal)
        digest = hashlib.sha256(data).hexdigest()
        try:
            # An eighth of a JPEG's size is enough to meet all that is wrong with it.
            pixels, size, _ = decode_for(data, name, shorter_side=1, max_pixels=self.max_pixels)
        except UnusableImageError as refusal:
            return _Look(id=name, sha256=digest, bytes=len(data), refusal=refusal)
        grey = bool((pixels[..., 0] == pixels[..., 1]).all() and (pixels[..., 1] == pixels[..., 2]).all())
        return _Look(id=name, sha256=digest, bytes=len(data), size=size, grey=grey)
