"""Gradient-weighted class activation maps (Grad-CAM) of the last convolution: finer than the paper's score map."""

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import UInt8

from verydeep.evaluation.pixel_limits import largest_image
from verydeep.evaluation.score_maps import PlacedMap
from verydeep.images.decode import UnusableImageError
from verydeep.networks.architecture import DOWNSAMPLING
from verydeep.networks.grids import DEFAULT_GRID, PoolingGrid, first_pixel
from verydeep.networks.vgg import VGG

_STRIDE = DOWNSAMPLING // 2
"""Pixels from one position of the last convolution to the next: four poolings lie before it."""


def last_convolution(net: VGG) -> str:
    """Return the name of the ReLU after the last convolution: `relu5_3` in D."""
    return [name for name in net.layer_names if name.startswith("relu5_")][-1]


def grad_cam(
    net: VGG, image: UInt8[np.ndarray, "H W 3"], label: int, *, name: str, grid: PoolingGrid = DEFAULT_GRID
) -> PlacedMap:
    """Return Grad-CAM of a class in an image (Selvaraju et al. 2017): where its score comes from.

    Each channel of the last convolution, after its ReLU, is weighted by the mean over space of the gradient that the
    class's score has for it. The score is the one of dense evaluation, the mean of the score map before the soft-max.
    Sums below 0 count as 0, and the largest one is shown as 1.

    Raises:
        UnusableImageError: the image `name` is too large for memory, and tiles have no gradient of the whole image.
    """
    if image.shape[0] * image.shape[1] > largest_image([net], net.mean_rgb.device):
        raise UnusableImageError(name, "too large", "for Grad-CAM at this scale: choose smaller scales, or score-map")
    net.eval()
    size, layer = image.shape[:2], last_convolution(net)
    batch = torch.from_numpy(np.ascontiguousarray(image.transpose(2, 0, 1))[None]).to(net.mean_rgb.device)
    with torch.no_grad():
        activations = net.activations(batch, [layer], dense=True, grid=grid)[layer]
    with torch.enable_grad():
        activations.requires_grad_()
        pool5 = F.max_pool2d(activations, 2, ceil_mode=grid == "ceil")
        (gradient,) = torch.autograd.grad(net.head(pool5)[0, label].mean(), activations)
    weights = gradient.mean(dim=(2, 3), keepdim=True)
    values = (weights * activations.detach()).sum(dim=1)[0].clamp(min=0)
    values /= values.max().clamp(min=torch.finfo(values.dtype).tiny)
    # The grid begins within the first 16 pixels: the four poolings before have left out all that lies before it.
    top, left = (first_pixel(side, grid) + _STRIDE / 2 for side in size)
    return PlacedMap(values=values.cpu().numpy(), size=size, first_centre=(top, left), stride=_STRIDE)
