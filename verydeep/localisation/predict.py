"""Images to classes and where they are: the full procedure of appendix A.2."""

import io
from collections.abc import Iterable, Iterator
from contextlib import closing
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from verydeep.evaluation.metrics import TOP
from verydeep.exported_networks.run_or_file import model_on_device, name_of
from verydeep.images.decode import Pixels, UnusableImageError, decode
from verydeep.images.quarantine import Quarantine
from verydeep.images.sources.given import GivenImage, given_images
from verydeep.images.sources.source import Source
from verydeep.images.tolerance import MAX_PIXELS, Tolerance
from verydeep.localisation.box_pictures import with_boxes_drawn
from verydeep.localisation.evaluate import full_test_of
from verydeep.localisation.full_test import ClassBoxes, FullTest, full_test
from verydeep.localisation.options import FullProcedure
from verydeep.machine.runtime import Runtime
from verydeep.machine.threads import use_threads
from verydeep.numbers import number, share
from verydeep.prediction.files import check_folder, write_picture
from verydeep.prediction.map_pictures import LONGEST_SIDE
from verydeep.runs.model import Model, load_box_model

_QUALITY = 92
"""JPEG quality of the pictures, 0..100."""


@dataclass(frozen=True, kw_only=True)
class BoxPrediction:
    """The classes of one image, and where they are."""

    image: str
    """Its path; `image 3` for the fourth of those given as pixels or bytes."""
    classes: tuple[str, ...]
    """The most probable ones, the first first; empty when the image cannot be used."""
    probabilities: tuple[float, ...]
    """Posterior of each, 0..1."""
    boxes: tuple[tuple[float, float, float, float], ...]
    """Where each is: (x0, y0, x1, y1), edges in pixels from the upper left corner."""
    error: str | None = None
    """Reason why the image cannot be used, or no longer could when its boxes were to be drawn."""
    drawn: str | None = None
    """File of the image with the boxes, if that was wanted."""

    def to_dict(self) -> dict[str, Any]:
        """Return a plain dictionary, ready for JSON."""
        return asdict(self)


def predict_boxes(
    run: str | Path | Model,
    images: Source | GivenImage | Iterable[GivenImage],
    *,
    full: FullProcedure,
    top: int = 1,
    draw: str | Path | None = None,
    runtime: Runtime | None = None,
    max_pixels: int = MAX_PIXELS,
) -> Iterator[BoxPrediction]:
    """Return the most probable classes of every image and where each is, in the order given, as they are computed.

    An image that cannot be used gives a prediction with `error` set, and the others go on.

    Args:
        run: a run of `verydeep localise train`, or its model (`load_box_model`); it goes to the device.
        images: as for `predict`.
        full: the classification runs, and how whole images are looked at.
        top: how many classes, up to 5.
        draw: folder for copies of the images with the boxes drawn in.
        runtime: device, how many processes decode, for each scale, and threads, which this process keeps.
        max_pixels: larger images cannot be used.

    Raises:
        ValueError: unusable runs, `top` not from 1 to 5, a path that does not exist, pixels of another kind, a folder
            for pictures that has one of the images, or a network whose boxes or scores are not finite.
        OSError: the pictures cannot be written.
    """
    if not 1 <= top <= TOP:
        raise ValueError(f"top is a number from 1 to {TOP}, not {top}")
    runtime, tolerance = runtime or Runtime(), Tolerance(max_bad=100, max_pixels=max_pixels)
    source = given_images(images)
    if draw is not None:
        check_folder(Path(draw), source.ids)
    use_threads(runtime.threads)
    model = model_on_device(runtime.device, run if isinstance(run, Model) else load_box_model(run))
    if model.net.architecture.boxes is None:
        raise ValueError("the model predicts classes, not boxes")
    test = full_test_of(full, [name_of(run)], [model], runtime)
    quarantine = Quarantine(len(source), tolerance)
    predictions = _predictions(test, source, quarantine, runtime.workers, top)
    return predictions if draw is None else _drawn(predictions, source, Path(draw), max_pixels)


def _predictions(
    test: FullTest, source: Source, quarantine: Quarantine, workers: int, top: int
) -> Iterator[BoxPrediction]:
    with closing(full_test(test, source, quarantine=quarantine, workers=workers)) as results:
        for index, seen in results:
            name = source.ids[index]
            if seen is None:
                error = quarantine.reasons[name]
                yield BoxPrediction(image=name, classes=(), probabilities=(), boxes=(), error=error)
            else:
                yield _prediction(name, seen, test.classes, top)


def _prediction(name: str, seen: ClassBoxes, classes: tuple[str, ...], top: int) -> BoxPrediction:
    best = np.argsort(-seen.posterior, kind="stable")[:top].tolist()
    return BoxPrediction(
        image=name,
        classes=tuple(classes[label] for label in best),
        probabilities=tuple(float(seen.posterior[label]) for label in best),
        boxes=tuple(tuple(seen.boxes[0, label].tolist()) for label in best),
    )


def _drawn(
    predictions: Iterator[BoxPrediction], source: Source, folder: Path, max_pixels: int
) -> Iterator[BoxPrediction]:
    """Write a picture of each image with its boxes into a folder; the image is read again for it."""
    for index, prediction in enumerate(predictions):
        if prediction.error is not None:
            yield prediction
            continue
        try:
            sample = source[index]
            image = decode(sample.data, sample.id, max_pixels=max_pixels)
            if max(image.shape) > LONGEST_SIDE:
                raise UnusableImageError(
                    sample.id, "too large", f"JPEG files have {number(LONGEST_SIDE)} pixels a side at most"
                )
        except UnusableImageError as refusal:
            yield replace(prediction, error=refusal.reason)
            continue
        picture = _picture(image, prediction)
        yield replace(prediction, drawn=write_picture(folder, source.ids, index, picture, suffix=".jpg"))


def _picture(image: Pixels, prediction: BoxPrediction) -> bytes:
    buffer = io.BytesIO()
    answers = zip(prediction.classes, prediction.probabilities, strict=True)
    labels = [f"{name} {share(probability, 0)}" for name, probability in answers]
    picture = with_boxes_drawn(image, predicted=[np.array(box) for box in prediction.boxes], labels=labels)
    Image.fromarray(picture).save(buffer, "JPEG", quality=_QUALITY)
    return buffer.getvalue()
