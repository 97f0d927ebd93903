"""The verb `predict`."""

import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from verydeep.evaluation.protocols import Method
from verydeep.exit_status import refuse_unusable
from verydeep.images.tolerance import MAX_PIXELS
from verydeep.options import JsonFile, LinesFile, OutputFolder, RuntimeOptions, named_scales
from verydeep.processes import rank_of_environment, under_torchrun
from verydeep.runtime import Runtime
from verydeep.tables import prediction_table, show

if TYPE_CHECKING:
    from verydeep.deployment.predict import Prediction


def predict(
    run: Path,
    *images: Annotated[Path, Parameter(json_list=False, allow_leading_hyphen=True)],
    top: int = 5,
    protocol: Method = "dense",
    scales: str = "single",
    out: LinesFile = None,
    map: OutputFolder = None,
    json_file: JsonFile = None,
    max_pixels: int = MAX_PIXELS,
    runtime: RuntimeOptions = Runtime(),
) -> None:
    """Tell what images show: the most probable classes and their probabilities.

    Args:
        run: A run folder, or a file that verydeep export wrote.
        images: Image files, folders of them, or patterns in quotes ('photos/**/*.jpg'). A hyphen is standard input: one
            image, if it begins as an image file or holds a zero byte; otherwise paths, one a line, which are all read
            before the first prediction.
        top: How many classes.
        protocol: dense: whole images; crops: 50 crops of each at each scale; both: the average of the two.
        scales: Test scales Q for a crop of 224, such as 256,384,512; single: the training scale; paper: the three that
            follow from it.
        out: Write a line for each image to this file instead of the table: .jsonl (JSON lines, as they are computed),
            .csv or .parquet; - for JSON lines on standard output.
        map: Write each image with the score map of its first class over it into this folder.
        json_file: Write all predictions to this file as well (- for standard output instead of the table).
        max_pixels: Larger images are refused.
    """
    from verydeep.deployment.predict import model_on
    from verydeep.deployment.predict import predict as predict_images
    from verydeep.deployment.prediction_files import check_kind
    from verydeep.images.given import STANDARD_INPUT, given_images
    from verydeep.runs import warnings_of

    if not images:
        raise ValueError("name one or more images, or folders of them")
    for image in images:
        if str(image).startswith("-") and str(image) != STANDARD_INPUT:
            raise ValueError(f"unknown option {image} (a file of that name is ./{image})")
    if out is not None:
        check_kind(out)
        if out == json_file:
            raise ValueError(f"{out} cannot hold the predictions twice: leave out --json")
    source = given_images(images, standard_input=_standard_input)
    model = model_on(runtime.device, run)
    for line in () if rank_of_environment() else warnings_of(str(run), model):
        print(line, file=sys.stderr)
    chosen = named_scales(scales)
    options: dict[str, Any] = {
        "top": top,
        "protocol": protocol,
        "scales": chosen,
        "maps": map,
        "max_pixels": max_pixels,
    }
    found = predict_images(model, source, runtime=runtime, **options)
    if rank_of_environment():
        for _ in found:  # the first process has them all
            pass
        return
    _tell(found, len(source), min(top, len(model.classes)), out, json_file)


def _tell(found: Iterator["Prediction"], total: int, places: int, out: Path | None, json_file: Path | None) -> None:
    """Writes and shows predictions as they come; only those that are shown all at once are kept until the end."""
    from verydeep.deployment.prediction_files import prediction_file
    from verydeep.progress import reporting

    kept, failed = [], 0
    with ExitStack() as open_now:
        write = open_now.enter_context(prediction_file(out, places=places)) if out is not None else None
        report = open_now.enter_context(reporting("predict", total, quiet=str(out) == "-" and sys.stdout.isatty()))
        for prediction in found:
            failed += prediction.error is not None
            if write is not None:
                write(prediction)
                if prediction.error:
                    report.say(f"{prediction.image}: {prediction.error}")
            if write is None or json_file is not None:
                kept.append(prediction.to_dict())
            report.advance()
    if out is None:
        show({"predictions": kept}, json_file, prediction_table(kept))
    elif json_file is not None:
        show({"predictions": kept}, json_file)
    refuse_unusable(failed, total)


def _standard_input() -> bytes:
    if under_torchrun():
        raise ValueError("several processes cannot share standard input: name files")
    return sys.stdin.buffer.read()
