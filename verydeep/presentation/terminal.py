"""Output of the verbs: tables and text for people, JSON for machines."""

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

_WIDTH_IN_FILES = 120
"""Characters in a line where there is no terminal to ask."""


def show(figures: dict[str, Any], file: Path | None, *for_people: Table | str) -> None:
    """Print for people and, if there is a file, write the figures as JSON; `-` prints the JSON instead."""
    if file is not None and str(file) == "-":
        print(json.dumps(figures, indent=2, ensure_ascii=False))
        return
    if file is not None:
        from verydeep.machine import atomic

        atomic.write_json(file, figures)
    console = Console(highlight=False, emoji=False)
    if not console.is_terminal:
        console.width = _WIDTH_IN_FILES
    for item in for_people:
        console.print(item, soft_wrap=isinstance(item, str), markup=not isinstance(item, str))


def show_report(page: Path, file: Path | None) -> None:
    """Print where a page is; to standard error if the figures go to standard output."""
    print(f"report: {page}", file=sys.stderr if str(file) == "-" else sys.stdout)


SHOWN = 10
"""Lines of long lists; the rest is in the JSON."""


def table_with(title: str | None, *, left: Sequence[str], right: Sequence[str]) -> Table:
    """Return an empty table; columns on the right hold numbers."""
    table = Table(title=title and Text(title), title_justify="left", title_style="bold", box=box.SIMPLE_HEAD)
    for column in left:
        table.add_column(column, overflow="fold")
    for column in right:
        table.add_column(column, justify="right")
    return table
