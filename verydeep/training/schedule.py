"""The learning rate: divided by 10 whenever the validation error stops improving (section 3.1), or by plan."""

import math
from dataclasses import dataclass, replace

from verydeep.training.recipe import Recipe

_FACTOR = 10


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
            factor = _FACTOR ** -min(recipe.drops, int(epoch / recipe.epochs_between_drops))
        case "cosine":
            done = max(0, step - warm_up) / (recipe.epochs * steps_per_epoch - warm_up)
            factor = (1 + math.cos(math.pi * done)) / 2
    return recipe.first_rate * rising * factor
