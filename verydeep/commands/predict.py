"""The verb `predict`."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from verydeep.commands import options
from verydeep.commands.predictions import PredictionStream, images_asked_for, present, print_notes
from verydeep.evaluation.protocols import Method, Scales
from verydeep.images.tolerance import MAX_PIXELS
from verydeep.machine.runtime import Runtime
from verydeep.machine.torchrun import under_torchrun
from verydeep.networks.grids import PoolingGrid
from verydeep.prediction.options import NAMED_CLASSES
from verydeep.prediction.tables import prediction_table
from verydeep.transfer_learning.tables import classification_table

if TYPE_CHECKING:
    from verydeep.images.sources.source import Source


@dataclass(frozen=True, kw_only=True)
class NetworkViews:
    """How a network looks at images; None leaves it at the default."""

    protocol: Method | None = None
    """dense (the default): whole images; crops: 50 crops of each at each scale; both: the average of the two; centre:
    the crop in the middle without its mirror image, as libraries report errors."""

    scales: Sequence[int] | Scales | None = None
    """Test scales Q for a crop of 224, such as 256,384,512; single (the default): the training scale; paper: the three
    that follow from it. For centre the default is 256."""

    grid: PoolingGrid | None = None
    """Where the positions of dense evaluation lie if an image's sides are not multiples of 32: centred (the
    default); floor, as PyTorch pools; ceil, as Caffe does, which the paper used."""


def predict(
    run: Path,
    *images: options.ImageArgument,
    top: int = NAMED_CLASSES,
    views: Annotated[NetworkViews, Parameter(name="*", group=options.TESTING.group)] = NetworkViews(),
    maps: options.MapOptions = options.MapPictures(),
    max_pixels: Annotated[int, options.TESTING] = MAX_PIXELS,
    outputs: options.PredictionOutputOptions = options.PredictionOutputs(),
    runtime: options.RuntimeOptions = Runtime(),
) -> None:
    """Classify images: tell the most probable classes and their probabilities.

    Args:
        run: A run folder, a file that verydeep export wrote, or a classifier of features (verydeep transfer --out),
            which gives scores in place of probabilities.
        images: Image files, folders of them, or patterns in quotes ('photos/**/*.jpg'). A hyphen is standard input: one
            image, if it begins as an image file or holds a zero byte; otherwise paths, one per line, which are all read
            before the first prediction.
        top: Number of classes. A classifier whose images may show several also gives all others with a score above 0.
        max_pixels: Larger images are refused.
    """
    from verydeep.transfer_learning.classifier_folder import is_classifier

    source = images_asked_for(images, outputs)
    if is_classifier(run):
        _check_classifier_alone(run, views, maps)
        stream = _by_classifier(run, source, top=top, max_pixels=max_pixels, runtime=runtime)
    else:
        stream = _by_network(run, source, top=top, max_pixels=max_pixels, runtime=runtime, views=views, maps=maps)
    present(stream, outputs, source, maps.map)


def _by_network(
    run: Path,
    source: "Source",
    *,
    top: int,
    max_pixels: int,
    runtime: Runtime,
    views: NetworkViews,
    maps: options.MapPictures,
) -> PredictionStream:
    from verydeep.exported_networks.run_or_file import model_on
    from verydeep.prediction.predict import Prediction
    from verydeep.prediction.predict import predict as predict_images
    from verydeep.runs.model import warnings_of

    model = model_on(runtime.device, run)
    print_notes(warnings_of(str(run), model))
    given = {name: value for name, value in {**vars(views), "method": maps.method}.items() if value is not None}
    return PredictionStream(
        predictions=predict_images(
            model, source, top=top, maps=maps.map, runtime=runtime, max_pixels=max_pixels, **given
        ),
        kind=Prediction,
        most_classes=min(top, len(model.classes)),
        table=prediction_table,
    )


def _by_classifier(folder: Path, source: "Source", *, top: int, max_pixels: int, runtime: Runtime) -> PredictionStream:
    from verydeep.transfer_learning.classifier_folder import load_classifier
    from verydeep.transfer_learning.classify import Classification, classify

    classifier = load_classifier(folder)
    classes = len(classifier.classes)
    return PredictionStream(
        predictions=classify(classifier, source, top=top, runtime=runtime, max_pixels=max_pixels),
        kind=Classification,
        most_classes=classes if classifier.several_labels else min(top, classes),
        table=classification_table,
    )


def _check_classifier_alone(folder: Path, views: NetworkViews, maps: options.MapPictures) -> None:
    """Refuse options that a classifier of features does not have.

    Raises:
        ValueError: a way to look at images, or several processes.
    """
    if views != NetworkViews() or maps != options.MapPictures():
        raise ValueError(
            f"{folder} is a classifier of features, which sees images as when it was made: leave out --protocol, "
            "--scales, --grid, --map and --method"
        )
    if under_torchrun():
        raise ValueError(f"{folder} is a classifier of features, used by one process: start this without torchrun")
