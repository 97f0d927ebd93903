"""Whether a training does no better than guessing, and what may help one with its recipe."""

import math
from collections.abc import Collection

from verydeep.networks.architecture import configuration
from verydeep.numbers import number, percent, trimmed
from verydeep.runs.record import EpochMetrics
from verydeep.training.recipe import LEARNING_RATE, Recipe

_LITTLE = 0.9
"""Share of the loss, and of the error, of guessing above which a training has hardly begun to learn."""

_EARLY = 3
"""The epoch, after those of the warm-up, that is looked at while the training goes on."""

_WELL_ABOVE = 3
"""A learning rate per image of so many times the paper's, or more, is likelier too high than too low."""


def guessing_loss(images: Collection[int], recipe: Recipe) -> float:
    """Return the least loss, in nats, of an answer that is the same for every image.

    Args:
        images: number of training images of each class.
        recipe: it says how much each class counts, and which target it has.
    """
    if recipe.balanced or recipe.class_weights:
        images = [min(count, 1) for count in images]
    whole = sum(images)
    return _entropy(_smoothed([count / whole for count in images], recipe))


def is_guessing(loss: float, guessing: float, recipe: Recipe, classes: int) -> bool:
    """Return whether a mean loss is nearly that of guessing; a smoothed target allows none below its own entropy."""
    least = _entropy(_smoothed([1.0, *[0.0] * (classes - 1)], recipe))
    return loss - least > _LITTLE * (guessing - least)


def about_guessing(metrics: EpochMetrics, images: Collection[int], recipe: Recipe, network: str) -> str:
    """Say once, early in a training of classes, that it does no better than guessing, and what may help; "" if not.

    Args:
        metrics: those of the epoch that has just ended.
        images: number of training images of each class.
        recipe: the recipe.
        network: the network's name in the paper.
    """
    guessing = metrics.guessing_loss
    if guessing is None or metrics.epoch != recipe.warm_up + _EARLY or metrics.epoch >= recipe.epochs:
        return ""
    drawn = [min(count, 1) for count in images] if recipe.balanced else images
    error = 100 * (1 - max(drawn) / sum(drawn))  # of always naming the largest class
    if metrics.training_error <= _LITTLE * error or not is_guessing(metrics.loss, guessing, recipe, len(images)):
        return ""
    return (
        f"epoch {metrics.epoch} is no better than guessing (its training error is {percent(metrics.training_error)}%, "
        f"that of always naming the largest class {percent(error)}%); if the next ones are not either, "
        f"{what_may_help(recipe, network)}"
    )


def what_may_help(recipe: Recipe, network: str) -> str:
    """Say what may help a training with this recipe that does no better than guessing (tried in docs/LOG.md)."""
    default = Recipe()
    scheme = (recipe.init_rest or default.init) if recipe.starts_from_run() else recipe.init
    if scheme != default.init and recipe.taken_over is None and not recipe.batch_norm:
        option = "--init-rest" if recipe.starts_from_run() else "--init"
        return f"{option} {default.init} may help: with {option} {scheme} deep networks often stay there"
    usual = LEARNING_RATE * recipe.batch / default.batch
    if recipe.first_rate >= _WELL_ABOVE * usual:
        return (
            f"a lower learning rate may help: --learning-rate {trimmed(usual)} is the paper's in proportion to batches "
            f"of {number(recipe.batch)}"
        )
    if recipe.start is None and not recipe.batch_norm:
        return f"--batch-norm may help{', or --init with the RUN of a trained A' if _is_deeper(network) else ''}"
    untrained = f"{recipe.taken_over} may never have been trained; else " if recipe.taken_over else ""
    return f"{untrained}more epochs or a larger learning rate may help"


def _is_deeper(network: str) -> bool:
    """Return whether a network has more convolutions than A, whose layers then fit."""
    own, of_a = (sum(map(len, configuration(name).kernels)) for name in (network, "A"))
    return own > of_a


def _smoothed(shares: Collection[float], recipe: Recipe) -> list[float]:
    """Return the mean target of images of which these shares have each class."""
    smoothing = recipe.label_smoothing
    return [(1 - smoothing) * share + smoothing / len(shares) for share in shares]


def _entropy(shares: Collection[float]) -> float:
    return -sum(share * math.log(share) for share in shares if share)
