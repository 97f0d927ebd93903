"""Output of the verbs: tables and text for people, JSON for machines, and how far long work has come."""

import codecs
import errno
import math
import os
import shlex
import sys
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rich import box
from rich.console import Console, ConsoleOptions, RenderableType
from rich.progress import BarColumn, Progress, TaskID, TextColumn
from rich.progress_bar import ProgressBar
from rich.segment import Segment
from rich.table import Table
from rich.text import Text

from verydeep.machine.documents import json_text
from verydeep.machine.errors import escaped, escaped_line, say
from verydeep.machine.standard_streams import silence
from verydeep.machine.torchrun import rank_of_environment
from verydeep.numbers import duration

_WIDTH_IN_FILES = 120
"""Width of a line in characters, where there is no terminal to ask."""


class PipedConsole(Console):
    """Console whose reader may go before it has read all, as `head` does and `tee` when it is stopped."""

    def on_broken_pipe(self) -> None:
        """End the command if it was standard output's; on standard error only progress is lost, and work goes on.

        Raises:
            BrokenPipeError: this console writes to standard output.
        """
        if not self.stderr:
            raise BrokenPipeError(errno.EPIPE, os.strerror(errno.EPIPE))
        silence(self.file)


class _Console(PipedConsole):
    """Console in which names of files and classes are data: they are never markup, and cannot act on the terminal."""

    def __init__(self, **options: Any) -> None:
        super().__init__(highlight=False, emoji=False, markup=False, **options)

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterator[Segment]:
        """Escape control characters in every segment of text; Rich's own control codes are segments of another kind."""
        for segment in super().render(renderable, options):
            yield segment if segment.control else segment._replace(text=escaped(segment.text))


def print_json(value: object, *, indent: int | None = None) -> None:
    """Print a value as JSON to standard output; if its encoding is not UTF-8, with characters of ASCII alone."""
    is_utf8 = codecs.lookup(sys.stdout.encoding or "utf-8").name == "utf-8"
    print(json_text(value, indent=indent, ascii_only=not is_utf8), flush=True)


def show(figures: dict[str, Any], file: Path | None, *for_people: Table | str) -> None:
    """Print for people and, if there is a file, write the figures as JSON; `-` prints the JSON instead.

    Raises:
        OSError: the file cannot be written.
    """
    if file is not None and str(file) == "-":
        print_json(figures, indent=2)
        return
    if file is not None:
        from verydeep.machine import atomic

        atomic.write_json(file, figures)
    console = _Console()
    if not console.is_terminal:
        console.width = _WIDTH_IN_FILES
    for item in for_people:
        console.print(escaped(item) if isinstance(item, str) else _laid_out(item), soft_wrap=isinstance(item, str))


def _laid_out(table: Table) -> Table:
    """Escape control characters in a table before it is laid out, so that it stays even."""

    def shown(cell: Any) -> Any:
        if isinstance(cell, Text) and escaped(cell.plain) != cell.plain:
            return Text(escaped(cell.plain), style=cell.style)
        return escaped(cell) if isinstance(cell, str) else cell

    table.title, table.caption = shown(table.title), shown(table.caption)
    for column in table.columns:
        column.header, column._cells = shown(column.header), [shown(cell) for cell in column._cells]
    return table


def show_report(page: Path, file: Path | None) -> None:
    """Print where a page is, to standard error if the figures go to standard output."""
    line = f"report: {page}"
    if str(file) == "-":
        say(line)
    else:
        print(escaped_line(line))


def say_next(written: Iterable[Path | str], *command: Path | str) -> None:
    """Name on standard error the written file, and a command that uses it, quoted for a shell; in the first process."""
    if rank_of_environment():
        return
    files = ", ".join(shlex.quote(_as_typed(path)) for path in written)
    following = shlex.join(map(_as_typed, command))
    parts = ([f"wrote {files}"] if files else []) + ([f"next: {following}"] if following else [])
    if parts:
        say("; ".join(parts))


def _as_typed(word: Path | str) -> str:
    """Return a word of a command line; a path that begins with a hyphen would be taken for an option."""
    return f"./{word}" if isinstance(word, Path) and str(word).startswith("-") else str(word)


SHOWN = 10
"""How many lines of a long list are shown; the rest is in the JSON."""


def table_with(title: str | None, *, left: Sequence[str], right: Sequence[str]) -> Table:
    """Return an empty table; columns on the right hold numbers."""
    table = Table(title=title and Text(title), title_justify="left", title_style="bold", box=box.SIMPLE_HEAD)
    for column in left:
        table.add_column(column, overflow="fold")
    for column in right:
        table.add_column(column, justify="right", overflow="fold")
    return table


_SECONDS_BETWEEN_LINES = 30.0
"""Time between two lines of progress in a file; the end of an epoch always has a line."""

_WIDTH_WITH_BAR = 100
"""Width in characters; on a narrower terminal the figures replace the bar itself."""


class _Bars(Progress):
    """A line of figures for each task; below it, for work in epochs, a bar for this epoch and one for all of them."""

    def get_renderables(self) -> Iterator[RenderableType]:
        """Yield the line of figures, and the bars of work in epochs."""
        yield self.make_tasks_table(self.tasks)
        for task in self.tasks:
            if task.fields["epoch"]:
                yield _epoch_bars(task.fields["before"] + task.completed, task.fields["whole"], task.fields["epoch"])


def _epoch_bars(done: float, whole: int, epoch: int) -> Table:
    """Return the bar of an epoch of so many steps, which stays full until the next begins, and that of all steps."""
    here = done % epoch or (epoch if done else 0)
    line = Table.grid(padding=(0, 1), expand=True)
    for _ in range(2):
        line.add_column(no_wrap=True)
        line.add_column(ratio=1)
    line.add_row("epoch", ProgressBar(total=epoch, completed=here), "all", ProgressBar(total=whole, completed=done))
    return line


class Reporter:
    """Reporter of how far one piece of work has come."""

    def __init__(self, console: Console, bar: Progress, task: TaskID, what: str, done: int) -> None:
        self._console, self._bar, self._task, self._what, self._done = console, bar, task, what, done
        self._started = self._last_line = time.monotonic()

    def advance(self, amount: int = 1, *, tell: bool = False, figures: Mapping[str, str] | None = None) -> None:
        """Add `amount` to the work done, and show those of `figures` ({'epoch': '3/14'}) that fit beside the bar.

        `tell` asks for a line of text too, at the end of an epoch, say. In a file the line has all figures.
        """
        self._bar.update(self._task, advance=amount)
        parts = [f"{name} {value}" for name, value in (figures or {}).items()]
        whole = self._line(parts)
        while len(parts) > 1 and len(self._what) + 2 + len(self._line(parts)) > self._console.width:
            parts.pop()
        fitting = self._line(parts)
        self._bar.update(self._task, figures=fitting)
        due = not self._console.is_terminal and time.monotonic() - self._last_line > _SECONDS_BETWEEN_LINES
        if tell or due:
            self._last_line = time.monotonic()
            self.say(f"{self._what}  {fitting if self._console.is_terminal else whole}")

    def say(self, text: str) -> None:
        """Print a line of text above the bar."""
        self._console.print(escaped_line(text), highlight=False, markup=False, emoji=False, soft_wrap=True)

    def say_all(self, lines: Iterable[str]) -> None:
        """Print several lines of text above the bar."""
        for line in lines:
            self.say(line)

    def _line(self, parts: Sequence[str]) -> str:
        """Put figures between the share that is done, rounded down, and the time left, known from the first step on."""
        task = self._bar.tasks[self._task]
        ahead, total = (task.total or 0) - task.completed, self._done + (task.total or 0)
        percentage = f"{math.floor(100 * (total - ahead) / total) if total else 100}%"
        if not task.completed or ahead <= 0:
            return "  ".join([percentage, *parts])
        seconds = (time.monotonic() - self._started) * ahead / task.completed
        return "  ".join([percentage, *parts, f"{duration(seconds)} left"])


@contextmanager
def reporting(
    what: str, total: int, *, done: int = 0, epoch: int = 0, console: Console | None = None, quiet: bool = False
) -> Iterator[Reporter]:
    """Yield a reporter for `total` units of work, `done` of them done already; it writes to standard error.

    On a terminal, work in epochs of `epoch` units has a bar for the epoch and one for all. If `quiet`, nothing is
    printed, because another process does it or the output itself goes to the terminal.
    """
    console = console or _Console(stderr=True, quiet=quiet)
    bar_column = [BarColumn(bar_width=None)] if console.width >= _WIDTH_WITH_BAR and not epoch else []
    columns = (
        TextColumn("{task.description}", markup=False),
        *bar_column,
        TextColumn("{task.fields[figures]}", markup=False),
    )
    shown = console.is_terminal and not console.quiet
    with _Bars(
        *columns, console=console, transient=True, disable=not shown, redirect_stdout=False, expand=not epoch
    ) as bar:
        task = bar.add_task(what, total=total - done, figures="", epoch=epoch, before=done, whole=total)
        yield Reporter(console, bar, task, what, done)
