"""Every number of the paper's recipe (sections 3.1 and 2), once."""

from dataclasses import dataclass
from typing import get_args

from verydeep.networks.configurations import PAPER_CROP, InitialisationScheme, check_crop

SEED_LIMIT = 2**63


def scale_in_pixels(scale: int, crop: int) -> int:
    """S or Q as the paper states it, for a crop of 224, in pixels for another crop: 256 is 37 at crop 32."""
    return round(scale * crop / PAPER_CROP)


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """How a network is trained; the defaults are the paper's.

    Raises:
        ValueError: a value that cannot be; the message says which ones can.
    """

    crop: int = PAPER_CROP
    """Side of the input in pixels, a multiple of 32."""

    scale: str = "256"
    """S for a crop of 224: `256`, `384`, or `256:512` to draw it anew for each image; scales with the crop."""

    flip: bool = True
    """Show half of the images mirrored, and average over the mirror in testing."""

    colour_sd: float = 0.1
    """Standard deviation of the colour shift, in units of the eigenvalues."""

    width: float = 1.0
    """Factor on the channels of every hidden layer."""

    batch_norm: bool = False
    """Normalise between each convolution and its ReLU (not in the paper)."""

    dropout: float = 0.5
    """Share of fc6 and fc7 activations zeroed."""

    init: str = "glorot"
    """First weights: `glorot`, `paper` (normal, sd 0.01), or a RUN to copy the paper's layers from."""

    init_rest: InitialisationScheme | None = None
    """With a RUN as init: how the layers that are not copied are drawn (glorot if not said)."""

    batch: int = 256
    """Images per step."""

    learning_rate: float = 1e-2
    """At the start."""

    momentum: float = 0.9
    """Of stochastic gradient descent."""

    weight_decay: float = 5e-4
    """L2 multiplier, on all weights and biases."""

    epochs: int = 74
    """At most; 74 epochs are the paper's 370K steps."""

    drops: int = 3
    """How often the learning rate is divided by 10 when the validation error stops improving."""

    patience: int = 5
    """Epochs without a new best validation error after which it has stopped improving."""

    seed: int = 0
    """Of weights, order, crops, flips, colours and dropout."""

    def __post_init__(self) -> None:
        """Refuses what cannot be."""
        check_crop(self.crop)
        self.scale_range()
        for name, least in {"batch": 1, "epochs": 1, "drops": 0, "patience": 1, "seed": 0}.items():
            if getattr(self, name) < least:
                raise ValueError(f"{name} must be {least} or more, not {getattr(self, name)}")
        for name in ("colour_sd", "weight_decay"):
            if not getattr(self, name) >= 0:
                raise ValueError(f"{name} must be 0 or more, not {getattr(self, name)}")
        for name in ("learning_rate", "width"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} must be above 0, not {getattr(self, name)}")
        for name in ("momentum", "dropout"):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 0 and below 1, not {getattr(self, name)}")
        if self.seed >= SEED_LIMIT:
            raise ValueError(f"seed must be below {SEED_LIMIT}, not {self.seed}")
        if self.init_rest is not None and not self.starts_from_run():
            raise ValueError(f"init_rest only goes with a RUN to copy from: with init {self.init} nothing is copied")

    def starts_from_run(self) -> bool:
        """Whether `init` names a run to copy layers from."""
        return self.init not in get_args(InitialisationScheme)

    def scale_range(self) -> tuple[int, int]:
        """Smallest and largest S, for a crop of 224; equal for a fixed S."""
        low, _, high = self.scale.partition(":")
        try:
            limits = int(low), int(high or low)
        except ValueError:
            raise ValueError(f"scale is a number such as 256 or a range such as 256:512, not {self.scale!r}") from None
        if not PAPER_CROP <= limits[0] <= limits[1]:
            raise ValueError(f"scale {self.scale}: S goes from {PAPER_CROP} up, the smaller one first")
        return limits

    def middle_scale(self) -> int:
        """S, or the middle of its range: the paper's single test scale, for a crop of 224."""
        low, high = self.scale_range()
        return (low + high) // 2
