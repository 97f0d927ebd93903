"""Layouts of weights, and the range and order in which pixels go in: words that need no PyTorch."""

from typing import Literal

Layout = Literal["verydeep", "torchvision", "timm", "keras", "caffe", "matconvnet"]

ForeignLayout = Literal["torchvision", "timm"]
"""The layouts that weights can be written in."""

Channels = Literal["rgb", "bgr"]

White = Literal[1, 255]
"""Value of a white pixel before the mean is subtracted."""

Triple = tuple[float, float, float]
"""A number for each channel."""
