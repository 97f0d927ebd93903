"""Crops of images: their mean posterior, and multi-crop evaluation, a 5 x 5 grid of them and their mirror images."""

from collections import Counter
from collections.abc import Mapping

import torch
from jaxtyping import Float, Num
from torch import Tensor

from verydeep.evaluation.pixel_limits import PixelLimits
from verydeep.images.views import GRID, grid_locations
from verydeep.networks.vgg import ScoringNetwork

CROPS = GRID**2
"""Crops of an image; with their mirror images they are the paper's 50."""


def crop_posteriors(
    net: ScoringNetwork, images: Num[Tensor, "B 3 H W"], *, mirror: bool, limits: PixelLimits
) -> Float[Tensor, "B K"]:
    """Return the mean over the posteriors of a grid of crops, on the CPU, of images in 0..255.

    Without the mirror there are 25 crops. Where the grid has a corner several times, as for an image as high as the
    crop, that crop is computed once and counts as often. The network is put into its testing mode.

    Raises:
        ValueError: the images are smaller than the crop.
    """
    corners = Counter(grid_locations((images.shape[2], images.shape[3]), net.architecture.crop))
    return posteriors_of_crops(net, images, corners, mirror=mirror, limits=limits)


@torch.inference_mode()
def posteriors_of_crops(
    net: ScoringNetwork,
    images: Num[Tensor, "B 3 H W"],
    corners: Mapping[tuple[int, int], int],
    *,
    mirror: bool,
    limits: PixelLimits,
) -> Float[Tensor, "B K"]:
    """Return the mean over the posteriors of crops, on the CPU, each counted as often as `corners` says.

    Crops of about `limits.batch` pixels go through the network at once, which is put into its testing mode.

    Raises:
        ValueError: a crop is not inside the images.
    """
    crop = net.eval().architecture.crop
    mirrored = [False, True] if mirror else [False]
    views = [(corner, flipped, count) for corner, count in corners.items() for flipped in mirrored]
    at_once = max(1, limits.batch // (len(images) * crop**2))
    total = torch.zeros(len(images), net.architecture.classes, dtype=torch.float64)
    for start in range(0, len(views), at_once):
        chosen = views[start : start + at_once]
        crops = torch.cat([_crop(images, *corner, crop, flipped=flipped) for corner, flipped, _ in chosen])
        crops = crops.to(net.mean_rgb.device, torch.float32, memory_format=torch.channels_last)
        posteriors = net(crops).softmax(dim=1).cpu().double().unflatten(0, (len(chosen), len(images)))
        total += (posteriors * torch.tensor([[[count]] for _, _, count in chosen])).sum(dim=0)
    return total / sum(count for _, _, count in views)


def _crop(images: Tensor, top: int, left: int, side: int, *, flipped: bool) -> Tensor:
    crop = images[:, :, top : top + side, left : left + side]
    return crop.flip(-1) if flipped else crop
