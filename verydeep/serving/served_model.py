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
from verydeep.evaluation.crops import CROPS
from verydeep.evaluation.dense import dense_posteriors_and_map
from verydeep.evaluation.passes import in_float32
from verydeep.evaluation.pixel_limits import PixelLimits, pixel_limits, pixels_at_once
from verydeep.evaluation.protocols import Method, Protocol, Scales, protocol_of, view_named
from verydeep.evaluation.score_maps import posterior_map
from verydeep.exported_networks.exported import ExportedNet
from verydeep.exported_networks.run_or_file import model_on
from verydeep.images.decode import UNNAMED, Size, UnusableImageError, decode_for, image_sizes
from verydeep.images.rescaled import Rescaled
from verydeep.images.sources.given import given_images
from verydeep.images.views import rescale, rescaled_size
from verydeep.machine.runtime import Runtime
from verydeep.machine.threads import use_threads
from verydeep.networks.architecture import DOWNSAMPLING
from verydeep.networks.grids import PoolingGrid, first_pixel
from verydeep.networks.scales import scale_in_pixels
from verydeep.networks.vgg import ScoringNetwork
from verydeep.numbers import number
from verydeep.prediction.predict import Prediction, most_probable
from verydeep.runs.model import Model, warnings_of
from verydeep.serving.options import Limits
from verydeep.transfer_learning.classifier_folder import FeatureClassifier, is_classifier, load_classifier
from verydeep.transfer_learning.classify import Classification, classified

MOST_MAPS = 16
"""Classes whose maps an answer may have."""

_KEPT_PRIMITIVES = "64"
"""Primitives that oneDNN keeps, one for each layer and size of image; its usual 1,024 grow to hundreds of megabytes."""

_BLACK = b"P6 1 1 255\n\0\0\0"
"""One black pixel as the contents of a file."""


class Wanted(NamedTuple):
    """What is asked for of an image."""

    name: str
    top: int
    maps: bool = False


@dataclass(frozen=True, kw_only=True)
class PreparedImage:
    """An image as the network takes it, at each of the scales."""

    pixels: dict[int, UInt8[Tensor, "3 _ _"]]
    """By shorter side."""

    @property
    def sizes(self) -> tuple[tuple[int, ...], ...]:
        """Shapes at all scales; images of the same ones can share a batch."""
        return tuple(tuple(image.shape) for image in self.pixels.values())

    @property
    def area(self) -> int:
        """Pixels at the largest scale."""
        return max(image[0].numel() for image in self.pixels.values())


@dataclass(frozen=True, kw_only=True)
class ServedModel:
    """A model that is loaded, with all choices made."""

    about: Mapping[str, Any]
    """Classes, protocol, scales, SHA-256 of the weights, ready for JSON."""
    classes: tuple[str, ...]
    numbers: str
    """`probabilities` or `scores`: the name of what stands beside the classes."""
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
    predict: Callable[[Sequence[PreparedImage], Sequence[Wanted]], list[dict[str, Any] | UnusableImageError]]
    """Returns predictions of images of the same sizes, as `predict --out` writes them; with `maps` where wanted."""
    notes: tuple[str, ...] = ()
    """What a user should know about it."""


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
    if isinstance(model.net, ExportedNet):
        model.net.check_grid(grid)
    chosen = protocol_of(protocol or "dense", scales, usual="single", trained=model.scale, mirror=model.flip, grid=grid)
    return _served_network(model, chosen, warnings_of(str(run), model))


def prepared(data: bytes, sides: Sequence[int], limits: Limits, name: str = UNNAMED) -> PreparedImage:
    """Decode an image and rescale it to each of the shorter sides, to the bit as `predict` does.

    Raises:
        UnusableImageError: as `decode`, or it has too many pixels when rescaled, which its head alone tells.
    """
    size, _ = image_sizes(data, name, max_pixels=limits.max_pixels)
    for side in sides:
        _check_rescaled(name, size, side, limits.max_rescaled_pixels)
    pixels = {}
    for side in sides:
        decoded = decode_for(data, name, shorter_side=side, max_pixels=limits.max_pixels)
        pixels[side] = torch.from_numpy(rescale(decoded, side)).permute(2, 0, 1)
    return PreparedImage(pixels=pixels)


def black_image(model: ServedModel, limits: Limits) -> PreparedImage:
    """Return a black square as the model takes it, for a first computation."""
    return prepared(_BLACK, model.sides, replace(limits, max_rescaled_pixels=2**62))


def _check_rescaled(name: str, size: Size, side: int, most: int) -> None:
    height, width = rescaled_size(size, side)
    if height * width > most:
        detail = f"{width} x {height} pixels when rescaled to a shorter side of {side}, more than {number(most)}"
        raise UnusableImageError(name, "too large", detail)


def _served_network(model: Model[ScoringNetwork], protocol: Protocol, notes: tuple[str, ...]) -> ServedModel:
    net, crop = model.net, model.net.architecture.crop
    sides = tuple(scale_in_pixels(scale, crop) for scale in protocol.scales)
    limits = pixel_limits([net])
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
        sides=tuple(dict.fromkeys(sides)),
        batch_pixels=limits.batch,
        work=partial(_network_work, protocol, crop),
        predict=partial(_network_predictions, model, protocol, sides, limits),
        notes=notes,
    )


def _network_work(protocol: Protocol, crop: int, image: PreparedImage) -> float:
    whole = sum(pixels[0].numel() for pixels in image.pixels.values())
    cut_out = len(image.pixels) * crop**2
    of_views = {"crops": CROPS * cut_out, "centre": cut_out}
    return (1 + protocol.mirror) * sum(of_views.get(view, whole) for view in protocol.views)


def _network_predictions(
    model: Model[ScoringNetwork],
    protocol: Protocol,
    sides: Sequence[int],
    limits: PixelLimits,
    images: Sequence[PreparedImage],
    wanted: Sequence[Wanted],
) -> list[dict[str, Any] | UnusableImageError]:
    """Return predictions, averaged over the same passes in the same order as by `predict`."""
    map_side = sides[len(sides) // 2]
    total = np.zeros((len(images), len(model.classes)))
    with_maps = [row for row, one in enumerate(wanted) if one.maps]
    maps: dict[int, Float[np.ndarray, "K h w"]] = {}
    with in_float32():
        for side in sides:
            batch = torch.stack([image.pixels[side] for image in images]).to(model.net.mean_rgb.device)
            for view in protocol.views:
                if view.startswith("dense"):
                    posteriors, scores = dense_posteriors_and_map(
                        model.net, batch, mirror=protocol.mirror, limits=limits, grid=protocol.grid
                    )
                    if side == map_side:
                        maps = {row: scores[row].float().softmax(dim=0).cpu().numpy() for row in with_maps}
                else:
                    posteriors = view_named(view).posteriors(model.net, batch, mirror=protocol.mirror, limits=limits)
                total += posteriors.float().numpy()
        if not maps:  # a protocol of crops has none
            maps = {row: _map_of(model.net, images[row].pixels[map_side], protocol.grid) for row in with_maps}
    if not np.isfinite(total).all():
        raise ValueError("the scores of the network are not finite: its training has diverged")
    total /= len(sides) * len(protocol.views)
    return [
        _network_prediction(model, protocol.grid, one, posterior, images[row].pixels[map_side], maps.get(row))
        for row, (posterior, one) in enumerate(zip(total, wanted, strict=True))
    ]


def _map_of(net: ScoringNetwork, image: Tensor, grid: PoolingGrid) -> Float[np.ndarray, "K h w"]:
    return posterior_map(net, image.permute(1, 2, 0).numpy(), grid=grid)


def _network_prediction(
    model: Model[ScoringNetwork],
    grid: PoolingGrid,
    wanted: Wanted,
    posterior: Float[np.ndarray, " K"],
    image: Tensor,
    class_maps: Float[np.ndarray, "K h w"] | None,
) -> dict[str, Any]:
    labels = most_probable(posterior, wanted.top)
    prediction = Prediction(
        image=wanted.name,
        classes=tuple(model.classes[label] for label in labels),
        probabilities=tuple(float(posterior[label]) for label in labels),
    ).to_dict()
    if class_maps is not None:
        height, width = image.shape[1:]
        prediction["maps"] = [
            {
                "class": model.classes[label],
                "grid": class_maps[label].tolist(),
                "stride": DOWNSAMPLING,
                "window": model.net.architecture.crop,
                "offset": [first_pixel(height, grid), first_pixel(width, grid)],
                "size": [height, width],
            }
            for label in labels
        ]
    return prediction


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
) -> list[dict[str, Any] | UnusableImageError]:
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
        UnusableImageError.of_reason(one.name, each.error)
        if each.error
        else replace(each, image=one.name, **_first(each, one.top, all_positive=classifier.several_labels)).to_dict()
        for each, one in zip(found, wanted, strict=True)
    ]


def _first(found: Classification, top: int, *, all_positive: bool) -> dict[str, Any]:
    """Return the classes and scores that a classification has if only `top` are asked for."""
    positive = sum(score > 0 for score in found.scores) if all_positive else 0
    count = max(top, positive)
    return {"classes": found.classes[:count], "scores": found.scores[:count]}
