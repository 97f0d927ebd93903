"""Which pixels weights were trained on, by conv1_1 and by the network's outputs for pictures.

The same names serve for weights that take RGB in 0..1, divided by a std, and for those that were converted from Caffe
and take BGR in 0..255. conv1_1 has weights of the same size in both, so two other things are compared.

1. The Oxford group's D and E have nearly the same conv1_1, since both were started from A (section 3.1), and training
   them further hardly changes it. Six of its 64 filters are compared with the file's; that of number 1 is red against
   blue, so it tells the order of the channels.
2. A network of ReLUs multiplies its scores by about the factor of its input, here 58. Trained ones have scores
   that vary by a few units from picture to picture. Scores that hardly vary come from pixels that are too small, and
   ones that vary by tens from pixels that are too large. Batch normalisation keeps the variance that conv1_1 had in
   training, which is a better test.
"""

import torch
import torch.nn.functional as F
from jaxtyping import Float, UInt8
from torch import Tensor

from verydeep.networks.foreign.layouts import Channels, White
from verydeep.networks.vgg import VGG
from verydeep.numbers import significant

_OXFORD_FILTERS = (0, 1, 2, 61, 62, 63)
_OXFORD_ROWS = torch.tensor(
    [
        [[0.394, -0.084, -0.036, -0.107, -0.038, 0.047], [0.377, -0.079, -0.048, -0.118, -0.190, -0.019],
         [-0.046, -0.116, -0.145, -0.123, -0.358, -0.280]],
        [[0.464, 0.034, 0.102, -0.069, -0.040, 0.040], [0.418, 0.053, 0.098, -0.094, -0.205, -0.057],
         [-0.048, -0.007, -0.022, -0.088, -0.392, -0.346]],
        [[0.341, 0.096, 0.018, -0.114, -0.051, -0.003], [0.340, 0.134, 0.021, -0.130, -0.165, -0.070],
         [-0.045, 0.065, -0.076, -0.126, -0.299, -0.283]],
    ]
).permute(2, 0, 1)  # fmt: skip
"""Upper rows [6, 3, 3] of six filters of conv1_1 of the Oxford group's E, for RGB in 0..255, from
imagenet-vgg-verydeep-19.mat (MatConvNet)."""

_ALIKE = 0.85
"""Mean correlation of the six rows: 0.95 of D's with E's where both are known, 0.66 of E's with red and blue exchanged;
random filters have a standard deviation of 0.14."""

_SMALL, _DOUBTFUL, _LARGE = 0.075, 0.1, 20.0
"""Variation of outputs below which pixels are too small, below which that is in doubt, and above which they are too
large. Networks with random weights of the usual size vary by 0.1 to 2 where pixels are right, trained ones by more; by
a 58th or by 58 times as much where they are not."""


def oxford_channels(first: Float[Tensor, "C 3 k k"]) -> Channels | None:
    """Return the order of channels in which filters [C, 3, k, k] are the Oxford group's; None if they are others."""
    if first.shape[0] <= max(_OXFORD_FILTERS) or first.shape[2:] != (3, 3):
        return None
    rows = first[list(_OXFORD_FILTERS), :, 0].float()
    likeness = {
        order: float(F.cosine_similarity(turned.flatten(1), _OXFORD_ROWS.flatten(1)).mean())
        for order, turned in (("rgb", rows), ("bgr", rows.flip(1)))
    }
    best: Channels = "rgb" if likeness["rgb"] >= likeness["bgr"] else "bgr"
    return best if likeness[best] >= _ALIKE else None


def check_variation(net: VGG, white: White, *, head: bool) -> None:
    """Check that outputs vary from picture to picture as they should where pixels come in the range of the training.

    Args:
        net: the network, with its preprocessing folded in.
        white: the range that was assumed.
        head: whether it has a head; without one, pool5 is looked at.

    Raises:
        ValueError: they vary too little or too much, or it is in doubt; the message says which options to give.
    """
    variation, what = _variation(net, head=head)
    if white == 1 and variation < _DOUBTFUL:
        sure = "for pixels in 0..255, as converted from Caffe" if variation < _SMALL else "perhaps for pixels in 0..255"
        raise ValueError(
            f"{what} {significant(variation)} if pixels come in 0..1: it is {sure}, and nothing in it tells the order "
            "of channels. Say --white 255 --mean 103.939,116.779,123.68 --std 1,1,1 --channels bgr (or, for RGB, "
            "--mean 123.68,116.779,103.939 --channels rgb); if 0..1 is right, --white 1"
        )
    if white != 1 and variation > _LARGE:
        raise ValueError(
            f"{what} {significant(variation)} if pixels come in 0..255: it is for smaller ones. Say --white 1 --mean "
            "0,0,0 --std 1,1,1 --channels rgb if images were divided by 255; if 0..255 is right, --white 255"
        )


def _variation(net: VGG, *, head: bool) -> tuple[float, str]:
    """Return how much outputs vary over pictures, and the words that say so, to be followed by the number.

    Where there is batch normalisation, conv1_1 is compared with the variance that it had in training.
    """
    pictures = _pictures(net.architecture.crop)
    layer = "conv1_1" if net.architecture.batch_norm else "fc8" if head else "pool5"
    with torch.inference_mode():
        outputs = torch.cat([net.activations(picture[None], [layer])[layer] for picture in pictures]).double()
    if net.architecture.batch_norm:
        ratio = outputs.var(dim=(0, 2, 3)) / net.state_dict()["bn1_1.running_var"]
        return float(ratio.clamp(min=0).sqrt().median()), "the deviation of conv1_1, relative to that in training, is"
    deviations = outputs.flatten(1).std(dim=0)
    varying = deviations[deviations > 0]  # one of two classes may always have the score 0
    return float(varying.mean()) if len(varying) else 0.0, f"its {layer} varies from picture to picture by"


def _pictures(side: int) -> UInt8[Tensor, "8 3 H W"]:
    """Return pictures that differ as much as any: black, white and the colours between them, mixed with noise."""
    generator = torch.Generator().manual_seed(0)
    colours = torch.cartesian_prod(*[torch.tensor([0, 255])] * 3)[:, :, None, None]
    noise = torch.randint(256, (len(colours), 3, side, side), generator=generator)
    return ((colours + noise) // 2).to(torch.uint8)
