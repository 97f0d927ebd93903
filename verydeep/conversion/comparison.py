"""An exported network beside the one that it was made from, on real images."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import UInt8
from torch import Tensor

from verydeep.evaluation.dense import score_map
from verydeep.evaluation.pixel_limits import largest_image
from verydeep.images.decode import UnusableImageError
from verydeep.images.quarantine import Quarantine
from verydeep.images.rescaled import rescaled_images
from verydeep.images.sources.source import Source
from verydeep.images.views import centre_location
from verydeep.networks.vgg import ScoringNetwork

_BATCH = 5
"""Crops that are compared at once."""


@dataclass(frozen=True, kw_only=True)
class ExportAgreement:
    """Agreement of an exported network's scores, before the soft-max, with PyTorch's."""

    images: int
    greatest_difference: float
    """Greatest difference of a score, divided by the largest absolute score of its image."""
    top1_agreement: float
    """Percentage of the images whose most probable class is the same."""


def usable_images(source: Source, side: int, quarantine: Quarantine) -> Iterator[tuple[int, UInt8[Tensor, "3 _ _"]]]:
    """Yield the images of a source by their indices, with their shorter side at `side` pixels.

    Raises:
        TooManyBadImagesError: the quarantine is full.
    """
    for index, image in rescaled_images(source, side, max_pixels=quarantine.tolerance.max_pixels):
        if isinstance(image, UnusableImageError):
            quarantine.add(image)
        else:
            yield index, image


@torch.inference_mode()
def agreement(
    net: ScoringNetwork,
    exported: ScoringNetwork,
    source: Source,
    side: int,
    quarantine: Quarantine,
    advance: Callable[[], None] = lambda: None,
) -> ExportAgreement:
    """Compare an exported network's scores with PyTorch's: of whole images at `side` pixels, and of batches of crops.

    Raises:
        ValueError: no image can be used.
        TooManyBadImagesError: the quarantine is full.
    """
    differences, same, crops = [], [], []
    pixels, crop = largest_image([net], torch.device("cpu")), net.architecture.crop
    for _, image in usable_images(source, side, quarantine):
        expected = score_map(net, image[None], pixels=pixels)
        scores = score_map(exported, image[None], pixels=pixels)
        differences.append(_difference(scores, expected))
        same.append(bool(expected.mean(dim=(2, 3)).argmax() == scores.mean(dim=(2, 3)).argmax()))
        top, left = centre_location((image.shape[1], image.shape[2]), crop)
        crops.append(image[:, top : top + crop, left : left + crop])
        if len(crops) == _BATCH:
            differences.append(_difference_of_crops(net, exported, crops))
            crops = []
        advance()
    if not same:
        raise ValueError("no image can be used to check the export on: name other images (--data)")
    if crops:
        differences.append(_difference_of_crops(net, exported, crops))
    return ExportAgreement(
        images=len(same),
        greatest_difference=float(np.max(differences)),  # NaN if any is NaN
        top1_agreement=100 * float(np.mean(same)),
    )


def _difference_of_crops(
    net: ScoringNetwork, exported: ScoringNetwork, crops: list[UInt8[Tensor, "3 crop crop"]]
) -> float:
    batch = torch.stack(crops)
    return _difference(exported(batch), net(batch))


def _difference(scores: Tensor, expected: Tensor) -> float:
    """Return the greatest difference of scores [B, K, ...] in a batch; infinite if the shapes differ."""
    if scores.shape != expected.shape:
        return float("inf")
    differences = (scores - expected).abs().flatten(1).amax(dim=1)
    return float((differences / expected.abs().flatten(1).amax(dim=1)).max())
