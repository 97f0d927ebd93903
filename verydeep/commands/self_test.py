"""A self-test of at most a minute: does a small network learn, and is it the same in every format of export?"""

import io
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import redirect_stderr
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

from verydeep.machine.errors import one_line
from verydeep.machine.private_names import text_without_names
from verydeep.machine.runtime import Stopped
from verydeep.machine.signal_watch import signals_seen_by

if TYPE_CHECKING:
    from verydeep.exported_networks.formats import Format

_MOST_ERROR = 50.0
"""Percent of the validation digits that may be wrong after the training: chance is 90, and 11 were wrong."""

_SECONDS = 40.0
"""After so many, no other format is begun: the longest takes twenty."""

_PREDICTED = 4
"""Digits that every exported file predicts."""


@dataclass(frozen=True, kw_only=True)
class Check:
    """One part of the self-test."""

    name: str
    ok: bool | None
    """None if it was left out."""
    detail: str
    """The result, the error, or why it was left out."""
    seconds: float


def self_test() -> list[Check]:
    """Train a small network on digits, and write and read it in each format whose libraries are installed.

    Files go into a folder that is removed; nothing is printed but an answer to Ctrl-C.

    Raises:
        Stopped: SIGINT, SIGTERM, SIGHUP or SIGQUIT.
    """
    started = time.perf_counter()
    try:
        files = tempfile.TemporaryDirectory()
    except OSError as error:
        return [Check(name="make a temporary folder", ok=False, detail=_detail(error), seconds=0.0)]
    with files as folder, signals_seen_by(partial(_answer, sys.stderr)):
        run = Path(folder) / "run"
        checks = [_checked("train on digits", lambda: _learns(run))]
        for to in _formats() if checks[0].ok else ():
            name = f"export to {to}"
            if time.perf_counter() - started < _SECONDS:
                checks.append(_checked(name, partial(_agrees, run, to)))
            else:
                checks.append(Check(name=name, ok=None, detail="the others took too long", seconds=0.0))
    return checks


def _answer(terminal: TextIO, number: int) -> None:
    """Answer Ctrl-C at once, even while standard error is silenced."""
    if number == signal.SIGINT:
        print("stopping the self-test", file=terminal, flush=True)


def _checked(name: str, act: Callable[[], str]) -> Check:
    """Do something in silence; return what it says, or the error that it ends with.

    Raises:
        Stopped: a signal came; nothing is kept, so the message promises nothing.
    """
    started = time.perf_counter()
    try:
        with redirect_stderr(io.StringIO()):
            detail, ok = act(), True
    except Stopped as stopped:
        raise Stopped(stopped.signal, "stopped") from None
    except Exception as error:  # the test is there to find what is broken, whatever it is
        detail, ok = _detail(error), False
    return Check(name=name, ok=ok, detail=detail, seconds=time.perf_counter() - started)


def _detail(error: Exception) -> str:
    return f"{type(error).__name__}: {text_without_names(one_line(error))}"


def _learns(run: Path) -> str:
    from verydeep.numbers import percent
    from verydeep.runs.record import read_metrics
    from verydeep.training.loop import train
    from verydeep.training.recipe import Recipe

    recipe = Recipe(crop=32, width=0.1, batch=64, learning_rate=0.05, epochs=3, batch_norm=True, flip=False)
    train("digits", network="A", out=run, recipe=recipe)
    error = read_metrics(run)[-1].validation_error
    if error > _MOST_ERROR:
        raise RuntimeError(f"the network did not learn: {percent(error)}% of the digits are wrong, chance is 90%")
    return f"{percent(error)}% of the validation digits are wrong"


def _formats() -> list["Format"]:
    from verydeep.exported_networks.formats import FORMATS

    return [name for name, known in FORMATS.items() if all(find_spec(library) for library in known.libraries)]


def _agrees(run: Path, to: "Format") -> str:
    """Export a run, which compares its scores, and predict with the file; say how far scores differ."""
    from verydeep.conversion.export import export
    from verydeep.exported_networks.formats import FORMATS, ExportOptions
    from verydeep.images.open import open_for_testing
    from verydeep.numbers import significant
    from verydeep.prediction.predict import predict

    file = run.parent / f"network{FORMATS[to].suffix}"
    found = export(run, file, to=to, options=ExportOptions(data="digits", check_images=_PREDICTED))
    source = open_for_testing("digits", tuple("0123456789")).source("val")
    images = [source[index].data for index in range(_PREDICTED)]
    if [one.classes[0] for one in predict(file, images)] != [one.classes[0] for one in predict(run, images)]:
        raise RuntimeError("the file predicts other classes than the run")
    return f"scores differ by {significant(found.agreement.greatest_difference, 1)}"
