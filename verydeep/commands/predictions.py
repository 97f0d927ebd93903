"""Common parts of verbs that predict: images as arguments, predictions written and shown, notes beside them."""

import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.table import Table

from verydeep.commands.options import PredictionOutputs, TestOutputs
from verydeep.commands.outputs import say_replaced
from verydeep.machine.errors import say
from verydeep.machine.torchrun import rank_of_environment, under_torchrun
from verydeep.numbers import counted, number
from verydeep.presentation.terminal import say_next, show

if TYPE_CHECKING:
    from verydeep.images.sources.source import Source


@dataclass(frozen=True, kw_only=True)
class PredictionStream:
    """Predictions as they are computed, and how they are presented."""

    predictions: Iterator[Any]
    """`Prediction`s, `Classification`s or `BoxPrediction`s; none in processes other than the first."""
    kind: type
    """The dataclass that all of them are."""
    most_classes: int
    """Most classes of each."""
    table: Callable[[Sequence[Any]], Table]
    """Makes the table that shows them."""


def images_asked_for(images: Sequence[Path], outputs: PredictionOutputs) -> "Source":
    """Return the images that a command line names, after checking that their predictions can be written.

    Raises:
        ValueError: no images, or files that cannot be written.
    """
    from verydeep.images.sources.given import given_images
    from verydeep.prediction.files import check_kind

    if not images:
        raise ValueError("name one or more images, or folders of them")
    if outputs.out is not None:
        check_kind(outputs.out)
        if outputs.out == outputs.json_file:
            raise ValueError(f"{outputs.out} cannot hold the predictions twice: leave out --json")
        say_replaced(outputs.out)
    return given_images(images, standard_input=_standard_input)


def present(stream: PredictionStream, outputs: PredictionOutputs, source: "Source", pictures: Path | None) -> None:
    """Write and show predictions as they come; only those that are shown all at once are kept until the end.

    First it says which files were left out where the images of `source` were found; in the end what was written, with
    the folder of `pictures`.

    Raises:
        OSError: a file cannot be written; or, after all others are predicted, some images could not be used.
    """
    from verydeep.prediction.files import prediction_file
    from verydeep.presentation.terminal import reporting

    if rank_of_environment():
        for _ in stream.predictions:  # the first process has them all
            pass
        return
    print_notes(source.inventory.lines())
    out, json_file = outputs.out, outputs.json_file
    kept, failed = [], 0
    with ExitStack() as stack:
        report = stack.enter_context(reporting("predict", len(source), quiet=str(out) == "-" and sys.stdout.isatty()))
        write: Callable[[Any], None] | None = None
        if out is not None:
            write = stack.enter_context(prediction_file(out, stream.kind, most_classes=stream.most_classes))
        for prediction in stream.predictions:
            failed += prediction.error is not None
            if write is not None:
                write(prediction)
                if prediction.error:
                    report.say(f"{prediction.image}: {prediction.error}")
            if write is None or json_file is not None:
                kept.append(prediction)
            report.advance()
    if write is None or json_file is not None:
        figures = {"predictions": [prediction.to_dict() for prediction in kept]}
        show(figures, json_file, *([stream.table(kept)] if write is None else []))
    say_next([place for place in (out, pictures) if place is not None and str(place) != "-"])
    if failed:
        raise OSError(f"{number(failed)} of {counted(len(source), 'image')} could not be used")


def check_test(runs: Sequence[Path], outputs: TestOutputs) -> None:
    """Refuse, before any work, a test without runs, or with a file of predictions that cannot be written.

    Raises:
        ValueError: there are no runs, or the file is not of a kind that is written.
    """
    from verydeep.evaluation.predictions import check_kind

    if not runs:
        raise ValueError("name one or more run folders to evaluate")
    if outputs.predictions is not None:
        check_kind(outputs.predictions)
        say_replaced(outputs.predictions)


def print_notes(lines: Iterable[str]) -> None:
    """Print lines for people to standard error, where the figures do not go; in the first process only."""
    if not rank_of_environment():
        for line in lines:
            say(line)


def _standard_input() -> bytes:
    if under_torchrun():
        raise ValueError("several processes cannot share standard input: name files")
    return sys.stdin.buffer.read()
