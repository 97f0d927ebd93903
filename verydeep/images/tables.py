"""Tables of what a look through a source found."""

from collections.abc import Mapping, Sequence
from typing import Any

from rich.table import Table
from rich.text import Text

from verydeep.presentation.numbers import millions, number, percent
from verydeep.presentation.terminal import SHOWN, table_with


def scan_tables(found: Mapping[str, Any], *, max_bad: float) -> list[Table | str]:
    """What a source is made of and what is wrong with it, as `Scan.to_dict` gives it."""
    table = table_with(
        found["source"], left=("split",), right=("images", "unusable", "grey", "shorter side", "longer side")
    )
    table.add_column("MB", justify="right")
    for split in found["splits"]:
        bad = 100 * len(split["unusable"]) / split["images"]
        table.add_row(
            Text(split["split"]),
            number(split["images"]),
            f"{number(len(split['unusable']))} ({percent(bad, 0 if bad >= 10 else 1)}%)" if bad else "0",
            f"{number(split['grey'])} ({percent(100 * split['grey'] / split['images'])}%)",
            _side(split["shorter_side"]),
            _side(split["longer_side"]),
            millions(split["bytes"]),
        )
    lists: list[Table | str] = [table, _class_table(found["splits"])]
    elsewhere = [same for same in found["duplicates"] if len({split for split, _ in same["images"]}) == 1]
    for title, lines in {
        "Unusable images": [
            f"{split['split']}/{name}: {reason}"
            for split in found["splits"]
            for name, reason in split["unusable"].items()
        ],
        "The same file in more than one split": _places(found["across_splits"]),
        "The same file several times in one split": _places(elsewhere),
        "The same file in different classes": _places(found["contradictions"]),
    }.items():
        if lines:
            more = [f"  and {number(len(lines) - SHOWN)} more (--json FILE lists all)"] if len(lines) > SHOWN else []
            lists.append(
                "\n".join([f"{title}: {number(len(lines))}", *(f"  {line}" for line in lines[:SHOWN]), *more, ""])
            )
    too_many = [s["split"] for s in found["splits"] if 100 * len(s["unusable"]) > max_bad * s["images"]]
    if too_many:
        lists.append(
            f"Of {' and '.join(too_many)} over {max_bad:g}% cannot be used: a training would stop (--max-bad)."
        )
    return lists


def _side(side: Sequence[float] | None) -> str:
    if side is None:
        return "–"
    least, middle, greatest = side
    return f"{least}" if least == greatest else f"{least} to {greatest}, median {middle:g}"


def _places(duplicates: Sequence[Mapping[str, Any]]) -> list[str]:
    return [
        f"{' = '.join('/'.join(place) for place in same['images'])} ({', '.join(same['classes'])})"
        for same in duplicates
    ]


def _class_table(splits: Sequence[Mapping[str, Any]]) -> Table:
    """Images per class; of many classes the smallest."""
    counts = splits[0]["per_class"]
    few = len(counts) <= 2 * SHOWN
    shown = list(counts) if few else sorted(counts, key=counts.get)[:SHOWN]
    title = f"{number(len(counts))} classes" + ("" if few else f"; the smallest {SHOWN}")
    table = table_with(title, left=("class",), right=[split["split"] for split in splits])
    for name in shown:
        table.add_row(Text(name), *(number(split["per_class"][name]) for split in splits))
    return table
