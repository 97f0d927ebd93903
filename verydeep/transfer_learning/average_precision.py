"""Average precision as Pascal VOC defines it: how well scores put the images that show a class before the others.

Images of equal score come together: none of them is before another, so their order does not matter.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

POINTS = 11
"""Recalls of 0, 0.1, ..., 1, by VOC's definition until 2009."""


@dataclass(frozen=True, kw_only=True)
class Ranking:
    """Images from the highest score down to the last one that shows the class.

    They are in groups that end at the scores of images that show it. Precision, which is interpolated, needs no others:
    between two of those it only falls.
    """

    images: NDArray[np.int64]
    """Indices."""
    starts: NDArray[np.int64]
    """Of each group, in `images`."""
    shown: NDArray[np.int64]
    """Indices of those that show the class."""
    shown_starts: NDArray[np.int64]
    """Of each group, in `shown`."""


def ranking(scores: NDArray[np.floating], shown: NDArray[np.int8]) -> Ranking:
    """Images by their scores for a class.

    Args:
        scores: [N], higher where the class is more likely.
        shown: [N], 1 for images that show the class, -1 for others, 0 for those that do not count.

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
        shown=order[positive],
        shown_starts=np.searchsorted(of_image[positive], numbers),
    )


def average_precision(scores: NDArray[np.floating], shown: NDArray[np.int8]) -> float:
    """Area under the interpolated curve of precision over recall, 0..1: VOC's definition from 2010 on.

    Interpolated: at each recall the highest precision there or at a higher one. Where all scores are equal it is the
    share of images that show the class.

    Args:
        scores: as for `ranking`.
        shown: as for `ranking`.

    Raises:
        ValueError: no image shows the class.
    """
    return float(average_precisions(ranking(scores, shown), np.ones((len(scores), 1)))[0])


def eleven_point_average_precision(scores: NDArray[np.floating], shown: NDArray[np.int8]) -> float:
    """Mean of the interpolated precisions at recalls of 0, 0.1, ..., 1, 0..1: the definition of VOC 2007.

    Args:
        scores: as for `ranking`.
        shown: as for `ranking`.

    Raises:
        ValueError: no image shows the class.
    """
    found = ranking(scores, shown)
    hits, precisions = _interpolated(found, np.ones((len(scores), 1)))
    reached = hits[:, 0].cumsum()
    # In whole numbers: 3 of 10 are a recall of 0.3, whatever 0.1 + 0.1 + 0.1 is.
    places = [np.flatnonzero((POINTS - 1) * reached >= point * reached[-1])[0] for point in range(POINTS)]
    return float(precisions[places, 0].mean())


def average_precisions(found: Ranking, counts: NDArray[np.float64]) -> NDArray[np.float64]:
    """[R], `average_precision` of R drawings of the images, nan of those that have none that shows the class.

    Args:
        found: the images by their scores.
        counts: [N, R], how many times each image is drawn.
    """
    hits, precisions = _interpolated(found, counts)
    total = hits.sum(axis=0)
    return np.divide((hits * precisions).sum(axis=0), total, out=np.full_like(total, np.nan), where=total > 0)


def _interpolated(found: Ranking, counts: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """For each group: how many images that show the class are in it, and the precision; [groups, R]."""
    images = np.add.reduceat(counts[found.images], found.starts, axis=0).cumsum(axis=0)
    hits = np.add.reduceat(counts[found.shown], found.shown_starts, axis=0)
    precisions = np.divide(hits.cumsum(axis=0), images, out=np.zeros_like(images), where=images > 0)
    return hits, np.maximum.accumulate(precisions[::-1], axis=0)[::-1]
