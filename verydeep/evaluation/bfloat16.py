"""Networks that are tested in bfloat16."""

from collections.abc import Iterable
from dataclasses import replace
from typing import Any, Self

import torch.nn.functional as F
from jaxtyping import Float, Num
from torch import Tensor

from verydeep.machine.runtime import autocast
from verydeep.networks.grids import DEFAULT_GRID, PoolingGrid
from verydeep.networks.vgg import VGG, ScoringNetwork
from verydeep.runs.model import Model

_LAST, _BEFORE = "fc8", "relu7"


class BFloat16Network:
    """A network whose products are computed in bfloat16, from weights that were rounded once: a `ScoringNetwork`.

    The mean that is subtracted, sums within a layer, and all of fc8 are float32: scores in bfloat16, which has eight
    binary digits, would tie.
    """

    def __init__(self, net: VGG) -> None:
        self.architecture, self.mean_rgb = net.architecture, net.mean_rgb
        parameters = net.named_parameters()
        rounded = {name for name, one in parameters if one.ndim > 1 and not name.startswith(_LAST)}
        state = net.state_dict().items()
        self._net = net.with_weights(
            {name: weight.bfloat16() if name in rounded else weight for name, weight in state}
        ).eval()

    def forward(self, images: Num[Tensor, "B 3 crop crop"]) -> Float[Tensor, "B K"]:
        """Return logits [B, K] of crop-sized images [B, 3, crop, crop] in 0..255 (`VGG.forward`)."""
        with autocast(self.mean_rgb.device, bf16=True):
            relu7 = self._net.activations(images, [_BEFORE])[_BEFORE]
        return self._scores(relu7)

    __call__ = forward

    def score_map(
        self, images: Num[Tensor, "B 3 H W"], *, grid: PoolingGrid = DEFAULT_GRID
    ) -> Float[Tensor, "B K h w"]:
        """Return class scores over space, [B, K, h, w], of images [B, 3, H, W] in 0..255 (`VGG.score_map`)."""
        return self.head(self.activations(images, ["pool5"], dense=True, grid=grid)["pool5"])

    def activations(
        self,
        images: Num[Tensor, "B 3 H W"],
        names: Iterable[str],
        *,
        dense: bool = False,
        grid: PoolingGrid = DEFAULT_GRID,
    ) -> dict[str, Tensor]:
        """Return layers' outputs before fc8, in bfloat16 (`VGG.activations`)."""
        with autocast(self.mean_rgb.device, bf16=True):
            return self._net.activations(images, names, dense=dense, grid=grid)

    def head(self, pool5: Float[Tensor, "B C h w"]) -> Float[Tensor, "B K h w"]:
        """Return class scores over space of `pool5` (`VGG.head`)."""
        with autocast(self.mean_rgb.device, bf16=True):
            relu7 = self._net.head(pool5, _BEFORE)
        return self._scores(relu7)

    def _scores(self, relu7: Tensor) -> Tensor:
        fc8 = self._net.fc8
        return F.linear(relu7.float().movedim(1, -1), fc8.weight, fc8.bias).movedim(-1, 1)

    def eval(self) -> Self:
        """Return itself, since it has no other mode."""
        return self

    def to(self, *_: Any, **__: Any) -> Self:
        """Return itself: it stays on the device of the network that it was made of."""
        return self


def in_bfloat16(model: Model[ScoringNetwork]) -> Model[ScoringNetwork]:
    """Return a model with its network in bfloat16.

    Raises:
        ValueError: it is not a `VGG`, but that of an exported file.
    """
    net = model.net
    if not isinstance(net, VGG):
        raise ValueError("an exported file has a precision of its own")
    return replace(model, net=BFloat16Network(net))
