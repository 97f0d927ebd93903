"""Multi-crop evaluation: a 5 x 5 grid of crops and their mirror images."""

from collections import Counter

import torch
from torch import Tensor

from verydeep.evaluation.dense import PixelLimits
from verydeep.images.views import GRID, grid_places
from verydeep.networks.scoring import ScoringNetwork

CROPS = GRID**2
"""Of an image; with their mirror images the paper's 50."""


@torch.inference_mode()
def crop_posteriors(net: ScoringNetwork, images: Tensor, *, mirror: bool, limits: PixelLimits) -> Tensor:
    """Posteriors [B, classes], on the CPU, of images [B, 3, H, W] in 0..255: the mean over their crops' posteriors.

    Without the mirror there are 25 crops. Where the grid has a place several times, for an image as high as the crop,
    say, it is computed once and counts as often. Crops of about `limits.batch` pixels go through the network at once,
    which is put into its testing mode.

    Raises:
        ValueError: the images are smaller than the crop.
    """
    crop = net.eval().architecture.crop
    places = Counter(grid_places((images.shape[2], images.shape[3]), crop))
    views = [
        (place, flipped, count) for place, count in places.items() for flipped in ([False, True] if mirror else [False])
    ]
    at_once = max(1, limits.batch // (len(images) * crop**2))
    total = torch.zeros(len(images), net.architecture.classes, dtype=torch.float64)
    for start in range(0, len(views), at_once):
        chosen = views[start : start + at_once]
        crops = torch.cat([_crop(images, *place, crop, flipped=flipped) for place, flipped, _ in chosen])
        crops = crops.to(net.mean_rgb.device, torch.float32, memory_format=torch.channels_last)
        found = net(crops).softmax(dim=1).cpu().double().unflatten(0, (len(chosen), len(images)))
        total += (found * torch.tensor([[[count]] for _, _, count in chosen])).sum(dim=0)
    return total / sum(count for _, _, count in views)


def _crop(images: Tensor, top: int, left: int, side: int, *, flipped: bool) -> Tensor:
    found = images[:, :, top : top + side, left : left + side]
    return found.flip(-1) if flipped else found
