"""Tables of a scan."""

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from rich.table import Table
from rich.text import Text

from verydeep.presentation.numbers import MISSING, millions, number, percent
from verydeep.presentation.terminal import SHOWN, table_with

if TYPE_CHECKING:
    from verydeep.images.scan import Duplicates, Scan, SplitScan


def scan_tables(scan: "Scan", *, max_bad: float) -> list[Table | str]:
    """Show what a source is made of and what is wrong with it."""
    return [_split_table(scan), _class_table(scan.splits), *_lists(scan), *_verdict(scan, max_bad)]


def _split_table(scan: "Scan") -> Table:
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


def _lists(scan: "Scan") -> Iterator[str]:
    elsewhere = [same for same in scan.duplicates if len({split for split, _ in same.images}) == 1]
    for title, lines in {
        "Unusable images": [
            f"{split.split}/{name}: {reason}" for split in scan.splits for name, reason in split.unusable.items()
        ],
        "The same file in more than one split": _names(scan.across_splits),
        "The same file several times in one split": _names(elsewhere),
        "The same file in different classes": _names(scan.contradictions),
    }.items():
        if lines:
            more = [f"  and {number(len(lines) - SHOWN)} more (--json FILE lists all)"] if len(lines) > SHOWN else []
            yield "\n".join([f"{title}: {number(len(lines))}", *(f"  {line}" for line in lines[:SHOWN]), *more, ""])


def _verdict(scan: "Scan", max_bad: float) -> Iterator[str]:
    too_many = [split.split for split in scan.splits if 100 * len(split.unusable) > max_bad * split.images]
    if too_many:
        yield f"Over {max_bad:g}% of {' and '.join(too_many)} cannot be used: a training would stop (--max-bad)."


def _side(side: tuple[int, float, int] | None) -> str:
    if side is None:
        return MISSING
    least, middle, greatest = side
    return f"{least}" if least == greatest else f"{least} to {greatest}, median {middle:g}"


def _names(duplicates: Sequence["Duplicates"]) -> list[str]:
    return [
        f"{' = '.join('/'.join(image) for image in same.images)} ({', '.join(same.classes)})" for same in duplicates
    ]


def _class_table(splits: Sequence["SplitScan"]) -> Table:
    """Show the images of each class; where there are many classes, of the smallest."""
    counts = splits[0].per_class
    few = len(counts) <= 2 * SHOWN
    shown = list(counts) if few else sorted(counts, key=lambda name: counts[name])[:SHOWN]
    title = f"{number(len(counts))} classes" + ("" if few else f"; the smallest {SHOWN}")
    table = table_with(title, left=("class",), right=[split.split for split in splits])
    for name in shown:
        table.add_row(Text(name), *(number(split.per_class[name]) for split in splits))
    return table
