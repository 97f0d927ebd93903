"""First weights of a network: random ones, and those copied from a trained network."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import get_args

import torch
from torch import nn

from verydeep.networks.architecture import DROPOUT, ILSVRC_CLASSES, PAPER_CROP, Architecture, InitialisationScheme
from verydeep.networks.vgg import ILSVRC_MEAN_RGB, VGG

STANDARD_DEVIATIONS: dict[InitialisationScheme, float] = {"paper": 0.01, "paper-variance": 0.1}
"""Section 3.1 prints 'variance 1e-2', a standard deviation of 0.1; the usual practice is one of 0.01."""

_SEEDING_CONVOLUTIONS = 4
"""Section 3.1: the first four convolutional layers and the fully connected ones come from trained A."""


@dataclass(frozen=True, kw_only=True)
class Initialisation:
    """Which layers with weights were copied from a trained network, and which initialised at random."""

    scheme: InitialisationScheme
    copied: tuple[str, ...]
    random: tuple[str, ...]

    def __str__(self) -> str:
        named = (("copied", self.copied), (f"{self.scheme} initialisation", self.random))
        return "; ".join(f"{how}: {', '.join(layers)}" for how, layers in named if layers)


def vgg(
    name: str,
    classes: int = ILSVRC_CLASSES,
    crop: int = PAPER_CROP,
    batch_norm: bool = Architecture.batch_norm,
    width: float = Architecture.width,
    dropout: float = DROPOUT,
    *,
    mean_rgb: tuple[float, float, float] = ILSVRC_MEAN_RGB,
) -> VGG:
    """Build a network of the paper with random weights (Glorot).

    Args:
        name: column of Table 1, `A`, `A-LRN`, `B`, `C`, `D`, `E`, or `B-5x5`.
        classes: number of outputs of `fc8`.
        crop: side of the input in pixels, a multiple of 32; `fc6` covers crop/32 x crop/32 of `pool5`.
        batch_norm: normalise between each convolution and its ReLU (not in the paper).
        width: factor on the channels of every hidden layer.
        dropout: share of `fc6` and `fc7` activations zeroed in training.
        mean_rgb: mean of the training pixels (0..255), subtracted inside the network.

    Raises:
        ValueError: unknown name, unusable crop, classes, width or dropout.
    """
    architecture = Architecture(network=name, classes=classes, crop=crop, width=width, batch_norm=batch_norm)
    net = VGG(architecture, dropout=dropout, mean_rgb=mean_rgb)
    initialise(net, "glorot")
    return net


@torch.no_grad()
def initialise(
    net: VGG,
    scheme: InitialisationScheme = "glorot",
    *,
    seed_from: VGG | None = None,
    layers: Sequence[str] | None = None,
    generator: torch.Generator | None = None,
) -> Initialisation:
    """Set every weight of `net`; return which layers were copied and which are random.

    Weights of convolutional and fully connected layers:

    - `glorot`: uniform in +-sqrt(6 / (fan_in + fan_out)); Glorot and Bengio 2010, equation 16.
    - `paper`: normal, mean 0, standard deviation 0.01; section 3.1, as practised.
    - `paper-variance`: normal, mean 0, variance 0.01; section 3.1, as printed.

    Biases are 0. Batch normalisations start as the identity with empty statistics. With `seed_from`, the
    paper's rule applies on top: the first four convolutional layers of that network and its three fully
    connected ones are copied by name (with their batch normalisations), the rest stays random. `layers` names other
    layers to copy instead.

    Raises:
        ValueError: unknown scheme, or a layer to copy that either network lacks or that differs in shape; then
            nothing has changed.
    """
    if scheme not in get_args(InitialisationScheme):
        raise ValueError(f"unknown initialisation {scheme!r}: choose {', '.join(get_args(InitialisationScheme))}")
    copied: tuple[str, ...] = ()
    if seed_from is not None:
        copied = _fitting(net, seed_from, _seeding_layers(seed_from) if layers is None else layers)
    for module in net.modules():
        if isinstance(module, (nn.Conv2d, nn.Linear)):
            if scheme == "glorot":
                nn.init.xavier_uniform_(module.weight, generator=generator)
            else:
                nn.init.normal_(module.weight, std=STANDARD_DEVIATIONS[scheme], generator=generator)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
        elif isinstance(module, nn.BatchNorm2d):
            module.reset_parameters()
    if seed_from is not None:
        for name in copied:
            net.get_submodule(name).load_state_dict(seed_from.get_submodule(name).state_dict())
    random = tuple(name for name in layers_with_weights(net) if name not in copied)
    return Initialisation(scheme=scheme, copied=copied, random=random)


def layers_with_weights(net: VGG) -> tuple[str, ...]:
    """Return the names of the layers that have weights, in order."""
    return tuple(name for name in net.layer_names if net.get_submodule(name).state_dict())


def _seeding_layers(seed: VGG) -> tuple[str, ...]:
    """Return the layers of a trained network that the paper's rule copies into a deeper one (section 3.1)."""
    numbers = [name.removeprefix("conv") for name in seed.layer_names if name.startswith("conv")]
    chosen = {f"{kind}{number}" for number in numbers[:_SEEDING_CONVOLUTIONS] for kind in ("conv", "bn")}
    return tuple(name for name in layers_with_weights(seed) if name in chosen or name.startswith("fc"))


def _fitting(net: VGG, seed: VGG, layers: Sequence[str]) -> tuple[str, ...]:
    """Return `layers`, or raise a ValueError that names those that do not fit."""
    misfits = [misfit for name in layers if (misfit := _misfit(name, net, seed))]
    if net.architecture.batch_norm != seed.architecture.batch_norm:
        misfits.append("only one of the two has batch normalisation")
    if misfits:
        raise ValueError(
            f"cannot seed {net.architecture.network} from this {seed.architecture.network}: {'; '.join(misfits)}"
        )
    return tuple(layers)


def _misfit(name: str, net: VGG, seed: VGG) -> str | None:
    for either in (net, seed):
        if name not in layers_with_weights(either):
            return f"{name} is missing in {either.architecture.network}"
    there = list(seed.get_submodule(name).state_dict()["weight"].shape)
    here = list(net.get_submodule(name).state_dict()["weight"].shape)
    return None if here == there else f"{name} is {there} there and {here} here"
