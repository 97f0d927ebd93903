"""Average precision as Pascal VOC defines it: how well scores rank the images that show a class before the others.

Images of equal score count together: none of them is before another, so their order does not matter.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float, Int
from numpy.typing import NDArray

_POINTS = 11
"""Number of recalls, 0, 0.1, ..., 1, in VOC's definition until 2009."""


@dataclass(frozen=True, kw_only=True)
class Ranking:
    """Images from the highest score down to the last one that shows the class.

    They are in groups that end at the scores of images that show it. Precision, which is interpolated, needs no others:
    between two of those it only falls.
    """

    images: Int[np.ndarray, " M"]
    """Indices of the images."""
    starts: Int[np.ndarray, " groups"]
    """Start of each group in `images`."""
    positive: Int[np.ndarray, " P"]
    """Indices of the images that show the class."""
    positive_starts: Int[np.ndarray, " groups"]
    """Start of each group in `positive`."""


def ranking(scores: Float[np.ndarray, " N"], shown: Int[np.ndarray, " N"]) -> Ranking:
    """Rank images by their scores for a class.

    Args:
        scores: higher where the class is more likely.
        shown: 1 for images that show the class, -1 for others, 0 for those that do not count.

    Raises:
        ValueError: no image shows the class.
    """
    counted = np.flatnonzero(shown)
    order = counted[np.argsort(-scores[counted], kind="stable")]
    positive = shown[order] > 0
    if not positive.any():
        raise ValueError("no image shows the class: there is no precision")
    _, equals = np.unique(-scores[order], return_inverse=True)
    groups = np.unique(equals[positive])  # of equal scores, those with an image that shows the class
    of_image = np.searchsorted(groups, np.asarray(equals))  # those between two belong to the lower one
    last, numbers = int((of_image < len(groups)).sum()), np.arange(len(groups))
    return Ranking(
        images=order[:last],
        starts=np.searchsorted(of_image, numbers),
        positive=order[positive],
        positive_starts=np.searchsorted(of_image[positive], numbers),
    )


def average_precision(scores: Float[np.ndarray, " N"], shown: Int[np.ndarray, " N"]) -> float:
    """Return the area under the interpolated curve of precision over recall, 0..1: VOC's definition from 2010 on.

    Interpolated: at each recall the highest precision there or at a higher one. If all scores are equal it is the share
    of images that show the class. Arguments are as for `ranking`.

    Raises:
        ValueError: no image shows the class.
    """
    return float(average_precisions(ranking(scores, shown), np.ones((len(scores), 1)))[0])


def eleven_point_average_precision(scores: Float[np.ndarray, " N"], shown: Int[np.ndarray, " N"]) -> float:
    """Return the mean of the interpolated precisions at recalls of 0, 0.1, ..., 1, 0..1: the definition of VOC 2007.

    Arguments are as for `ranking`.

    Raises:
        ValueError: no image shows the class.
    """
    hits, precisions = _interpolated(ranking(scores, shown), np.ones((len(scores), 1)))
    reached = hits[:, 0].cumsum()
    # In whole numbers: 3 of 10 are a recall of 0.3, whatever 0.1 + 0.1 + 0.1 is.
    groups = [np.flatnonzero((_POINTS - 1) * reached >= point * reached[-1])[0] for point in range(_POINTS)]
    return float(precisions[groups, 0].mean())


def class_average_precisions(
    scores: Float[np.ndarray, "N K"],
    shown: Int[np.ndarray, "N K"],
    *,
    of_class: Callable[[NDArray[Any], NDArray[Any]], float] = average_precision,
) -> Float[np.ndarray, " K"]:
    """Return the average precision of each class, by either definition.

    Raises:
        ValueError: no image shows a class.
    """
    return np.array([of_class(*pair) for pair in zip(scores.T, shown.T, strict=True)])


def average_precisions(ranked: Ranking, counts: Float[np.ndarray, "N R"]) -> Float[np.ndarray, " R"]:
    """Return `average_precision` for R resamples of the images, NaN for those in which no image shows the class.

    Args:
        ranked: the images by their scores.
        counts: how many times each image is in each resample.
    """
    hits, precisions = _interpolated(ranked, counts)
    total = hits.sum(axis=0)
    return np.divide((hits * precisions).sum(axis=0), total, out=np.full_like(total, np.nan), where=total > 0)


def _interpolated(ranked: Ranking, counts: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return for each group how many of its images show the class, and the precision; both [groups, R]."""
    images = np.add.reduceat(counts[ranked.images], ranked.starts, axis=0).cumsum(axis=0)
    hits = np.add.reduceat(counts[ranked.positive], ranked.positive_starts, axis=0)
    precisions = np.divide(hits.cumsum(axis=0), images, out=np.zeros_like(images), where=images > 0)
    return hits, np.maximum.accumulate(precisions[::-1], axis=0)[::-1]
