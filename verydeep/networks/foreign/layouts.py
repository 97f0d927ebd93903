"""Whose layout weights are in, and in what range and order pixels go in: words that need no PyTorch."""

from typing import Literal

Layout = Literal["verydeep", "torchvision", "timm", "keras", "caffe", "matconvnet"]

ForeignLayout = Literal["torchvision", "timm"]
"""The layouts that weights can be written in."""

Channels = Literal["rgb", "bgr"]

White = Literal[1, 255]
"""What a white pixel is before the mean is subtracted."""

Triple = tuple[float, float, float]
"""A number for each channel."""
