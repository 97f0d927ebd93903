"""The verb `predict`."""

from pathlib import Path
from typing import Any

from verydeep.commands.options import ImageArgument, JsonFile, LinesFile, OutputFolder, RuntimeOptions, named_scales
from verydeep.commands.predictions import Told, images_asked_for, say, tell
from verydeep.evaluation.protocols import Method
from verydeep.images.tolerance import MAX_PIXELS
from verydeep.machine.processes import under_torchrun
from verydeep.machine.runtime import Runtime
from verydeep.prediction.tables import prediction_table
from verydeep.transfer_learning.tables import classification_table


def predict(
    run: Path,
    *images: ImageArgument,
    top: int = 5,
    protocol: Method | None = None,
    scales: str | None = None,
    out: LinesFile = None,
    map: OutputFolder = None,
    json_file: JsonFile = None,
    max_pixels: int = MAX_PIXELS,
    runtime: RuntimeOptions = Runtime(),
) -> None:
    """Tell what images show: the most probable classes and their probabilities.

    Args:
        run: A run folder, a file that verydeep export wrote, or a classifier of features (verydeep transfer --out),
            which gives scores in place of probabilities.
        images: Image files, folders of them, or patterns in quotes ('photos/**/*.jpg'). A hyphen is standard input: one
            image, if it begins as an image file or holds a zero byte; otherwise paths, one a line, which are all read
            before the first prediction.
        top: How many classes. Of a classifier whose images may show several, also all others whose score is above 0.
        protocol: dense: whole images; crops: 50 crops of each at each scale; both: the average of the two. If not said,
            dense.
        scales: Test scales Q for a crop of 224, such as 256,384,512; single: the training scale; paper: the three that
            follow from it. If not said, single.
        out: Write a line for each image to this file instead of the table: .jsonl (JSON lines, as they are computed),
            .csv or .parquet; - for JSON lines on standard output.
        map: Write each image with the score map of its first class over it into this folder.
        json_file: Write all predictions to this file as well (- for standard output instead of the table).
        max_pixels: Larger images are refused.
    """
    from verydeep.transfer_learning.classifier import is_classifier

    source = images_asked_for(images, out=out, json_file=json_file)
    asked = {"images": source, "top": top, "runtime": runtime, "max_pixels": max_pixels}
    views = {"protocol": protocol, "scales": None if scales is None else named_scales(scales), "maps": map}
    given = {name: value for name, value in views.items() if value is not None}
    told = (_by_classifier if is_classifier(run) else _by_network)(run, asked, given)
    tell(told, images=len(source), out=out, json_file=json_file)


def _by_network(run: Path, asked: dict[str, Any], views: dict[str, Any]) -> Told:
    from verydeep.prediction.predict import Prediction, model_on
    from verydeep.prediction.predict import predict as predict_images
    from verydeep.runs.model import warnings_of

    model = model_on(asked["runtime"].device, run)
    say(warnings_of(str(run), model))
    found, places = predict_images(model, **asked, **views), min(asked["top"], len(model.classes))
    return Told(predictions=found, kind=Prediction, places=places, table=prediction_table)


def _by_classifier(folder: Path, asked: dict[str, Any], views: dict[str, Any]) -> Told:
    from verydeep.transfer_learning.classifier import Classification, classify, load_classifier

    if views:
        raise ValueError(
            f"{folder} is a classifier of features, which sees images as when it was made: leave out --protocol, "
            "--scales and --map"
        )
    if under_torchrun():
        raise ValueError(f"{folder} is a classifier of features, used by one process: start this without torchrun")
    classifier = load_classifier(folder)
    places = len(classifier.classes) if classifier.several_labels else min(asked["top"], len(classifier.classes))
    found = classify(classifier, **asked)
    return Told(predictions=found, kind=Classification, places=places, table=classification_table)
