"""Layouts of weights, and the range and order in which pixels go in: words that need no PyTorch."""

from dataclasses import dataclass
from typing import Literal

from verydeep.networks.architecture import DOWNSAMPLING

Layout = Literal["verydeep", "torchvision", "timm", "keras", "caffe", "matconvnet", "numpy", "onnx"]

ForeignLayout = Literal["torchvision", "timm"]
"""The layouts that weights can be written in."""

Channels = Literal["rgb", "bgr"]

White = Literal[1, 255]
"""Value of a white pixel before the mean is subtracted."""

Triple = tuple[float, float, float]
"""A number for each channel."""


@dataclass(frozen=True, kw_only=True)
class TrainedPreprocessing:
    """Preprocessing that weights were trained with; None stands for the values that their library publishes."""

    mean: Triple | None = None
    """Three numbers that are subtracted, such as 0.485,0.456,0.406, in the library's order of channels and range."""

    std: Triple | None = None
    """Three numbers to divide by, such as 1/255,1/255,1/255."""

    channels: Channels | None = None
    """Order of the channels that the network takes; the library's mean and std are put into it."""

    white: White | None = None
    """Value of a white pixel, the range that mean and std are in."""


@dataclass(frozen=True, kw_only=True)
class TakenWeights:
    """The part of a file of weights that is read."""

    convolutions_only: bool = False
    """Leave out the fully connected layers, for --finetune, features and transfer."""

    crop: int | None = None
    """Side of the images that it was trained on, in pixels, for heads that fit several sizes."""

    ema: bool = False
    """Take the averaged weights (EMA) of a file that holds both."""

    def __post_init__(self) -> None:
        """Refuse with a ValueError a crop in which the network has no position."""
        if self.crop is not None and self.crop < DOWNSAMPLING:
            raise ValueError(f"crop must be {DOWNSAMPLING} pixels or more, not {self.crop}")
