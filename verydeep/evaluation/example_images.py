"""Examples for an evaluation's page: wrong images, and score maps of some of them and of some right ones."""

import math
from dataclasses import dataclass

import numpy as np
from jaxtyping import Int

from verydeep.evaluation.metrics import misclassified
from verydeep.evaluation.results import Evaluation, TestedImages
from verydeep.evaluation.score_maps import (
    data_address,
    fitted,
    image_at_scale,
    legend,
    overlay,
    placed_score_map,
    positions_of,
    posterior_map,
    thumbnail,
)
from verydeep.images.decode import Pixels
from verydeep.images.sources.source import Source
from verydeep.machine.runtime import in_float32
from verydeep.networks.grids import PoolingGrid
from verydeep.networks.scales import scale_in_pixels
from verydeep.networks.vgg import ScoringNetwork
from verydeep.presentation.terminal import reporting
from verydeep.runs.model import Model

_WRONG_IMAGES = 12
"""Most wrong images on a page."""

_MAPS_OF_EACH = 4
"""Most wrong images with a score map, and most right ones."""

FEWEST_POSITIONS = 9
"""Fewest positions of a score map that is shown: of fewer, 3 x 3, a picture says hardly more than a number."""

_SEED = 0
"""Seed of the choice of right images."""


@dataclass(frozen=True, kw_only=True)
class Example:
    """An image, its true class, and the class that was predicted."""

    id: str
    true: str
    predicted: str
    wrong: bool
    probability: float
    """Posterior of the predicted class, percent."""
    picture: str
    """Address of the image, which holds it."""


@dataclass(frozen=True, kw_only=True)
class MapLayer:
    """The score map of one class over an image."""

    class_name: str
    picture: str
    least: float
    greatest: float


@dataclass(frozen=True, kw_only=True)
class MappedExample:
    """An image as it was tested, and its score maps."""

    image: Example
    positions: tuple[int, int]
    """Rows and columns of the map."""
    layers: tuple[MapLayer, ...]
    """Map of the predicted class and, if that is wrong, of the true one."""


@dataclass(frozen=True, kw_only=True)
class Examples:
    """Images for a page."""

    wrong: tuple[Example, ...]
    """Those with the highest probability of a wrong class first."""
    mapped: tuple[MappedExample, ...]
    """Images chosen for it whose score map has enough positions."""
    too_small: int
    """Images chosen for it whose score map has too few."""
    fewest_positions: int
    scale: int
    """Q of the maps, for a crop of 224."""
    side: int
    """That scale in pixels."""
    crop: int
    """Side of the window that a position of a map sees, in pixels."""
    legend: str
    """The colours of a map from 0 to 1, as CSS writes them."""


def examples(evaluation: Evaluation, source: Source, model: Model[ScoringNetwork]) -> Examples:
    """Read and draw the examples of an evaluation.

    Args:
        evaluation: result of testing `source`.
        source: the split that was tested.
        model: model of the first run, whose network draws the score maps.

    Raises:
        ValueError: the source is not the one that was tested.
        UnusableImageError: an image can no longer be used.
    """
    images, crop = evaluation.images, model.net.architecture.crop
    wrong, mapped = _chosen(images)
    positions = positions_of(source, images.ids)
    scale = max(evaluation.per_run[0].scales)
    side, grid, drawn = scale_in_pixels(scale, crop), evaluation.grid or "centred", []
    with reporting("draw score maps", total=len(mapped)) as report:
        for index in mapped:
            drawn.append(_mapped(images, index, model, image_at_scale(source[positions[index]], side), grid))
            report.advance()
    shown = tuple(one for one in drawn if math.prod(one.positions) >= FEWEST_POSITIONS)
    return Examples(
        wrong=tuple(_example(images, index, thumbnail(source, positions[index])) for index in wrong),
        mapped=shown,
        too_small=len(drawn) - len(shown),
        fewest_positions=FEWEST_POSITIONS,
        scale=scale,
        side=side,
        crop=crop,
        legend=legend(),
    )


def most_confident_errors(images: TestedImages) -> list[int]:
    """Return the positions of the wrong images, those with the highest probability of a wrong class first."""
    wrong = np.flatnonzero(misclassified(images.posteriors, images.labels))
    confidence = images.posteriors[wrong, images.predicted[wrong]]
    ordered: list[int] = wrong[np.argsort(-confidence, kind="stable")].tolist()
    return ordered


def _chosen(images: TestedImages) -> tuple[list[int], list[int]]:
    """Return the wrong images for the page, and those with a score map."""
    wrong = most_confident_errors(images)[:_WRONG_IMAGES]
    right = np.flatnonzero(~misclassified(images.posteriors, images.labels))
    sampled: Int[np.ndarray, " M"] = np.random.default_rng(_SEED).permutation(right)[:_MAPS_OF_EACH]
    return wrong, [*wrong[:_MAPS_OF_EACH], *np.sort(sampled).tolist()]


def _example(images: TestedImages, index: int, picture: Pixels) -> Example:
    true, predicted = int(images.labels[index]), int(images.predicted[index])
    return Example(
        id=images.ids[index],
        true=images.classes[true],
        predicted=images.classes[predicted],
        wrong=true != predicted,
        probability=100 * float(images.posteriors[index, predicted]),
        picture=data_address(picture),
    )


def _mapped(
    images: TestedImages, index: int, model: Model[ScoringNetwork], image: Pixels, grid: PoolingGrid
) -> MappedExample:
    """Lay the maps of the predicted and the true class over an image as it was tested."""
    with in_float32():
        maps = posterior_map(model.net, image, grid=grid)
    labels = dict.fromkeys((int(images.predicted[index]), int(images.labels[index])))
    rows, columns = maps.shape[1:]
    placed = {
        label: placed_score_map(maps[label], image.shape[:2], crop=model.net.architecture.crop, grid=grid)
        for label in labels
    }
    return MappedExample(
        image=_example(images, index, fitted(image)),
        positions=(rows, columns),
        layers=tuple(
            MapLayer(
                class_name=model.classes[label],
                picture=data_address(fitted(overlay(image, placed[label]))),
                least=float(maps[label].min()),
                greatest=float(maps[label].max()),
            )
            for label in labels
        ),
    )
