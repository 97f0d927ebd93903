"""Preprocessing of images in other libraries, and how it moves into the weights and out of them.

torchvision, timm  RGB in 0..1, minus mean, divided by std.
Keras, Caffe       BGR in 0..255, minus mean.
MatConvNet         RGB in 0..255, minus mean.

All of them pad with zeros after the mean is subtracted, as this package does, so mean, order of channels and division
by std go into `mean_rgb` and the weights of conv1_1 without any loss but rounding.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float64
from torch import Tensor

from verydeep.networks.foreign.layouts import Channels, ForeignLayout, Layout, Triple, White
from verydeep.networks.vgg import ILSVRC_MEAN_RGB

_WHITE: White = 255
"""The largest pixel value, as images come."""


@dataclass(frozen=True, kw_only=True)
class Preprocessing:
    """(x * white / 255 - mean) / std of the pixels of an image, in the library's order of channels."""

    channels: Channels
    white: White
    mean: Triple
    std: Triple = (1.0, 1.0, 1.0)


_TORCH = Preprocessing(channels="rgb", white=1, mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))
OXFORD: dict[Channels, Preprocessing] = {
    "bgr": Preprocessing(channels="bgr", white=_WHITE, mean=ILSVRC_MEAN_RGB[::-1]),
    "rgb": Preprocessing(channels="rgb", white=_WHITE, mean=ILSVRC_MEAN_RGB),
}
"""For the Oxford group's weights, and with their channels turned."""
PREPROCESSING: dict[Layout, Preprocessing] = {
    "torchvision": _TORCH,
    "timm": _TORCH,
    "keras": OXFORD["bgr"],
    "caffe": OXFORD["bgr"],
    "matconvnet": OXFORD["rgb"],
    "numpy": OXFORD["bgr"],
    "onnx": _TORCH,
}
"""Preprocessing for the weights that each library publishes."""

TORCHVISION_FEATURES = Preprocessing(
    channels="rgb", white=1, mean=(0.48235, 0.45882, 0.40784), std=(1 / _WHITE, 1 / _WHITE, 1 / _WHITE)
)
"""For torchvision's VGG16_Weights.IMAGENET1K_FEATURES, which were trained elsewhere and have NaN for a classifier."""


def in_order(preprocessing: Preprocessing, channels: Channels) -> Preprocessing:
    """Return the same mean and std of each colour for a network that takes the colours in this order."""
    if channels == preprocessing.channels:
        return preprocessing
    return replace(preprocessing, channels=channels, mean=preprocessing.mean[::-1], std=preprocessing.std[::-1])


def fold(weights: Mapping[str, Tensor], preprocessing: Preprocessing) -> dict[str, Tensor]:
    """Return weights for RGB in 0..255, with `mean_rgb`, from weights for images preprocessed in another way.

    Exact up to the rounding of conv1_1's weights and of the mean to float32; where there is nothing to divide by,
    conv1_1 only changes the order of its channels.
    """
    turned = preprocessing.channels == "bgr"
    first = weights["conv1_1.weight"].double()
    mean = torch.tensor(preprocessing.mean, dtype=torch.float64) * _WHITE / preprocessing.white
    scaled = first * _factors(preprocessing)[:, None, None]
    return {
        **weights,
        "conv1_1.weight": (scaled.flip(1) if turned else scaled).float(),
        "mean_rgb": (mean.flip(0) if turned else mean).float(),
    }


def unfold(weights: Mapping[str, Tensor], layout: ForeignLayout) -> tuple[dict[str, Tensor], Preprocessing]:
    """Return weights for a library that divides by its std, and its preprocessing of images.

    The mean stays that of the weights: with zero padding no other mean can stand for it. Weights that `fold` made come
    back within one unit in the last place of conv1_1's, and all others to the bit.
    """
    red, green, blue = map(_shortest_fraction, weights["mean_rgb"].tolist())
    preprocessing = Preprocessing(channels="rgb", white=1, mean=(red, green, blue), std=PREPROCESSING[layout].std)
    first = weights["conv1_1.weight"].double() / _factors(preprocessing)[:, None, None]
    return {**weights, "conv1_1.weight": first.float()}, preprocessing


def _shortest_fraction(value: float) -> float:
    """Return the fraction of white with the fewest digits that becomes the same float32 again."""
    tried = (float(f"{value / _WHITE:.{digits}g}") for digits in range(1, 10))
    return next((part for part in tried if torch.tensor(part * _WHITE).item() == value), value / _WHITE)


def _factors(preprocessing: Preprocessing) -> Float64[Tensor, " 3"]:
    """Return the factor of the weights for each of the library's channels."""
    return preprocessing.white / _WHITE / torch.tensor(preprocessing.std, dtype=torch.float64)
