"""Windows of an image that networks look through: where they lie, and what a network says of each."""

import numpy as np
import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor

from verydeep.evaluation.dense import score_map
from verydeep.evaluation.pixel_limits import largest_image
from verydeep.evaluation.protocols import Windows
from verydeep.images.decode import Size, UnusableImageError, upright_size
from verydeep.images.quarantine import Quarantine
from verydeep.images.sources.source import Source
from verydeep.networks.configurations import DOWNSAMPLING
from verydeep.runs.model import Model

CROPS_AT_ONCE = 32


def image_size(source: Source, index: int, quarantine: Quarantine) -> Size | None:
    """Read an image again for its height and width; None if it can no longer be used.

    Raises:
        TooManyBadImagesError: the quarantine is full.
    """
    try:
        sample = source[index]
        return upright_size(sample.data, sample.id, max_pixels=quarantine.tolerance.max_pixels)
    except UnusableImageError as refusal:
        quarantine.add(refusal)
        return None


def window_corners(size: Size, crop: int) -> tuple[Int[np.ndarray, " windows"], Int[np.ndarray, " windows"]]:
    """Return top and left of the windows that the score map of an image has (the centred grid), row by row."""
    tops, lefts = (
        side % DOWNSAMPLING // 2 + DOWNSAMPLING * np.arange(side // DOWNSAMPLING - crop // DOWNSAMPLING + 1)
        for side in size
    )
    return np.repeat(tops, len(lefts)), np.tile(lefts, len(tops))


def outputs_over_space(
    model: Model, images: UInt8[Tensor, "B 3 H W"], windows: Windows
) -> Float[Tensor, "B outputs h w"]:
    """Return a network's outputs in every window, whole images given at once or each window cut out."""
    net, crop = model.net, model.net.architecture.crop
    if windows == "dense":
        return score_map(net, images, pixels=largest_image([net], net.mean_rgb.device)).float().cpu()
    tops, lefts = window_corners((images.shape[2], images.shape[3]), crop)
    cut = [images[:, :, top : top + crop, left : left + crop] for top, left in zip(tops, lefts, strict=True)]
    with torch.inference_mode():
        outputs = [net(crops.to(net.mean_rgb.device)).float().cpu() for crops in torch.cat(cut).split(CROPS_AT_ONCE)]
    rows = len(np.unique(tops))
    return torch.cat(outputs).unflatten(0, (rows, -1, len(images))).permute(2, 3, 0, 1)
