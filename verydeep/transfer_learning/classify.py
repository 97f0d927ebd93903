"""Images to the classes that a classifier of features gives them, a few at a time."""

import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from verydeep.descriptors.descriptor import PENULTIMATE
from verydeep.descriptors.extraction import Extraction, checked_extraction
from verydeep.descriptors.features import extract
from verydeep.images.sources.given import GivenImage, given_images
from verydeep.images.sources.source import Source
from verydeep.images.tolerance import MAX_PIXELS, Tolerance
from verydeep.machine.runtime import Runtime
from verydeep.prediction import pieces
from verydeep.prediction.options import NAMED_CLASSES
from verydeep.transfer_learning.classifier_folder import FeatureClassifier, load_classifier
from verydeep.transfer_learning.linear_svm import stacked


@dataclass(frozen=True, kw_only=True)
class Classification:
    """Classes that a classifier gives one image."""

    image: str
    """Its path; `image 3` for the fourth of those given as pixels or bytes."""
    classes: tuple[str, ...]
    """Classes with the highest scores, in falling order; empty when the image cannot be used."""
    scores: tuple[float, ...]
    """Score of each, in units of the margin: above 0 on the class's side of its plane. They are not probabilities."""
    error: str | None = None
    """Why the image cannot be used."""

    def to_dict(self) -> dict[str, Any]:
        """Return a plain dictionary, ready for JSON."""
        return asdict(self)


def classify(
    classifier: str | Path | FeatureClassifier,
    images: Source | GivenImage | Iterable[GivenImage],
    *,
    top: int = NAMED_CLASSES,
    runtime: Runtime | None = None,
    max_pixels: int = MAX_PIXELS,
) -> Iterator[Classification]:
    """Yield the classes with the highest scores for every image, in the order given, as they are computed.

    If images may show several classes, all with a score above 0 are among them. An image that cannot be used gives a
    classification with `error` set, and the others are computed.

    Args:
        classifier: a folder, or a classifier that is loaded already (`load_classifier`).
        images: as for `predict`.
        top: number of classes.
        runtime: device, and how many processes decode for each network and scale.
        max_pixels: larger images cannot be used.

    Raises:
        ValueError: unusable classifier, `top` below 1, or a path that does not exist.
    """
    if top < 1:
        raise ValueError(f"top must be 1 or more, not {top}")
    loaded = classifier if isinstance(classifier, FeatureClassifier) else load_classifier(classifier)
    source = given_images(images)
    tolerance = Tolerance(max_bad=100, max_pixels=max_pixels)
    extractions = [
        checked_extraction(model, source, descriptor=descriptor, runtime=runtime, tolerance=tolerance)
        for model, descriptor in zip(loaded.models, loaded.descriptors, strict=True)
    ]
    return _classifications(loaded, extractions, source, top)


def _classifications(
    classifier: FeatureClassifier, extractions: Sequence[Extraction], source: Source, top: int
) -> Iterator[Classification]:
    """Yield classifications of pieces of the source, each of as many images as take a few seconds."""
    most = min(one.images_at_once for one in extractions)
    with ExitStack() as stack:
        decoders = [stack.enter_context(_decoding(one, source)) for one in extractions]
        start, at_once = 0, min(pieces.FIRST_IMAGES, most)
        while start < len(source):
            began, indices = time.monotonic(), range(start, min(start + at_once, len(source)))
            found = classified(classifier, extractions, decoders, indices, top)
            seconds = time.monotonic() - began
            yield from found
            start, at_once = indices.stop, min(pieces.next_piece(at_once, seconds), most)


def classified(
    classifier: FeatureClassifier,
    extractions: Sequence[Extraction],
    decoders: Sequence[pieces.Decoder],
    indices: range,
    top: int,
) -> list[Classification]:
    """Return the classifications of some images of the extractions' source, one decoder for each extraction.

    Raises:
        WorkerDiedError: a worker was killed, for example.
        ValueError: a network's activations are not finite.
    """
    source = extractions[0].source
    chunks = [extract(one, indices, images) for one, images in zip(extractions, decoders, strict=True)]
    errors = {refusal.name: refusal.reason for chunk in chunks for refusal in chunk.refusals}
    vectors = [dict(zip(chunk.indices, chunk.values[PENULTIMATE], strict=True)) for chunk in chunks]
    found = []
    for index in indices:
        name = source.ids[index]
        if name in errors:
            found.append(Classification(image=name, classes=(), scores=(), error=errors[name]))
        else:
            found.append(_classification(classifier, name, [of_network[index] for of_network in vectors], top))
    return found


def _decoding(one: Extraction, source: Source) -> AbstractContextManager[pieces.Decoder]:
    return pieces.decoding(
        source, share=range(len(source)), workers=one.runtime.workers, max_pixels=one.tolerance.max_pixels
    )


def _classification(
    classifier: FeatureClassifier, name: str, vectors: Sequence[Float[np.ndarray, " D"]], top: int
) -> Classification:
    """Return the classification of one image, from its vector by each network."""
    scores = classifier.svm.scores(stacked([vector[None] for vector in vectors]))[0]
    positive = int((scores > 0).sum()) if classifier.several_labels else 0
    best = np.argsort(-scores, kind="stable")[: max(top, positive)]
    return Classification(
        image=name,
        classes=tuple(classifier.classes[label] for label in best),
        scores=tuple(scores[best].tolist()),
    )
