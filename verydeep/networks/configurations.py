"""Table 1 of the paper as data, and the list of layers that each of its columns stands for.

Nothing here needs PyTorch: `vgg.py` builds modules from these layers, `arithmetic.py` counts them.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

PAPER_CROP = 224
"""Side of the paper's input in pixels; its scales S and Q are stated for this crop."""

ILSVRC_CLASSES = 1000

DOWNSAMPLING = 32
"""Five 2 x 2 poolings: one position of `pool5` stands for 32 x 32 pixels."""

STAGE_CHANNELS = (64, 128, 256, 512, 512)
FC_CHANNELS = 4096

InitialisationScheme = Literal["glorot", "paper"]
"""How weights are drawn at random; `networks.initialisation` tells what each means."""

LayerKind = Literal["conv", "batch_norm", "relu", "lrn", "pool", "linear", "dropout"]


@dataclass(frozen=True, kw_only=True)
class Configuration:
    """A column of Table 1: the kernel sizes of the convolutions of each of the five stages."""

    name: str
    kernels: tuple[tuple[int, ...], ...]
    lrn: bool = False
    """Local response normalisation after the first convolution (A-LRN)."""


CONFIGURATIONS: dict[str, Configuration] = {
    configuration.name: configuration
    for configuration in (
        Configuration(name="A", kernels=((3,), (3,), (3, 3), (3, 3), (3, 3))),
        Configuration(name="A-LRN", kernels=((3,), (3,), (3, 3), (3, 3), (3, 3)), lrn=True),
        Configuration(name="B", kernels=((3, 3), (3, 3), (3, 3), (3, 3), (3, 3))),
        Configuration(name="B-5x5", kernels=((5,), (5,), (5,), (5,), (5,))),
        Configuration(name="C", kernels=((3, 3), (3, 3), (3, 3, 1), (3, 3, 1), (3, 3, 1))),
        Configuration(name="D", kernels=((3, 3), (3, 3), (3, 3, 3), (3, 3, 3), (3, 3, 3))),
        Configuration(name="E", kernels=((3, 3), (3, 3), (3, 3, 3, 3), (3, 3, 3, 3), (3, 3, 3, 3))),
    )
}
"""Table 1, and B-5x5: the net of section 2.3 in which each pair of 3 x 3 layers is one 5 x 5 layer."""

_COMMON_NAMES = {"vgg11": "A", "vgg13": "B", "vgg16": "D", "vgg19": "E"}


@dataclass(frozen=True, kw_only=True)
class Layer:
    """One layer, named as in the paper: `conv3_2`, `relu3_2`, `pool3`, `fc6`, `relu6`, `drop6`, `fc8`."""

    name: str
    kind: LayerKind
    inputs: int
    """Channels (features, for `fc7` and `fc8`) that come in."""
    outputs: int
    kernel: int = 1
    """Side of the window; for `fc6` the side of the `pool5` map that it covers."""

    @property
    def weight_count(self) -> int:
        """Weights without biases: kernel^2 x inputs x outputs; 0 for a layer that has none."""
        return self.kernel**2 * self.inputs * self.outputs if self.kind in ("conv", "linear") else 0


def configuration(name: str) -> Configuration:
    """The column of Table 1 called `name` (`A`, `A-LRN`, `B`, `B-5x5`, `C`, `D`, `E`; case does not matter).

    Raises:
        ValueError: no such network; the message lists those there are.
    """
    for known, found in CONFIGURATIONS.items():
        if known.casefold() == name.casefold():
            return found
    hint = _COMMON_NAMES.get(name.casefold().removesuffix("_bn"))
    suggestion = f"the paper calls it {hint}" if hint else f"choose one of {', '.join(CONFIGURATIONS)}"
    raise ValueError(f"unknown network {name!r}: {suggestion}")


def check_crop(crop: int) -> int:
    """`crop`, if `fc6` can be built for it.

    Raises:
        ValueError: `crop` (pixels) is not a positive multiple of 32.
    """
    if crop < DOWNSAMPLING or crop % DOWNSAMPLING:
        nearest = max(DOWNSAMPLING, round(crop / DOWNSAMPLING) * DOWNSAMPLING)
        raise ValueError(f"crop {crop} is not a multiple of {DOWNSAMPLING} (five poolings halve it): try {nearest}")
    return crop


def layers(
    configuration: Configuration, *, classes: int, crop: int, width: float = 1.0, batch_norm: bool = False
) -> tuple[Layer, ...]:
    """Every layer of a network, in order, from `conv1_1` to `fc8`.

    `width` scales the channels of all hidden layers, convolutional and fully connected; `batch_norm` puts a
    normalisation between each convolution and its ReLU (not in the paper).

    Raises:
        ValueError: `crop` is not a multiple of 32, `classes` is below 2, or `width` is not positive.
    """
    check_crop(crop)
    if classes < 2:
        raise ValueError(f"a network needs at least 2 classes to tell apart, not {classes}")
    if not 0 < width < math.inf:
        raise ValueError(f"width must be a positive number, not {width}")
    stage_channels = tuple(_scaled(channels, width) for channels in STAGE_CHANNELS)
    convolutional = tuple(_convolutional_layers(configuration, stage_channels, batch_norm))
    return convolutional + _fully_connected_layers(
        stage_channels[-1], _scaled(FC_CHANNELS, width), classes, crop // DOWNSAMPLING
    )


def _scaled(channels: int, width: float) -> int:
    return max(1, round(channels * width))


def _convolutional_layers(
    configuration: Configuration, stage_channels: tuple[int, ...], batch_norm: bool
) -> Iterator[Layer]:
    inputs = 3
    for stage, (kernels, outputs) in enumerate(zip(configuration.kernels, stage_channels, strict=True), 1):
        for position, kernel in enumerate(kernels, 1):
            place = f"{stage}_{position}"
            yield Layer(name=f"conv{place}", kind="conv", inputs=inputs, outputs=outputs, kernel=kernel)
            if batch_norm:
                yield Layer(name=f"bn{place}", kind="batch_norm", inputs=outputs, outputs=outputs)
            yield Layer(name=f"relu{place}", kind="relu", inputs=outputs, outputs=outputs)
            inputs = outputs
        if configuration.lrn and stage == 1:
            yield Layer(name="lrn1", kind="lrn", inputs=outputs, outputs=outputs)
        yield Layer(name=f"pool{stage}", kind="pool", inputs=outputs, outputs=outputs, kernel=2)


def _fully_connected_layers(inputs: int, hidden: int, classes: int, window: int) -> tuple[Layer, ...]:
    return (
        Layer(name="fc6", kind="linear", inputs=inputs, outputs=hidden, kernel=window),
        Layer(name="relu6", kind="relu", inputs=hidden, outputs=hidden),
        Layer(name="drop6", kind="dropout", inputs=hidden, outputs=hidden),
        Layer(name="fc7", kind="linear", inputs=hidden, outputs=hidden),
        Layer(name="relu7", kind="relu", inputs=hidden, outputs=hidden),
        Layer(name="drop7", kind="dropout", inputs=hidden, outputs=hidden),
        Layer(name="fc8", kind="linear", inputs=hidden, outputs=classes),
    )
