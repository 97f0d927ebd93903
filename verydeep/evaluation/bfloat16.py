"""Networks that are tested in bfloat16."""

from typing import Any, Self

import torch
from jaxtyping import Float, Num
from torch import Tensor

from verydeep.machine.runtime import autocast
from verydeep.networks.grids import DEFAULT_GRID, PoolingGrid
from verydeep.networks.vgg import VGG


class BFloat16Network:
    """A network that computes products in bfloat16, from weights that were rounded once: a `ScoringNetwork`.

    Sums within a layer, the mean that is subtracted, and the scores are float32, as in training.
    """

    def __init__(self, net: VGG) -> None:
        self.architecture, self.mean_rgb = net.architecture, net.mean_rgb
        matrices = {name for name, weight in net.named_parameters() if weight.ndim > 1}
        state = net.state_dict().items()
        self._net = net.with_weights(
            {name: weight.bfloat16() if name in matrices else weight for name, weight in state}
        ).eval()

    def forward(self, images: Num[Tensor, "B 3 crop crop"]) -> Float[Tensor, "B K"]:
        """Return logits [B, K] of crop-sized images [B, 3, crop, crop] in 0..255 (`VGG.forward`)."""
        with autocast(self.mean_rgb.device, bf16=True):
            return self._net(_channels_last(images)).float()

    __call__ = forward

    def score_map(
        self, images: Num[Tensor, "B 3 H W"], *, grid: PoolingGrid = DEFAULT_GRID
    ) -> Float[Tensor, "B K h w"]:
        """Return class scores over space, [B, K, h, w], of images [B, 3, H, W] in 0..255 (`VGG.score_map`)."""
        with autocast(self.mean_rgb.device, bf16=True):
            return self._net.score_map(_channels_last(images), grid=grid).float()

    def eval(self) -> Self:
        """Return itself, since it has no other mode."""
        return self

    def to(self, *_: Any, **__: Any) -> Self:
        """Return itself: it stays on the device of the network that it was made of."""
        return self


def _channels_last(images: Tensor) -> Tensor:
    return images.to(torch.float32, memory_format=torch.channels_last)
