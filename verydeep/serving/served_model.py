"""A model of any kind as a service needs it: images prepared one by one, predicted a few at a time."""

import os
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from verydeep.descriptors.extraction import Extraction, checked_extraction
from verydeep.evaluation.passes import Pass
from verydeep.evaluation.pixel_limits import PixelLimits, pixel_limits, pixels_at_once
from verydeep.evaluation.posteriors import protocol_passes
from verydeep.evaluation.protocols import Method, Protocol, Scales, protocol_of
from verydeep.evaluation.score_maps import posterior_map
from verydeep.exported_networks.run_or_file import check_grid, model_on
from verydeep.images.decode import Size
from verydeep.images.rescaled import Rescaled
from verydeep.images.sources.given import given_images
from verydeep.machine.runtime import Runtime, in_float32
from verydeep.machine.threads import use_threads
from verydeep.networks.architecture import DOWNSAMPLING
from verydeep.networks.grids import PoolingGrid, first_pixel
from verydeep.networks.scales import scale_in_pixels
from verydeep.networks.vgg import ScoringNetwork
from verydeep.prediction.predict import Prediction, most_probable
from verydeep.runs.model import Model, warnings_of
from verydeep.serving.image_outcomes import ClassMap, ImageAnswer, Numbers
from verydeep.serving.options import Limits
from verydeep.serving.prepared_images import PreparedImage, prepared
from verydeep.transfer_learning.classifier_folder import FeatureClassifier, is_classifier, load_classifier
from verydeep.transfer_learning.classify import Classification, classified

MOST_MAPS = 16
"""Classes whose maps an answer may have."""

_KEPT_PRIMITIVES = "64"
"""Primitives that oneDNN keeps, one for each layer and size of image; its usual 1,024 grow to hundreds of megabytes."""

_BLACK = b"P6 1 1 255\n\0\0\0"
"""One black pixel as the contents of a file."""


class Wanted(NamedTuple):
    """The answer that is wanted for an image."""

    name: str
    top: int
    maps: bool = False


@dataclass(frozen=True, kw_only=True)
class ServedModel:
    """A model that is loaded, with all choices made."""

    about: Mapping[str, Any]
    """Classes, protocol, scales, SHA-256 of the weights, ready for JSON."""
    classes: tuple[str, ...]
    numbers: Numbers
    has_maps: bool
    sides: tuple[int, ...]
    """Shorter sides of its images, in pixels."""
    batch_pixels: int
    """Pixels that a batch may have: as many as there is memory for, and as are fastest where batches gain."""
    work: Callable[[PreparedImage], float]
    """Pixels that go through the first layer for an image."""
    batches: bool = True
    """Whether several images may be computed at once. Scores of a classifier are sums of thousands of products with
    weights that may be large: what a batch changes in the last bits of a layer shows in their sixth digit."""
    predict: Callable[[Sequence[PreparedImage], Sequence[Wanted]], list[ImageAnswer]]
    """Returns answers for images of the same sizes, with maps where wanted."""
    notes: tuple[str, ...] = ()
    """Notes for its user."""


def served_model(
    run: str | Path,
    *,
    protocol: Method | None = None,
    scales: Sequence[int] | Scales | None = None,
    grid: PoolingGrid | None = None,
    runtime: Runtime | None = None,
) -> ServedModel:
    """Load a run, a model of the hub, an exported file or a classifier of features for a service.

    It sets how much oneDNN keeps for each size of image, unless ONEDNN_PRIMITIVE_CACHE_CAPACITY is set already. That is
    read at the first convolution: a process that has computed before it loads a model keeps hundreds of megabytes.

    Args:
        run: as for `predict`, or a classifier's folder.
        protocol: as for `predict`; a classifier takes none of these three.
        scales: as for `predict`.
        grid: as for `predict`.
        runtime: device and threads.

    Raises:
        ValueError: it cannot be used, or not in this way.
    """
    os.environ.setdefault("ONEDNN_PRIMITIVE_CACHE_CAPACITY", _KEPT_PRIMITIVES)
    runtime = runtime or Runtime()
    use_threads(runtime.threads)
    if is_classifier(run):
        if any(choice is not None for choice in (protocol, scales, grid)):
            raise ValueError(
                f"{run} is a classifier of features, which sees images as when it was made: leave out --protocol, "
                "--scales and --grid"
            )
        return _served_classifier(load_classifier(run), runtime)
    model = model_on(runtime.device, run)
    grid = grid or "centred"
    check_grid(model, grid)
    chosen = protocol_of(protocol or "dense", scales, usual="single", trained=model.scale, mirror=model.flip, grid=grid)
    return _served_network(model, chosen, warnings_of(str(run), model))


def black_image(model: ServedModel, limits: Limits) -> PreparedImage:
    """Return a black square as the model takes it, for a first computation."""
    return prepared(_BLACK, model.sides, limits)


def _served_network(model: Model[ScoringNetwork], protocol: Protocol, notes: tuple[str, ...]) -> ServedModel:
    net, crop = model.net, model.net.architecture.crop
    passes, limits = protocol_passes(net, protocol), pixel_limits([net])
    return ServedModel(
        about={
            "kind": "network",
            "network": net.architecture.network,
            "classes": list(model.classes),
            "protocol": protocol.method,
            "scales": list(protocol.scales),
            "mirror": protocol.mirror,
            "grid": protocol.grid,
            "crop": crop,
            "weights_sha256": model.weights_sha256,
        },
        classes=model.classes,
        numbers="probabilities",
        has_maps=True,
        sides=tuple(dict.fromkeys(one.side for one in passes)),
        batch_pixels=limits.batch,
        work=partial(_network_work, passes),
        predict=partial(_network_predictions, model, protocol, limits),
        notes=notes,
    )


def _network_work(passes: Sequence[Pass], image: PreparedImage) -> float:
    return sum(one.pixels(_size(image.pixels[one.side])) for one in passes)


def _size(image: UInt8[Tensor, "3 H W"]) -> Size:
    return image.shape[1], image.shape[2]


def _network_predictions(
    model: Model[ScoringNetwork],
    protocol: Protocol,
    limits: PixelLimits,
    images: Sequence[PreparedImage],
    wanted: Sequence[Wanted],
) -> list[ImageAnswer]:
    """Return answers from the posteriors of `predict`."""
    map_side = scale_in_pixels(protocol.scales[len(protocol.scales) // 2], model.net.architecture.crop)
    with_maps = [row for row, one in enumerate(wanted) if one.maps]
    posteriors, maps = _posteriors_and_maps(model.net, protocol, limits, images, map_side, with_maps)
    return [
        _as_answer(model, protocol.grid, one, posteriors[row], maps.get(row), _size(images[row].pixels[map_side]))
        for row, one in enumerate(wanted)
    ]


def _posteriors_and_maps(
    net: ScoringNetwork,
    protocol: Protocol,
    limits: PixelLimits,
    images: Sequence[PreparedImage],
    map_side: int,
    with_maps: Sequence[int],
) -> tuple[Float[np.ndarray, "B K"], dict[int, Float[np.ndarray, "K h w"]]]:
    """Return posteriors, averaged over the same passes in the same order as by `predict`, and score maps of some rows.

    Raises:
        ValueError: the network's scores are not finite.
    """
    passes = protocol_passes(net, protocol)
    total = np.zeros((len(images), net.architecture.classes))
    maps: dict[int, Float[np.ndarray, "K h w"]] = {}
    with in_float32():
        for one in passes:
            batch = torch.stack([image.pixels[one.side] for image in images])
            posteriors, scores = one.posteriors_and_map(batch, limits)
            total += posteriors.float().numpy()
            if scores is not None and one.side == map_side:
                maps = {row: scores[row].float().softmax(dim=0).cpu().numpy() for row in with_maps}
        if not maps:  # a protocol of crops has none
            maps = {row: _map_of(net, images[row].pixels[map_side], protocol.grid) for row in with_maps}
    if not np.isfinite(total).all():
        raise ValueError("the scores of the network are not finite: its training has diverged")
    return total / len(passes), maps


def _map_of(net: ScoringNetwork, image: UInt8[Tensor, "3 H W"], grid: PoolingGrid) -> Float[np.ndarray, "K h w"]:
    return posterior_map(net, image.permute(1, 2, 0).numpy(), grid=grid)


def _as_answer(
    model: Model[ScoringNetwork],
    grid: PoolingGrid,
    wanted: Wanted,
    posterior: Float[np.ndarray, " K"],
    class_maps: Float[np.ndarray, "K h w"] | None,
    size: Size,
) -> ImageAnswer:
    labels = most_probable(posterior, wanted.top)
    prediction = Prediction(
        image=wanted.name,
        classes=tuple(model.classes[label] for label in labels),
        probabilities=tuple(float(posterior[label]) for label in labels),
    )
    if class_maps is None:
        return ImageAnswer(prediction=prediction)
    height, width = size
    maps = [
        ClassMap(
            name=model.classes[label],
            values=class_maps[label].copy(),  # a view would keep the maps of all classes
            stride=DOWNSAMPLING,
            window=model.net.architecture.crop,
            offset=(first_pixel(height, grid), first_pixel(width, grid)),
            size=size,
        )
        for label in labels
    ]
    return ImageAnswer(prediction=prediction, maps=tuple(maps))


def _served_classifier(classifier: FeatureClassifier, runtime: Runtime) -> ServedModel:
    extractions = [
        checked_extraction(model, given_images(_BLACK), descriptor=descriptor, runtime=runtime)
        for model, descriptor in zip(classifier.models, classifier.descriptors, strict=True)
    ]
    sides = [scale_in_pixels(scale, one.model.net.architecture.crop) for one in extractions for scale in one.scales]
    nets = [one.model.net for one in extractions]
    return ServedModel(
        about={
            "kind": "classifier of features",
            "network": [net.architecture.network for net in nets],
            "classes": list(classifier.classes),
            "several_labels": classifier.several_labels,
            "protocol": "features",
            "scales": [list(one.scales) for one in extractions],
            "mirror": [bool(one.descriptor.mirror) for one in extractions],
            "crop": [net.architecture.crop for net in nets],
            "weights_sha256": [model.weights_sha256 for model in classifier.models],
        },
        classes=classifier.classes,
        numbers="scores",
        has_maps=False,
        sides=tuple(dict.fromkeys(sides)),
        batch_pixels=min(pixels_at_once([net], net.mean_rgb.device) for net in nets),
        work=partial(_classifier_work, extractions),
        batches=False,
        predict=partial(_classifier_predictions, classifier, extractions),
    )


def _classifier_work(extractions: Sequence[Extraction], image: PreparedImage) -> float:
    return sum(
        (1 + bool(one.descriptor.mirror))
        * image.pixels[scale_in_pixels(scale, one.model.net.architecture.crop)][0].numel()
        for one in extractions
        for scale in one.scales
    )


def _classifier_predictions(
    classifier: FeatureClassifier,
    extractions: Sequence[Extraction],
    images: Sequence[PreparedImage],
    wanted: Sequence[Wanted],
) -> list[ImageAnswer]:
    """Return answers; the images are decoded already, so none is refused."""
    source = given_images([_BLACK] * len(images))

    def decoder(side: int, indices: Sequence[int]) -> Generator[Rescaled]:
        for index in indices:
            yield index, images[index].pixels[side]

    found = classified(
        classifier,
        [replace(one, source=source) for one in extractions],
        [decoder] * len(extractions),
        range(len(images)),
        max(one.top for one in wanted),
    )
    return [
        ImageAnswer(prediction=_first(each, one, all_positive=classifier.several_labels))
        for each, one in zip(found, wanted, strict=True)
    ]


def _first(found: Classification, wanted: Wanted, *, all_positive: bool) -> Classification:
    """Return the first classes of a classification, as if no more had been asked for."""
    positive = sum(score > 0 for score in found.scores) if all_positive else 0
    count = max(wanted.top, positive)
    return replace(found, image=wanted.name, classes=found.classes[:count], scores=found.scores[:count])
