"""What a reduced precision costs in error on the same images (needs no PyTorch)."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

from verydeep.evaluation.metrics import error_percent, misclassified, predicted
from verydeep.numbers import FINE, counted, interval, number, percent, plural, points
from verydeep.statistics import paired_comparison


@dataclass(frozen=True, kw_only=True)
class PrecisionErrors:
    """Top-1 errors in percent on the same images, tested in the same way."""

    images: int
    float32: float
    reduced: float
    """Error of INT8 or bfloat16."""
    loss: float
    """Percentage points that the reduced precision costs."""
    loss_ci95: tuple[float, float]
    """95% interval of the loss, as `statistics.Comparison` has it."""
    lost: int
    """Images that are wrong in reduced precision alone."""
    won: int
    """Images that are wrong in float32 alone."""
    changed: int
    """Images whose most probable class differs."""


def precision_errors(
    float32: Float[np.ndarray, "N K"], reduced: Float[np.ndarray, "N K"], labels: Int[np.ndarray, " N"]
) -> PrecisionErrors:
    """Count the errors of two networks on the same images; rows of NaN are images that cannot be used.

    Raises:
        ValueError: no image can be used.
    """
    usable = ~np.isnan(float32[:, 0])
    float32, reduced, labels = float32[usable], reduced[usable], labels[usable]
    wrong, wrong_before = misclassified(reduced, labels), misclassified(float32, labels)
    paired = paired_comparison("reduced", "float32", wrong, wrong_before)
    return PrecisionErrors(
        images=paired.n,
        float32=error_percent(wrong_before),
        reduced=error_percent(wrong),
        loss=paired.difference,
        loss_ci95=paired.difference_ci95,
        lost=paired.only_first_wrong,
        won=paired.only_second_wrong,
        changed=int((predicted(reduced, labels) != predicted(float32, labels)).sum()),
    )


def precision_cost(errors: PrecisionErrors) -> str:
    """Say in a sentence what bfloat16 cost against float32."""
    compared = f"Computed in bfloat16; of {counted(errors.images, 'image')} that were tested in float32 too"
    if not (errors.changed or errors.lost or errors.won):
        return f"{compared}, each is taken for the same class."
    return (
        f"{compared}, {number(errors.changed)} {plural('is', errors.changed, 'are')} taken for another class: "
        f"{percent(errors.reduced, FINE)}% are wrong in bfloat16, {percent(errors.float32, FINE)}% in float32 "
        f"({points(errors.loss, FINE)} points, 95% interval {interval(errors.loss_ci95, FINE, '+')})."
    )
