"""Table 1 of the paper as data (needs no PyTorch)."""

from dataclasses import dataclass
from typing import Literal

PAPER_CROP = 224
"""Side of the paper's input in pixels; its scales S and Q are stated for this crop."""

ILSVRC_CLASSES = 1000

DOWNSAMPLING = 32
"""Five 2 x 2 poolings: one position of `pool5` stands for 32 x 32 pixels."""

STAGE_CHANNELS = (64, 128, 256, 512, 512)
FC_CHANNELS = 4096

DROPOUT = 0.5
"""Share of the activations of `fc6` and `fc7` that is zeroed in training (section 3.1)."""

InitialisationScheme = Literal["glorot", "paper"]
"""How weights are initialised at random; `networks.initialisation` says what each means."""


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


def configuration(name: str) -> Configuration:
    """Return the column of Table 1 called `name` (`A`, `A-LRN`, `B`, `B-5x5`, `C`, `D`, `E`; case does not matter).

    Raises:
        ValueError: there is no such network; the message lists those there are.
    """
    for known, column in CONFIGURATIONS.items():
        if known.casefold() == name.casefold():
            return column
    hint = _COMMON_NAMES.get(name.casefold().removesuffix("_bn"))
    suggestion = f"the paper calls it {hint}" if hint else f"choose one of {', '.join(CONFIGURATIONS)}"
    raise ValueError(f"unknown network {name!r}: {suggestion}")


def check_crop(crop: int) -> None:
    """Check that `fc6` can be built for a crop, in pixels.

    Raises:
        ValueError: it is not a positive multiple of 32.
    """
    if crop < DOWNSAMPLING or crop % DOWNSAMPLING:
        nearest = max(DOWNSAMPLING, round(crop / DOWNSAMPLING) * DOWNSAMPLING)
        raise ValueError(f"crop {crop} is not a multiple of {DOWNSAMPLING} (five poolings halve it): try {nearest}")
