"""The crop in the middle of an image and nothing else, as libraries report the errors of their networks."""

from jaxtyping import Float, Num
from torch import Tensor

from verydeep.evaluation.crops import posteriors_of_crops
from verydeep.evaluation.pixel_limits import PixelLimits
from verydeep.images.views import centre_location
from verydeep.networks.vgg import ScoringNetwork


def centre_posteriors(
    net: ScoringNetwork, images: Num[Tensor, "B 3 H W"], *, mirror: bool, limits: PixelLimits
) -> Float[Tensor, "B K"]:
    """Return the posteriors, on the CPU, of the crop in the middle of each image in 0..255.

    Without the mirror they are the soft-max of `net(crops)`. The network is put into its testing mode.

    Raises:
        ValueError: the images are smaller than the crop.
    """
    middle = centre_location((images.shape[2], images.shape[3]), net.architecture.crop)
    return posteriors_of_crops(net, images, {middle: 1}, mirror=mirror, limits=limits)
