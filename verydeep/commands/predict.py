"""The verb `predict`."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

from verydeep.commands import options
from verydeep.commands.predictions import PredictionStream, images_asked_for, present, print_notes
from verydeep.evaluation.protocols import Method, Scales
from verydeep.images.tolerance import MAX_PIXELS
from verydeep.machine.processes import under_torchrun
from verydeep.machine.runtime import Runtime
from verydeep.networks.grids import PoolingGrid
from verydeep.prediction.tables import prediction_table
from verydeep.transfer_learning.tables import classification_table


def predict(
    run: Path,
    *images: options.ImageArgument,
    top: int = 5,
    protocol: Annotated[Method | None, options.TESTING] = None,
    scales: Annotated[Sequence[int] | Scales | None, options.TESTING] = None,
    grid: Annotated[PoolingGrid | None, options.TESTING] = None,
    maps: options.MapOptions = options.MapPictures(),
    max_pixels: Annotated[int, options.TESTING] = MAX_PIXELS,
    outputs: options.PredictionOutputOptions = options.PredictionOutputs(),
    runtime: options.RuntimeOptions = Runtime(),
) -> None:
    """Tell what images show: the most probable classes and their probabilities.

    Args:
        run: A run folder, a file that verydeep export wrote, or a classifier of features (verydeep transfer --out),
            which gives scores in place of probabilities.
        images: Image files, folders of them, or patterns in quotes ('photos/**/*.jpg'). A hyphen is standard input: one
            image, if it begins as an image file or holds a zero byte; otherwise paths, one per line, which are all read
            before the first prediction.
        top: Number of classes. A classifier whose images may show several also gives all others with a score above 0.
        protocol: dense (the default): whole images; crops: 50 crops of each at each scale; both: the average of the
            two; centre: the crop in the middle without its mirror image, as libraries report errors.
        scales: Test scales Q for a crop of 224, such as 256,384,512; single (the default): the training scale; paper:
            the three that follow from it. For centre the default is 256.
        grid: Where the positions of dense evaluation lie if an image's sides are no multiples of 32: centred (the
            default); floor, as PyTorch pools; ceil, as Caffe does, which the paper used.
        max_pixels: Larger images are refused.
    """
    from verydeep.transfer_learning.classifier_folder import is_classifier

    source = images_asked_for(images, outputs)
    common = {"images": source, "top": top, "runtime": runtime, "max_pixels": max_pixels}
    views = {"protocol": protocol, "scales": scales, "grid": grid, "maps": maps.map, "method": maps.method}
    if maps.method is not None and maps.map is None:
        raise ValueError("--method is of the pictures of --map, which names their folder")
    given = {name: value for name, value in views.items() if value is not None}
    stream = (_by_classifier if is_classifier(run) else _by_network)(run, common, given)
    present(stream, outputs, source)


def _by_network(run: Path, common: dict[str, Any], views: dict[str, Any]) -> PredictionStream:
    from verydeep.exported_networks.run_or_file import model_on
    from verydeep.prediction.predict import Prediction
    from verydeep.prediction.predict import predict as predict_images
    from verydeep.runs.model import warnings_of

    model = model_on(common["runtime"].device, run)
    print_notes(warnings_of(str(run), model))
    return PredictionStream(
        predictions=predict_images(model, **common, **views),
        kind=Prediction,
        most_classes=min(common["top"], len(model.classes)),
        table=prediction_table,
    )


def _by_classifier(folder: Path, common: dict[str, Any], views: dict[str, Any]) -> PredictionStream:
    from verydeep.transfer_learning.classifier_folder import load_classifier
    from verydeep.transfer_learning.classify import Classification, classify

    if views:
        raise ValueError(
            f"{folder} is a classifier of features, which sees images as when it was made: leave out --protocol, "
            "--scales, --grid, --map and --method"
        )
    if under_torchrun():
        raise ValueError(f"{folder} is a classifier of features, used by one process: start this without torchrun")
    classifier = load_classifier(folder)
    classes = len(classifier.classes)
    return PredictionStream(
        predictions=classify(classifier, **common),
        kind=Classification,
        most_classes=classes if classifier.several_labels else min(common["top"], classes),
        table=classification_table,
    )
