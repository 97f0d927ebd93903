"""What verbs share that predict: images as arguments, predictions told as they come, and what is said beside them."""

import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.table import Table

from verydeep.commands.exit_status import refuse_unusable
from verydeep.machine.processes import rank_of_environment, under_torchrun
from verydeep.presentation.terminal import show

if TYPE_CHECKING:
    from verydeep.images.sources.given import GivenImages
    from verydeep.localisation.predict import BoxPrediction
    from verydeep.prediction.predict import Prediction
    from verydeep.transfer_learning.classifier import Classification

    AnyPrediction = Prediction | Classification | BoxPrediction


@dataclass(frozen=True, kw_only=True)
class Told:
    """What there is to tell, and how."""

    predictions: "Iterator[AnyPrediction]"
    """None in other processes than the first."""
    kind: "type[AnyPrediction]"
    places: int
    """Classes of each, at most."""
    table: Callable[[Sequence[Mapping[str, Any]]], Table]


def images_asked_for(images: Sequence[Path], *, out: Path | None, json_file: Path | None) -> "GivenImages":
    """The images that a command line names, once it is known that predictions can be written where they are to be.

    Raises:
        ValueError: there are none, an unknown option stands among them, or the files cannot be.
    """
    from verydeep.images.sources.given import STANDARD_INPUT, given_images
    from verydeep.prediction.files import check_kind

    if not images:
        raise ValueError("name one or more images, or folders of them")
    for image in images:
        if str(image).startswith("-") and str(image) != STANDARD_INPUT:
            raise ValueError(f"unknown option {image} (a file of that name is ./{image})")
    if out is not None:
        check_kind(out)
        if out == json_file:
            raise ValueError(f"{out} cannot hold the predictions twice: leave out --json")
    return given_images(images, standard_input=_standard_input)


def tell(told: Told, *, images: int, out: Path | None, json_file: Path | None) -> None:
    """Writes and shows predictions as they come; only those that are shown all at once are kept until the end.

    Raises:
        OSError: a file cannot be written, or in the end: some images could not be used.
    """
    from verydeep.prediction.files import prediction_file
    from verydeep.presentation.progress import reporting

    if rank_of_environment():
        for _ in told.predictions:  # the first process has them all
            pass
        return
    kept, failed = [], 0
    with ExitStack() as open_now:
        write = open_now.enter_context(prediction_file(out, told.kind, places=told.places)) if out is not None else None
        report = open_now.enter_context(reporting("predict", images, quiet=str(out) == "-" and sys.stdout.isatty()))
        for prediction in (one.to_dict() for one in told.predictions):
            failed += prediction["error"] is not None
            if write is not None:
                write(prediction)
                if prediction["error"]:
                    report.say(f"{prediction['image']}: {prediction['error']}")
            if write is None or json_file is not None:
                kept.append(prediction)
            report.advance()
    if out is None or json_file is not None:
        show({"predictions": kept}, json_file, *([told.table(kept)] if out is None else []))
    refuse_unusable(failed, images)


def check_predictions_file(file: Path | None, json_file: Path | None) -> None:
    """Refuses, before any work, a file of an evaluation's predictions that cannot be written.

    Raises:
        ValueError: it is of another kind, or is to hold the figures too.
    """
    from verydeep.evaluation.predictions import check_kind

    if file is not None:
        check_kind(file)
        if file == json_file:
            raise ValueError(f"{file} cannot hold both the predictions and the figures")


def say(lines: Iterable[str]) -> None:
    """Tells people something where the figures do not go; by the first process."""
    if not rank_of_environment():
        for line in lines:
            print(line, file=sys.stderr)


def _standard_input() -> bytes:
    if under_torchrun():
        raise ValueError("several processes cannot share standard input: name files")
    return sys.stdin.buffer.read()
