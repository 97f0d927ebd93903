"""The paper's trainings as data: which networks, at which S, and what each starts from."""

from collections.abc import Collection
from dataclasses import dataclass, replace

from verydeep.images.sources.default import DIGITS
from verydeep.networks.architecture import InitialisationScheme
from verydeep.training.recipe import Recipe

JITTER = "256:512"

SCALES = ("256", "384", JITTER)
"""S, in the order in which a network is trained at them."""


@dataclass(frozen=True, kw_only=True)
class GridTraining:
    """One network trained at one S."""

    network: str
    scale: str
    """S: `256`, `384` or `256:512`."""
    init: str | None = None
    """Training whose layers it starts with, by the paper's rule; None: random weights."""
    finetune: str | None = None
    """Training of the same network that it continues."""
    scheme: InitialisationScheme | None = None
    """How its weights are random, also where the paper's network starts from A; None: as the recipe says."""
    one_in: int = 1
    """Divisor of the number of training images, and factor on the number of epochs."""

    @property
    def name(self) -> str:
        """`D-384`; also the name of its folder."""
        part = f"1-in-{self.one_in}" if self.one_in > 1 else None
        return "-".join(filter(None, (self.network, self.scale.replace(":", "-"), self.scheme, part)))

    @property
    def start(self) -> str | None:
        """The training that has to come before."""
        return self.init or self.finetune

    @property
    def unseeded(self) -> bool:
        """Whether it has random weights where the paper's network starts from A."""
        return self.scheme is not None

    @property
    def label(self) -> str:
        """`D`; `D (Glorot)` if it does not start from A as the paper's does."""
        return f"{self.network} ({self.scheme.capitalize()})" if self.scheme else self.network


TRAININGS = (
    GridTraining(network="A", scale="256"),
    GridTraining(network="A-LRN", scale="256"),
    GridTraining(network="B", scale="256", init="A-256"),
    GridTraining(network="B-5x5", scale="256"),
    *(GridTraining(network=network, scale="256", init="A-256") for network in "CDE"),
    *(GridTraining(network=network, scale="256", scheme="glorot") for network in "BD"),
    *(GridTraining(network=network, scale="384", finetune=f"{network}-256") for network in "CDE"),
    *(GridTraining(network=network, scale=JITTER, finetune=f"{network}-384") for network in "CDE"),
)
"""Every training of the paper, each after the one it starts from. D from random weights is for the paper's later
finding that Glorot's initialisation needs no copying; B from random weights is there to be compared with B-5x5, which
cannot start from A."""

TRAININGS_BY_NAME = {training.name: training for training in TRAININGS}

QUICK = tuple(training.name for training in TRAININGS if training.scale == "256" and not training.unseeded)
"""Every network once."""

QUICK_RECIPE = Recipe(crop=32, width=0.25, batch=32, learning_rate=2.5e-3, epochs=14, schedule="cosine")
"""The recipe scaled down to minutes on two cores; whatever is not named here is the paper's. In so few epochs only a
planned schedule ends for every network."""

TWO_BEST = ("D", "E")
"""Networks of Tables 5 and 6."""

SEVEN = ("D-256", "D-384", "D-256-512", "C-256", "C-384", "E-256", "E-384")
"""Trainings fused in Table 6: the submission to ILSVRC-2014. Its D of S in [256;512] was fine-tuned in its fully
connected layers only; the one here, as in the paper's other tables, in all layers."""


def quick_recipe(source: str) -> Recipe:
    """Return the quick recipe for a source: digits are not mirrored, since the mirror image of a digit is not one."""
    return replace(QUICK_RECIPE, flip=source != DIGITS)


def last_stages(names: Collection[str]) -> tuple[str, ...]:
    """Return the last training of D and of E among `names`: in the paper the jittered one."""
    stages = ([GridTraining(network=network, scale=scale).name for scale in reversed(SCALES)] for network in TWO_BEST)
    return tuple(last for its in stages if (last := next((name for name in its if name in names), None)))
