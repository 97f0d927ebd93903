"""A look through a whole source before a training: unusable images, classes, sizes and duplicates."""

import hashlib
from collections import Counter, defaultdict
from collections.abc import Generator, Iterator, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

from rich.table import Table
from rich.text import Text

from verydeep.images.class_sizes import about_unequal_classes, images_per_class
from verydeep.images.decode import UnusableImageError, decode_for
from verydeep.images.open import open_for_training
from verydeep.images.quarantine import Quarantine
from verydeep.images.sources.inventory import Inventory
from verydeep.images.sources.source import Source
from verydeep.images.sources.splits import Splits
from verydeep.images.tolerance import Tolerance
from verydeep.images.workers import single_items
from verydeep.numbers import MISSING, counted, millions, number, percent, trimmed
from verydeep.presentation.terminal import SHOWN, Reporter, reporting, table_with


@dataclass(frozen=True, kw_only=True)
class SplitScan:
    """Findings in one split."""

    split: str
    images: int
    per_class: dict[str, int]
    """Images of each class, unusable ones included; 0 for classes without any."""
    usable_per_class: dict[str, int]
    """Images of each class that can be used."""
    unusable: dict[str, str]
    """Images that cannot be used, and why."""
    grey: int
    """Usable images whose pixels have three equal channels."""
    shorter_side: tuple[int, float, int] | None
    """Smallest, median and largest over usable images, pixels; None where there are none."""
    longer_side: tuple[int, float, int] | None
    bytes: int
    """Size of all image files together."""


@dataclass(frozen=True, kw_only=True)
class Duplicates:
    """Usable images whose files are exactly the same."""

    images: tuple[tuple[str, str], ...]
    """Split and id of each."""
    classes: tuple[str, ...]
    """Their classes; more than one is a contradiction."""


@dataclass(frozen=True, kw_only=True)
class Scan:
    """Findings of `scan` in a source."""

    source: str
    splits: tuple[SplitScan, ...]
    duplicates: tuple[Duplicates, ...]
    inventory: Inventory = Inventory()
    """Inventory of the source, images and all else."""

    @property
    def across_splits(self) -> tuple[Duplicates, ...]:
        """Duplicates in more than one split, such as training and test: errors measured there are too low."""
        return tuple(same for same in self.duplicates if len({split for split, _ in same.images}) > 1)

    @property
    def contradictions(self) -> tuple[Duplicates, ...]:
        """Duplicates with different classes."""
        return tuple(same for same in self.duplicates if len(same.classes) > 1)

    def to_dict(self) -> dict[str, Any]:
        """Return plain dictionaries, ready for JSON."""
        return {
            "source": self.source,
            "splits": [asdict(split) for split in self.splits],
            "duplicates": [asdict(same) for same in self.duplicates],
            "across_splits": [asdict(same) for same in self.across_splits],
            "contradictions": [asdict(same) for same in self.contradictions],
            "inventory": self.inventory.to_dict(),
        }


@dataclass(frozen=True, kw_only=True)
class _Look:
    """Findings in one image."""

    id: str
    sha256: str
    bytes: int
    size: tuple[int, int] | None = None
    grey: bool = False
    refusal: UnusableImageError | None = None


def scan(source: str | Path | Splits, *, tolerance: Tolerance | None = None, workers: int = 0) -> Scan:
    """Read and decode every image of every split of SOURCE; find the same unusable images as a training would.

    Raises:
        ValueError: unusable source.
        WorkerDiedError: a process that decodes was killed, for example.
    """
    splits = open_for_training(source)
    max_pixels = (tolerance or Tolerance()).max_pixels
    scans, by_contents = [], defaultdict(list)
    with reporting("scan", sum(map(len, splits.sources.values()))) as report:
        for split, images in splits.sources.items():
            looks = _look_at(images, max_pixels, workers, report)
            scans.append(_summary(split, images, looks))
            for look, label in zip(looks, images.labels, strict=True):
                if look.refusal is None:
                    by_contents[look.sha256].append((split, look.id, images.classes[label]))
    duplicates = tuple(
        Duplicates(images=tuple((split, name) for split, name, _ in same), classes=tuple(sorted({c for *_, c in same})))
        for same in by_contents.values()
        if len(same) > 1
    )
    return Scan(source=splits.name, splits=tuple(scans), duplicates=duplicates, inventory=splits.inventory)


def check_images(source: Source, *, quarantine: Quarantine, workers: int = 0) -> None:
    """Put every image that cannot be used into the quarantine.

    Raises:
        TooManyBadImagesError: the quarantine is full.
    """
    looks = _looks(source, quarantine.tolerance.max_pixels, workers)
    with reporting(f"check of {quarantine.split} images", len(source)) as report, closing(looks):
        quarantine.say = report.say
        for look in looks:
            if look.refusal is not None:
                quarantine.add(look.refusal)
            report.advance()


def _look_at(source: Source, max_pixels: int, workers: int, report: Reporter) -> list[_Look]:
    looks: list[_Look] = []
    with closing(_looks(source, max_pixels, workers)) as items:
        for look in items:
            looks.append(look)
            report.advance()
    return looks


def _summary(split: str, source: Source, looks: list[_Look]) -> SplitScan:
    sizes = [look.size for look in looks if look.size is not None]
    per_class = images_per_class(source)
    unusable = Counter(
        source.classes[label] for look, label in zip(looks, source.labels, strict=True) if look.refusal is not None
    )
    return SplitScan(
        split=split,
        images=len(source),
        per_class=per_class,
        usable_per_class={name: count - unusable[name] for name, count in per_class.items()},
        unusable={look.id: look.refusal.reason for look in looks if look.refusal is not None},
        grey=sum(look.grey for look in looks),
        shorter_side=_spread([min(size) for size in sizes]),
        longer_side=_spread([max(size) for size in sizes]),
        bytes=sum(look.bytes for look in looks),
    )


def _spread(values: list[int]) -> tuple[int, float, int] | None:
    return (min(values), float(median(values)), max(values)) if values else None


def _looks(source: Source, max_pixels: int, workers: int) -> Generator[_Look]:
    return single_items(partial(_look, source, max_pixels), range(len(source)), workers=workers)


def _look(source: Source, max_pixels: int, index: int) -> _Look:
    try:
        data, _, name = source[index]
    except UnusableImageError as refusal:
        return _Look(id=refusal.name, sha256="", bytes=0, refusal=refusal)
    digest = hashlib.sha256(data).hexdigest()
    try:
        # Decoding a JPEG at an eighth of its size is enough to find all that is wrong with it.
        pixels, size, *_ = decode_for(data, name, shorter_side=1, max_pixels=max_pixels)
    except UnusableImageError as refusal:
        return _Look(id=name, sha256=digest, bytes=len(data), refusal=refusal)
    grey = bool((pixels[..., 0] == pixels[..., 1]).all() and (pixels[..., 1] == pixels[..., 2]).all())
    return _Look(id=name, sha256=digest, bytes=len(data), size=size, grey=grey)


def scan_tables(scan: Scan, *, max_bad: float) -> list[Table | str]:
    """Show the classes, sizes and faults of a source."""
    tables = [_split_table(scan), _class_table(scan.splits)]
    return [*tables, *_left_out(scan.inventory), *_lists(scan), *_verdict(scan, max_bad)]


def _split_table(scan: Scan) -> Table:
    table = table_with(
        scan.source, left=("split",), right=("images", "unusable", "grey", "shorter side", "longer side", "MB")
    )
    for split in scan.splits:
        bad = 100 * len(split.unusable) / split.images
        table.add_row(
            Text(split.split),
            number(split.images),
            f"{number(len(split.unusable))} ({percent(bad, 0 if bad >= 10 else 1)}%)" if bad else "0",
            f"{number(split.grey)} ({percent(100 * split.grey / split.images)}%)",
            _side(split.shorter_side),
            _side(split.longer_side),
            millions(split.bytes),
        )
    return table


def _left_out(inventory: Inventory) -> Iterator[str]:
    """List files other than images, if there are any."""
    found, lines = inventory.total, inventory.lines()
    if lines:
        labels = f", {counted(found.labels, 'label')}" if found.labels else ""
        yield "\n".join(
            [
                f"{counted(found.files, 'file')} found: {counted(found.images, 'image')}{labels}, "
                f"{number(found.left_out)} left out",
                *(f"  {line}" for line in lines),
                "",
            ]
        )


def _lists(scan: Scan) -> Iterator[str]:
    across, contradictions = len(scan.across_splits), len(scan.contradictions)
    which = [f"{number(across)} in more than one split"] * bool(across)
    which += [f"{number(contradictions)} in different classes"] * bool(contradictions)
    copies = "The same file more than once" + (f" ({', '.join(which)})" if which else "")
    for title, lines in {
        "Unusable images": [
            f"{split.split}/{name}: {reason}" for split in scan.splits for name, reason in split.unusable.items()
        ],
        copies: _names(sorted(scan.duplicates, key=_harm, reverse=True)),
    }.items():
        if lines:
            more = [f"  and {number(len(lines) - SHOWN)} more (--json FILE lists all)"] if len(lines) > SHOWN else []
            yield "\n".join([f"{title}: {number(len(lines))}", *(f"  {line}" for line in lines[:SHOWN]), *more, ""])


def _harm(same: Duplicates) -> tuple[int, int]:
    """Return how harmful duplicates are: those in several splits are worst, then those in several classes."""
    return len({split for split, _ in same.images}), len(same.classes)


def _verdict(scan: Scan, max_bad: float) -> Iterator[str]:
    if unequal := about_unequal_classes(scan.splits[0].usable_per_class):
        yield f"{unequal[0].upper()}{unequal[1:]}."
    too_many = [split.split for split in scan.splits if 100 * len(split.unusable) > max_bad * split.images]
    if too_many:
        yield f"Over {trimmed(max_bad)}% of {' and '.join(too_many)} cannot be used: a training would stop (--max-bad)."


def _side(side: tuple[int, float, int] | None) -> str:
    if side is None:
        return MISSING
    least, middle, greatest = side
    return f"{least}" if least == greatest else f"{least} to {greatest}, median {trimmed(middle)}"


def _names(duplicates: Sequence[Duplicates]) -> list[str]:
    return [
        f"{' = '.join('/'.join(image) for image in same.images)} ({', '.join(same.classes)})" for same in duplicates
    ]


def _class_table(splits: Sequence[SplitScan]) -> Table:
    """Show how many usable images each class has; where there are many classes, only the smallest."""
    counts = splits[0].usable_per_class
    few = len(counts) <= 2 * SHOWN
    shown = list(counts) if few else sorted(counts, key=lambda name: counts[name])[:SHOWN]
    title = f"{number(len(counts))} classes" + ("" if few else f"; the smallest {SHOWN}")
    table = table_with(title, left=("class",), right=[split.split for split in splits])
    if some_unusable := any(split.unusable for split in splits):
        table.add_column("unusable", justify="right")
    for name in shown:
        usable = [split.usable_per_class[name] for split in splits]
        unusable = sum(split.per_class[name] for split in splits) - sum(usable)
        table.add_row(Text(name), *map(number, usable), *([number(unusable)] if some_unusable else []))
    return table
