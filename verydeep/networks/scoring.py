"""What tests and predictions ask of a network, whatever computes it."""

from typing import Any, Protocol, Self

from torch import Tensor

from verydeep.networks.architecture import Architecture


class ScoringNetwork(Protocol):
    """A network that scores classes: a `VGG`, or an exported one in a runtime of its own."""

    @property
    def architecture(self) -> Architecture:
        """What it is built from."""

    @property
    def mean_rgb(self) -> Tensor:
        """Mean RGB (0..255), [3], that is subtracted inside; it tells the device."""

    def __call__(self, images: Tensor) -> Tensor:
        """Return logits [B, classes] of crop-sized images [B, 3, crop, crop] in 0..255."""

    def score_map(self, images: Tensor) -> Tensor:
        """Return class scores over space, [B, classes, h, w], of images [B, 3, H, W] in 0..255."""

    def eval(self) -> Self:
        """Put it into its testing mode."""

    def to(self, *args: Any, **kwargs: Any) -> Self:
        """Move it to a device, as `nn.Module.to` does."""
