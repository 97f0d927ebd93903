"""The paper's recipe (sections 3.1 and 2): every number of it, once; and the learning rate that follows from it."""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import reduce
from typing import Any, Literal, get_args

from verydeep.machine.documents import converted
from verydeep.networks.architecture import (
    CONFIGURATIONS,
    DROPOUT,
    PAPER_CROP,
    Architecture,
    InitialisationScheme,
    check_crop,
    configuration,
)
from verydeep.networks.scales import scale_in_pixels, scale_range
from verydeep.numbers import number
from verydeep.runs.files import RECORD

_SEED_LIMIT = 2**63

_MOST_IN_BATCH = 10**6
"""Images of a step."""

_FACTOR = 10
"""Divisor of the learning rate at each drop (section 3.1)."""

LEARNING_RATE = 1e-2
"""Learning rate at the start, from random weights or from A's (section 3.1)."""

FINETUNING_RATE = LEARNING_RATE / _FACTOR
"""Learning rate at the start, from the weights of the same network (section 3.1, S = 384 after S = 256)."""

Schedule = Literal["plateau", "step", "cosine"]

Trainable = Literal["fc8", "fc", "conv5", "conv4", "conv3", "conv2", "all"]
"""From where on layers learn: the last one, the three fully connected ones, those and the fifth stage, ..., all."""


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """The recipe that a network is trained with; the defaults are the paper's.

    Raises:
        ValueError: an impossible value; the message says which ones are possible.
    """

    crop: int = PAPER_CROP
    """Side of the input in pixels, a multiple of 32."""

    scale: str = "256"
    """S for a crop of 224: `256`, `384`, or `256:512` to sample it for each image; scales with the crop."""

    flip: bool = True
    """Mirror half of the images, and average over the mirror image in testing."""

    colour_sd: float = 0.1
    """Standard deviation of the colour shift, in units of the eigenvalues."""

    width: float = Architecture.width
    """Factor on the channels of every hidden layer."""

    batch_norm: bool = Architecture.batch_norm
    """Normalise between each convolution and its ReLU (not in the paper)."""

    dropout: float = DROPOUT
    """Share of fc6 and fc7 activations zeroed."""

    init: str = "glorot"
    """First weights: `glorot`, `paper` (normal, sd 0.01), `paper-variance` (as printed: sd 0.1), or a RUN to copy the
    paper's layers from."""

    init_rest: InitialisationScheme | None = None
    """With a RUN as init: how the layers that are not copied are initialised (glorot if not given)."""

    finetune: str | None = None
    """RUN of the same network to go on from: all its layers, but for fc8 where the classes differ."""

    weights: str | None = None
    """WEIGHTS to go on from (not in the paper): a file that import reads, a RUN or hub:NAME. Network, crop, width and S
    are theirs, fc8 is new where classes differ. The rest then suits few photographs on a CPU if it is not given:
    trainable fc, views 2, batch 32, epochs 12, schedule cosine."""

    freeze: str | None = None
    """Freeze the layers from the first up to this one, conv3_2, say. Needs a RUN or WEIGHTS to start from."""

    trainable: Trainable | None = None
    """Layers that learn, the others are frozen: fc8, fc (the three fully connected ones), conv5 (those and the fifth
    stage), conv4, ..., all. Needs a RUN or WEIGHTS to start from."""

    views: int | None = None
    """Random views (S, crop, mirror, colour) of each image, one after the other in the epochs, then the first again; by
    default new ones in every epoch. Frozen layers are then computed once for each view."""

    batch: int = 256
    """Images per step; --from has another default, named there."""

    learning_rate: float | None = None
    """Learning rate at the start; 0.01 if not given, 0.001 with finetune and from."""

    momentum: float = 0.9
    """Momentum of stochastic gradient descent."""

    weight_decay: float = 5e-4
    """L2 multiplier, on all weights and biases."""

    epochs: int = 74
    """Epochs at most; 74 are the paper's 370K steps; --from has another default, named there."""

    schedule: Schedule = "plateau"
    """Learning rate: `plateau` follows the validation error; `step` and `cosine` follow a plan (not in the
    paper); --from has another default, named there."""

    drops: int = 3
    """How often the learning rate is divided by 10: when the validation error stops improving, or by steps."""

    patience: int = 5
    """For plateau: epochs without a new best validation error after which it counts as no longer improving."""

    step_epochs: int | None = None
    """For step: epochs between two drops; if not given, the drops divide the training into equal parts."""

    warm_up: int = 0
    """For step and cosine: epochs in which the rate rises to its first value (not in the paper)."""

    label_smoothing: float = 0.0
    """Share of the target that is spread over all classes (not in the paper)."""

    class_weights: bool = False
    """Weigh the loss of an image by all images / (classes x images of its class), so that every class counts the same
    (not in the paper)."""

    balanced: bool = False
    """Draw as many images in an epoch as there are, every class equally often: small classes again and again, large
    ones in part (not in the paper)."""

    seed: int = 0
    """Seed of weights, order, crops, flips, colours and dropout."""

    def __post_init__(self) -> None:
        """Refuse impossible values."""
        self._check_numbers()
        self._check_start()
        self._check_schedule()

    def _check_numbers(self) -> None:
        check_crop(self.crop)
        scale_range(self.scale)
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if field.type in (int, int | None) and value is not None and not isinstance(value, int):
                raise ValueError(f"{field.name} is a whole number, not {value}")
        if self.batch > _MOST_IN_BATCH:
            raise ValueError(f"batch must be {number(_MOST_IN_BATCH)} or less, not {number(self.batch)}")
        if self.views is not None and self.views < 1:
            raise ValueError(f"views must be 1 or more, not {self.views}")
        for name, least in {"batch": 1, "epochs": 1, "drops": 0, "patience": 1, "warm_up": 0, "seed": 0}.items():
            if getattr(self, name) < least:
                raise ValueError(f"{name} must be {least} or more, not {getattr(self, name)}")
        for name in ("colour_sd", "weight_decay"):
            if not 0 <= getattr(self, name) < math.inf:
                raise ValueError(f"{name} must be a number from 0 up, not {getattr(self, name)}")
        for name, value in (("learning_rate", self.first_rate), ("width", self.width)):
            if not 0 < value < math.inf:
                raise ValueError(f"{name} must be a number above 0, not {value}")
        for name in ("momentum", "dropout", "label_smoothing"):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 0 and below 1, not {getattr(self, name)}")
        if self.balanced and self.class_weights:
            raise ValueError("balanced and class_weights both let every class count the same: choose one")
        if self.seed >= _SEED_LIMIT:
            raise ValueError(f"seed must be below {_SEED_LIMIT}, not {self.seed}")

    def _check_start(self) -> None:
        if self.init_rest is not None and not self.starts_from_run():
            raise ValueError(f"init_rest goes with a RUN to copy from only: with init {self.init} nothing is copied")
        starts = {"init": self.starts_from_run(), "finetune": self.finetune, "from": self.weights}
        if len(both := [name for name, given in starts.items() if given]) > 1:
            raise ValueError(f"{' and '.join(both)} both say where to start: choose one")
        if self.trainable is not None and self.freeze is not None:
            raise ValueError("trainable and freeze both say which layers learn: choose one")
        if self.trainable not in (None, *get_args(Trainable)):
            raise ValueError(f"trainable is one of {', '.join(get_args(Trainable))}, not {self.trainable}")
        for name in ("freeze", "trainable"):
            if getattr(self, name) not in (None, "all") and self.start is None:
                raise ValueError(f"{name} keeps layers as they are, so it needs finetune, from, or a RUN as init")

    def _check_schedule(self) -> None:
        if self.schedule not in get_args(Schedule):
            raise ValueError(f"schedule is one of {', '.join(get_args(Schedule))}, not {self.schedule}")
        if self.step_epochs is not None and (self.schedule != "step" or self.step_epochs < 1):
            raise ValueError("step_epochs is a number from 1 up, for the schedule step alone")
        if self.warm_up and (self.schedule == "plateau" or self.warm_up >= self.epochs):
            raise ValueError(f"warm_up is below epochs ({self.epochs}), for the schedules step and cosine alone")
        unused = {"plateau": (), "step": ("patience",), "cosine": ("patience", "drops")}[self.schedule]
        for field in dataclasses.fields(self):
            if field.name in unused and getattr(self, field.name) != field.default:
                raise ValueError(f"{field.name} does nothing with the schedule {self.schedule}: leave it out")

    def starts_from_run(self) -> bool:
        """Return whether `init` names a run to copy layers from."""
        return self.init not in get_args(InitialisationScheme)

    @property
    def start(self) -> str | None:
        """The RUN or WEIGHTS that first weights come from, by `init`, `finetune` or `weights`; None for random ones."""
        return self.init if self.starts_from_run() else self.finetune or self.weights

    @property
    def taken_over(self) -> str | None:
        """The RUN or WEIGHTS whose layers and mean are all taken over, by `finetune` or `weights`."""
        return self.finetune or self.weights

    def last_frozen(self, layers: Sequence[str]) -> str | None:
        """Return the last of a network's layers that stays as it is; None if all of them learn."""
        if self.trainable in (None, "all"):
            return self.freeze
        return layers[next(at for at, name in enumerate(layers) if name.startswith(self.trainable)) - 1]

    @property
    def views_shown(self) -> int:
        """How many fixed views of each image the epochs show; 0 where every epoch has views of its own."""
        return min(self.views or 0, self.epochs)

    @property
    def side_range(self) -> tuple[int, int]:
        """The least and the greatest S, in pixels at this crop."""
        low, high = (scale_in_pixels(scale, self.crop) for scale in scale_range(self.scale))
        return low, high

    @property
    def first_rate(self) -> float:
        """The learning rate at the start."""
        if self.learning_rate is not None:
            return self.learning_rate
        return LEARNING_RATE if self.taken_over is None else FINETUNING_RATE


def network_asked_for(network: str | None, recipe: Recipe) -> str | None:
    """Return the network's name in the paper; None if it is to be that of the RUN or WEIGHTS to go on from.

    Raises:
        ValueError: there is no such network, or none is named and there is nothing to go on from.
    """
    if network is not None:
        return configuration(network).name
    if recipe.taken_over is None:
        raise ValueError(
            f"say which --network: {', '.join(CONFIGURATIONS)}; or --quick for a small A, or --from WEIGHTS"
        )
    return None


def check_for_boxes(recipe: Recipe) -> None:
    """Refuse settings that boxes cannot have: they are learned by a network that classifies already (appendix A.1).

    Raises:
        ValueError: there is no run to start from, or a setting is for classes alone.
    """
    if recipe.finetune is None:
        raise ValueError("boxes are learned by a network that classifies already: name its RUN with --finetune")
    if recipe.views is not None or recipe.class_weights or recipe.balanced:
        raise ValueError("views, class_weights and balanced go with classes alone: leave them out")
    if recipe.label_smoothing:
        raise ValueError("label_smoothing does nothing for boxes: leave it out")


def recipe_from(fields: Mapping[str, Any]) -> Recipe:
    """Return the recipe of a run's record; fields that older versions did not write have their defaults.

    Raises:
        ValueError: the record has fields that this version does not know, or of other types.
    """
    try:
        return converted(dict(fields), Recipe, exact=True)
    except ValueError as error:
        raise ValueError(f"the recipe in {RECORD} cannot be used: {error}") from error


@dataclass(frozen=True, kw_only=True)
class Plateau:
    """The schedule's memory from epoch to epoch."""

    best: float | None = None
    """Lowest validation error so far, percent."""
    waited: int = 0
    """Epochs since then, or since the last drop."""
    drops: int = 0
    """How often the rate has been divided."""
    finished: bool = False
    """Whether the error stopped improving once more after the last drop."""


def after_epoch(plateau: Plateau, error: float, recipe: Recipe) -> Plateau:
    """Return the schedule's memory after an epoch that ended with this validation error (percent)."""
    if plateau.best is None or error < plateau.best:
        return replace(plateau, best=error, waited=0)
    if recipe.schedule != "plateau":
        return plateau
    if plateau.waited + 1 < recipe.patience:
        return replace(plateau, waited=plateau.waited + 1)
    if plateau.drops < recipe.drops:
        return replace(plateau, waited=0, drops=plateau.drops + 1)
    return replace(plateau, finished=True)


def schedule_ended(recipe: Recipe, errors: Sequence[float]) -> bool:
    """Return whether the schedule came to its end in epochs with these validation errors (percent)."""
    if recipe.schedule != "plateau":
        return len(errors) >= recipe.epochs
    return reduce(lambda plateau, error: after_epoch(plateau, error, recipe), errors, Plateau()).finished


def learning_rate(recipe: Recipe, plateau: Plateau, *, step: int, steps_per_epoch: int) -> float:
    """Return the learning rate of step `step`, counted from 0 over all epochs.

    | schedule  | rate                                                                              |
    |-----------|-----------------------------------------------------------------------------------|
    | `plateau` | first / 10^(drops so far)                                                         |
    | `step`    | first / 10^(drops so far), with a drop every `step_epochs`, `drops` at most       |
    | `cosine`  | first (1 + cos(pi t)) / 2, with t the share done of the steps after the warm-up   |

    In the warm-up of `step` and `cosine` it rises in equal steps to the rate of the table.
    """
    epoch = step // steps_per_epoch
    warm_up = recipe.warm_up * steps_per_epoch
    rising = min(1.0, (step + 1) / warm_up) if warm_up else 1.0
    match recipe.schedule:
        case "plateau":
            factor = _FACTOR**-plateau.drops
        case "step":
            past = epoch // recipe.step_epochs if recipe.step_epochs else epoch * (recipe.drops + 1) // recipe.epochs
            factor = _FACTOR ** -min(recipe.drops, past)
        case "cosine":
            done = max(0, step - warm_up) / (recipe.epochs * steps_per_epoch - warm_up)
            factor = (1 + math.cos(math.pi * done)) / 2
    return recipe.first_rate * rising * factor
