"""The network as a plain `nn.Module`: crops through Linear layers, larger images through the same weights."""

from collections.abc import Iterable, Mapping
from itertools import pairwise
from typing import Any, Protocol, Self

import torch
import torch.nn.functional as F
from jaxtyping import Float, Num
from torch import Tensor, nn

from verydeep.networks.architecture import DOWNSAMPLING, DROPOUT, Architecture, Layer
from verydeep.networks.convolution import Convolution
from verydeep.networks.grids import DEFAULT_GRID, PoolingGrid, first_pixel

_WINDOWS_AS_ROWS = 1024
"""Most windows of `pool5` that are multiplied as rows of a matrix; for more, a convolution makes no copies. Measured
on two cores, D at full width, milliseconds for rows and convolution: 8 windows 39 and 185 to 379, 300 windows 394 and
435 to 661, 1,156 windows 1,363 and 1,187 to 1,426."""

ILSVRC_MEAN_RGB = (123.68, 116.779, 103.939)
"""Mean RGB (0..255) of the ILSVRC training set, as published with the paper's own weights."""


class VGG(nn.Module):
    """A network whose submodules carry the paper's layer names (`net.conv3_2`, `net.fc6`).

    Images go in as they are, RGB in 0..255 (uint8 or float), because the mean is part of the network:
    its buffer `mean_rgb` travels with the weights. No layer works in place, so no activation is overwritten.
    """

    mean_rgb: Tensor
    fc6: nn.Linear
    fc7: nn.Linear
    fc8: nn.Linear

    def __init__(
        self,
        architecture: Architecture,
        *,
        dropout: float = DROPOUT,
        mean_rgb: tuple[float, float, float] = ILSVRC_MEAN_RGB,
    ) -> None:
        super().__init__()
        if not 0 <= dropout < 1:
            raise ValueError(f"dropout must be at least 0 and below 1, not {dropout}")
        self.architecture = architecture
        self.dropout = dropout
        self.register_buffer("mean_rgb", torch.tensor(mean_rgb, dtype=torch.float32))
        layers = architecture.layers()
        self.layer_names = tuple(layer.name for layer in layers)
        for layer in layers:
            self.add_module(layer.name, _module(layer, dropout))

    def with_weights(self, weights: Mapping[str, Tensor]) -> "VGG":
        """Return a network of the same architecture and dropout that holds these weights, a state dict."""
        net = vgg_without_weights(self.architecture, dropout=self.dropout)
        net.load_state_dict(dict(weights), assign=True)
        return net

    def forward(
        self, images: Tensor, keep: Mapping[str, Tensor] | None = None, *, first: str | None = None
    ) -> Float[Tensor, "B K"]:
        """Return logits [B, outputs] of crop-sized images [B, 3, crop, crop] in 0..255.

        `keep` chooses the activations that dropout keeps in training: {"drop6": [B, features] of true and false, ...}.
        Layers that it does not name drop at random. With `first` the input is that of this layer, [B, ...], instead of
        images.

        Raises:
            ValueError: another shape; larger images go to `score_map`.
        """
        last = self.layer_names[-1]
        if first is not None:
            return self._run(images, (last,), grid=None, first=first, keep=keep)[last]
        self._check_images(images, dense=False)
        return self._run(self._without_mean(images), (last,), grid=None, keep=keep)[last]

    def score_map(self, images: Tensor, *, grid: PoolingGrid = DEFAULT_GRID) -> Float[Tensor, "B K h w"]:
        """Return class scores over space, [B, outputs, h, w], of images [B, 3, H, W] in 0..255 (section 3.2).

        The fully connected layers act as convolutions with the same weights, so position (i, j) is the output of
        `forward`'s head for the window of `pool5` that starts there: h = H // 32 - crop // 32 + 1.
        At the crop size this is `forward` with two axes of length 1. The grid decides about the H mod 32 pixels
        that have no position of their own: `centred` leaves half of them at either side, `floor` all of them at the
        bottom and the right, `ceil` gives them one, h = ceil(H / 32) - crop // 32 + 1 (docs/DEVIATIONS.md).

        Raises:
            ValueError: not [B, 3, H, W], a side smaller than the crop, or another grid.
        """
        self._check_images(images, dense=True)
        last = self.layer_names[-1]
        return self._run(self._without_mean(images), (last,), grid=grid)[last]

    def head(self, pool5: Tensor, layer: str | None = None) -> Float[Tensor, "B K h w"]:
        """Return class scores over space, [B, outputs, h, w], of `pool5` [B, C, h', w'], as `score_map` does.

        With a `layer` after `pool5` its outputs are returned instead.

        Raises:
            ValueError: another number of channels, or fewer positions than `fc6` covers.
        """
        window = self.architecture.window
        channels = self.fc6.in_features // window**2
        if pool5.ndim != 4 or pool5.shape[1] != channels or min(pool5.shape[2:]) < window:
            raise ValueError(f"pool5 must be [B, {channels}, h, w] with sides from {window}, not {list(pool5.shape)}")
        last = layer or self.layer_names[-1]
        return self._run(pool5, (last,), grid="floor", first="fc6")[last]

    def activations(
        self, images: Tensor, names: Iterable[str], *, dense: bool = False, grid: PoolingGrid = DEFAULT_GRID
    ) -> dict[str, Tensor]:
        """Return named layers' outputs, computed in one pass that ends at the deepest of them.

        `conv3_2` is the value before the ReLU, `relu3_2` after it. Convolutional layers give
        [B, C, h, w] for images [B, 3, H, W] of any size from 32 pixels. Fully connected layers give [B, C] on
        crop-sized images. `dense=True` gives the layers of `score_map` instead, on the same grid:
        [B, C, h, w] for fully connected layers too, of images of the crop size or larger.

        Raises:
            ValueError: a name that this network does not have, or images too small for these layers.
        """
        wanted = tuple(dict.fromkeys(names))
        unknown = [name for name in wanted if name not in self.layer_names]
        if unknown or not wanted:
            asked = f"no layer {', '.join(map(repr, unknown))}" if unknown else "no layer asked for"
            raise ValueError(f"{asked}: this network has {', '.join(self.layer_names)}")
        first_linear = self.layer_names.index("fc6")
        if any(self.layer_names.index(name) >= first_linear for name in wanted):
            self._check_images(images, dense=dense)
        elif images.ndim != 4 or images.shape[1] != 3 or min(images.shape[2:]) < DOWNSAMPLING:
            raise ValueError(f"images must be [B, 3, H, W] with sides from {DOWNSAMPLING}, not {list(images.shape)}")
        return self._run(self._without_mean(images), wanted, grid=grid if dense else None)

    def _without_mean(self, images: Tensor) -> Tensor:
        return images.to(self.mean_rgb.dtype) - self.mean_rgb[:, None, None]

    def _check_images(self, images: Tensor, *, dense: bool) -> None:
        if images.ndim != 4 or images.shape[1] != 3:
            raise ValueError(f"images must be [B, 3, H, W], not {list(images.shape)}")
        (height, width), crop = images.shape[2:], self.architecture.crop
        if dense and min(height, width) < crop:
            raise ValueError(f"an image of {height} x {width} is smaller than the crop of {crop}: rescale it first")
        if not dense and (height, width) != (crop, crop):
            raise ValueError(
                f"images of {height} x {width} for a crop of {crop}: use score_map (or dense=True) for larger ones"
            )

    def _run(
        self,
        x: Tensor,
        wanted: tuple[str, ...],
        *,
        grid: PoolingGrid | None,
        first: str = "conv1_1",
        keep: Mapping[str, Tensor] | None = None,
    ) -> dict[str, Tensor]:
        """Return outputs of layers, by one pass from the layer `first`, whose input is `x`, to the deepest of them.

        With a grid the fully connected layers are applied at every position.
        """
        top, left = (first_pixel(side, grid) for side in x.shape[2:]) if grid else (0, 0)
        outputs: dict[str, Tensor] = {}
        names = self.layer_names[self.layer_names.index(first) :]
        for name in _pooling_first(names, wanted) if self.training else names:
            if name.startswith("pool"):
                # Each pooling takes one binary digit of the grid's offset, so no pixel is cut off before the network.
                x = x[:, :, top % 2 :, left % 2 :]
                top, left = top // 2, left // 2
            if keep and self.training and name in keep:
                x = _dropped(x, keep[name], self.dropout)
            else:
                x = _apply(getattr(self, name), x, grid)
            if name in wanted:
                outputs[name] = x
            if len(outputs) == len(wanted):
                break
        return {name: outputs[name] for name in wanted}


class LocalResponseNorm(nn.Module):
    """b = a / (k + alpha * sum of a^2 over n neighbouring channels)^beta, on [B, C, H, W].

    The window is cut off at the first and the last channel. PyTorch's and Caffe's layers divide alpha by n;
    Krizhevsky et al. (2012, section 3.3) do not. The sum over channels is a 1 x 1 convolution with a band of
    ones: on two CPU cores at [32, 16, 32, 32], forward and backward, 3.8 ms against 13.8 ms of
    `F.local_response_norm` (medians of 30 by `benchmarks/lrn.py`, PyTorch 2.13).
    """

    def __init__(self, *, n: int = 5, alpha: float = 1e-4, beta: float = 0.75, k: float = 2.0) -> None:
        super().__init__()
        self.n, self.alpha, self.beta, self.k = n, alpha, beta, k

    def forward(self, activations: Float[Tensor, "B C H W"]) -> Float[Tensor, "B C H W"]:
        """Return the normalised activations."""
        # Made of the activations, as many as there are: a new tensor would be traced with the device of the example.
        ones = torch.ones_like(activations[:0].sum((0, 2, 3)))
        band = ones.expand(len(ones), -1).triu(-(self.n // 2)).tril(self.n // 2)
        sums = F.conv2d(activations.square(), band[:, :, None, None])
        return activations * (self.k + self.alpha * sums).pow(-self.beta)

    def extra_repr(self) -> str:
        """Return the constants, for `print(net)`."""
        return f"n={self.n}, alpha={self.alpha}, beta={self.beta}, k={self.k}"


def vgg_without_weights(architecture: Architecture, *, dropout: float = DROPOUT) -> VGG:
    """Build a network without memory for its weights, for `load_state_dict(weights, assign=True)`."""
    with torch.device("meta"):
        return VGG(architecture, dropout=dropout)


def check_weights(net: VGG, weights: Mapping[str, Tensor]) -> None:
    """Check that weights are those of a network of this architecture.

    Raises:
        ValueError: they are of another one; the message names the first difference.
    """
    wanted = net.state_dict()
    odd = next((name for name in [*wanted, *weights] if _kind(wanted, name) != _kind(weights, name)), None)
    if odd is not None:
        found, ours = (_kind(state, odd) for state in (weights, wanted))
        raise ValueError(f"its weights are those of another network: {odd} is {found} in it, and {ours} in this one")


def _kind(state: Mapping[str, Tensor], name: str) -> str:
    return f"{state[name].dtype} {list(state[name].shape)}".removeprefix("torch.") if name in state else "missing"


def _module(layer: Layer, dropout: float) -> nn.Module:
    match layer.kind:
        case "conv":
            return Convolution(layer.inputs, layer.outputs, layer.kernel)
        case "batch_norm":
            return nn.BatchNorm2d(layer.outputs)
        case "relu":
            return nn.ReLU()
        case "lrn":
            return LocalResponseNorm()
        case "pool":
            return nn.MaxPool2d(layer.kernel, stride=layer.kernel)
        case "linear":
            return nn.Linear(layer.inputs * layer.kernel**2, layer.outputs)
        case "dropout":
            return nn.Dropout(dropout)


def _pooling_first(names: tuple[str, ...], wanted: tuple[str, ...]) -> tuple[str, ...]:
    """Move max pooling before the preceding ReLU unless the activations between them are requested.

    The numbers and the gradients are the same, and the ReLU has a quarter of the work.
    """
    order = list(names)
    for place, (name, following) in enumerate(pairwise(names)):
        if name.startswith("relu") and following.startswith("pool") and not {name, following} & set(wanted):
            order[place : place + 2] = following, name
    return tuple(order)


def _dropped(x: Tensor, keep: Tensor, dropout: float) -> Tensor:
    return x * (keep.to(x.dtype) / (1 - dropout))


def _apply(layer: nn.Module, x: Tensor, grid: PoolingGrid | None) -> Tensor:
    if isinstance(layer, nn.MaxPool2d) and grid == "ceil":
        return F.max_pool2d(x, layer.kernel_size, layer.stride, ceil_mode=True)
    if not isinstance(layer, nn.Linear):
        return layer(x)
    return _at_every_position(layer, x) if grid else layer(x.flatten(1))


def _at_every_position(layer: nn.Linear, x: Tensor) -> Tensor:
    """Apply a fully connected layer to all windows of a map [B, C, h, w] that it covers."""
    channels = x.shape[1]
    window = round((layer.in_features / channels) ** 0.5)
    windows = x.unfold(2, window, 1).unfold(3, window, 1)
    if windows[:, 0, :, :, 0, 0].numel() > _WINDOWS_AS_ROWS:
        return F.conv2d(x, layer.weight.view(layer.out_features, channels, window, window), layer.bias)
    return layer(windows.permute(0, 2, 3, 1, 4, 5).flatten(3)).permute(0, 3, 1, 2)


class ScoringNetwork(Protocol):
    """A network that scores classes: a `VGG`, or an exported one in a runtime of its own."""

    @property
    def architecture(self) -> Architecture:
        """All that it is built from except its weights."""

    @property
    def mean_rgb(self) -> Float[Tensor, "3"]:
        """Mean RGB (0..255) that is subtracted inside; it is on the device of the network."""

    def __call__(self, images: Num[Tensor, "B 3 crop crop"]) -> Float[Tensor, "B K"]:
        """Return logits [B, classes] of crop-sized images [B, 3, crop, crop] in 0..255."""

    def score_map(
        self, images: Num[Tensor, "B 3 H W"], *, grid: PoolingGrid = DEFAULT_GRID
    ) -> Float[Tensor, "B K h w"]:
        """Return class scores over space, [B, classes, h, w], of images [B, 3, H, W] in 0..255."""

    def eval(self) -> Self:
        """Put it into its testing mode."""

    def to(self, *args: Any, **kwargs: Any) -> Self:
        """Move it to a device, as `nn.Module.to` does."""


class LayeredNetwork(ScoringNetwork, Protocol):
    """A network whose layers can be had too."""

    @property
    def layer_names(self) -> tuple[str, ...]:
        """Names by the paper of the layers that can be had, in order."""

    def activations(self, images: Tensor, names: Iterable[str], *, dense: bool = False) -> dict[str, Tensor]:
        """Return named layers' outputs, of crops, or with `dense` of images [B, 3, H, W] of the crop size or larger."""
