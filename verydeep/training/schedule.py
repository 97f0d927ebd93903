"""The learning rate: divided by 10 whenever the validation error stops improving (section 3.1)."""

from dataclasses import dataclass, replace

FACTOR = 10


@dataclass(frozen=True, kw_only=True)
class Plateau:
    """Everything that the schedule remembers from epoch to epoch."""

    best: float | None = None
    """Lowest validation error so far, percent."""
    waited: int = 0
    """Epochs since then, or since the last drop."""
    drops: int = 0
    """How often the rate has been divided."""
    finished: bool = False
    """The error stopped improving once more after the last drop."""


def after_epoch(plateau: Plateau, error: float, *, patience: int, drops: int) -> Plateau:
    """The schedule's state once an epoch ended with this validation error (percent)."""
    if plateau.best is None or error < plateau.best:
        return replace(plateau, best=error, waited=0)
    if plateau.waited + 1 < patience:
        return replace(plateau, waited=plateau.waited + 1)
    if plateau.drops < drops:
        return replace(plateau, waited=0, drops=plateau.drops + 1)
    return replace(plateau, finished=True)


def learning_rate(plateau: Plateau, first: float) -> float:
    """`first` divided by 10 once per drop."""
    return first / FACTOR**plateau.drops
