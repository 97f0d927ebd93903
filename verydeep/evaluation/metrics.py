"""Errors in percent, and how sure one can be of them."""

import numpy as np
from numpy.typing import NDArray

TOP = 5
CONFIDENCE = 0.95


def misclassified(posteriors: NDArray[np.float64], labels: NDArray[np.int64], *, top: int = 1) -> NDArray[np.bool_]:
    """[N], true where the right class is not among the `top` most probable ones.

    Of classes with equal probability the right one counts as the last, so that a constant output is not rewarded;
    nor is one that is not a number.
    """
    right = posteriors[np.arange(len(labels)), labels][:, None]
    return (~(posteriors < right)).sum(axis=1) > top


def error_percent(wrong: NDArray[np.bool_]) -> float:
    """Share of images that are wrong, in percent."""
    return 100 * float(wrong.mean())


def error_interval(wrong: NDArray[np.bool_]) -> tuple[float, float]:
    """95% interval of the error in percent (Wilson's score interval, which also holds near 0 and 100)."""
    from scipy.stats import binomtest

    interval = binomtest(int(wrong.sum()), len(wrong)).proportion_ci(CONFIDENCE, method="wilson")
    return 100 * float(interval.low), 100 * float(interval.high)
