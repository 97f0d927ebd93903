"""How good SVMs are on the test images of every split: mean class recall, or mean average precision."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from verydeep.statistics import bootstrap_counts, centred, with_unbiased_spread
from verydeep.transfer_learning.average_precision import (
    average_precision,
    average_precisions,
    eleven_point_average_precision,
    ranking,
)
from verydeep.transfer_learning.linear_svm import Labels, class_recalls
from verydeep.transfer_learning.paper import MAP, RECALL, Measure

RESAMPLES = 2_000
_AT_ONCE = 250
"""Drawings: 10 MB for 5,000 images."""

_SEED = 0


@dataclass(frozen=True, kw_only=True)
class Measured:
    """Of several descriptors."""

    measure: Measure
    of_classes: NDArray[np.float64]
    """[descriptors, splits, classes], 0..1."""
    drawn: NDArray[np.float64]
    """[descriptors, RESAMPLES], the mean over classes and splits, of test images drawn again and again; percent. nan
    where a class has a single test image, which says nothing of the spread."""
    eleven_point: NDArray[np.float64] | None
    """[descriptors, splits, classes], 0..1, by the definition of VOC 2007; None of recalls."""
    chance: float
    """Percent, of SVMs that know nothing: recall of a class drawn at random, average precision of equal scores."""


def measured(outcomes: Sequence[NDArray[Any]], tested: NDArray[np.bool_], labels: Labels) -> Measured:
    """What the outcomes of SVMs over several descriptors come to.

    Args:
        outcomes: of each descriptor. With one label an image [splits, N], which images are right; with several
            [splits, N, classes], scores.
        tested: [splits, N], which images each split tests on: some of each class.
        labels: [N], or [N, classes].
    """
    found = np.stack(outcomes)
    if labels.ndim == 1:
        of_classes = np.stack([_recalls(right, tested, labels) for right in found])
        return Measured(
            measure=RECALL,
            of_classes=of_classes,
            drawn=bootstrapped_recalls(found, tested, labels),
            eleven_point=None,
            chance=100 / of_classes.shape[2],
        )
    chance = [(labels[its] > 0).sum(axis=0) / (labels[its] != 0).sum(axis=0) for its in tested]
    of_classes = _precisions(average_precision, found, tested, labels)
    return Measured(
        measure=MAP,
        of_classes=of_classes,
        # In a resample images stand several times, which makes precision higher: a little for each class, but for all
        # classes together more than the spread. Of simulated tests (20 classes, 300 images, 5% of them of each class)
        # 76 to 89% had the expected mAP in the interval without this, and 90 to 98% with it; the fewer images, the
        # nearer to 90%.
        drawn=centred(bootstrapped_average_precisions(found, tested, labels), 100 * of_classes.mean(axis=(1, 2))),
        eleven_point=_precisions(eleven_point_average_precision, found, tested, labels),
        chance=100 * float(np.mean(chance)),
    )


def bootstrapped_recalls(
    right: NDArray[np.bool_], tested: NDArray[np.bool_], labels: NDArray[np.int64]
) -> NDArray[np.float64]:
    """[descriptors, RESAMPLES], mean class recall over all splits, in percent, of images drawn again and again.

    An image is drawn with all that is known of it, from every split and every descriptor: splits share images, and
    descriptors find the same ones hard. Of each class as many are drawn as are tested in one split or another, m say;
    drawings of those have (m - 1)/m of the variance that the class has, so they are spread by the root of m/(m - 1).
    Without that, of 400 simulated tests with 3 images of each of 20 classes 88% had the truth in the interval. nan if
    a class has one image.

    Args:
        right: [descriptors, splits, N]
        tested: [splits, N]
        labels: [N]
    """
    rng = np.random.default_rng(_SEED)
    names = np.unique(labels[tested.any(axis=0)])
    total = np.zeros((len(right), RESAMPLES))
    for label in names:
        its = np.flatnonzero((labels == label) & tested.any(axis=0))
        counts = bootstrap_counts(rng, len(its), RESAMPLES)
        shown = counts @ tested[:, its].T  # [RESAMPLES, splits]
        hits = counts @ right[:, :, its].transpose(0, 2, 1)  # [descriptors, RESAMPLES, splits]
        of_splits = np.divide(hits, shown, out=np.full_like(hits, np.nan), where=shown > 0)
        drawn = np.nanmean(of_splits, axis=2)  # a drawing may lack all of a split's images, not those of all splits
        total += with_unbiased_spread(drawn, len(its))
    return 100 * total / len(names)


def _recalls(right: NDArray[np.bool_], tested: NDArray[np.bool_], labels: NDArray[np.int64]) -> NDArray[np.float64]:
    """[splits, classes], the share of each class's test images that are right."""
    return np.stack([class_recalls(its_right[its], labels[its]) for its_right, its in zip(right, tested, strict=True)])


def bootstrapped_average_precisions(
    scores: NDArray[np.float32], tested: NDArray[np.bool_], shown: NDArray[np.int8]
) -> NDArray[np.float64]:
    """[descriptors, RESAMPLES], mean average precision over all splits, in percent, of images drawn again and again.

    As many images are drawn as are tested in one split or another, each with all that is known of it, from every split
    and every descriptor. A drawing without any image of a class is of the other classes; nan if it has none of any.

    Args:
        scores: [descriptors, splits, N, classes]
        tested: [splits, N]
        shown: [N, classes]
    """
    rng = np.random.default_rng(_SEED)
    its = np.flatnonzero(tested.any(axis=0))
    splits = [np.where(of_split[its, None], shown[its], 0) for of_split in tested]
    rankings = [
        [[ranking(by[its, label], its_shown[:, label]) for label in range(shown.shape[1])] for by in of_split]
        for of_split, its_shown in zip(scores.swapaxes(0, 1), splits, strict=True)
    ]  # of each split, of each descriptor, of each class
    found = []
    for start in range(0, RESAMPLES, _AT_ONCE):
        size = min(_AT_ONCE, RESAMPLES - start)
        counts = bootstrap_counts(rng, len(its), size).T
        values = np.array([[[average_precisions(one, counts) for one in by] for by in split] for split in rankings])
        known = ~np.isnan(values)
        found.append(_mean(_mean(values, known, axis=0), known.any(axis=0), axis=1))
    return 100 * np.concatenate(found, axis=1)


def _mean(values: NDArray[np.float64], known: NDArray[np.bool_], axis: int) -> NDArray[np.float64]:
    """Of those that are known; nan where none is."""
    count = known.sum(axis=axis)
    total = np.where(known, values, 0).sum(axis=axis)
    return np.divide(total, count, out=np.full_like(total, np.nan), where=count > 0)


def _precisions(
    of_class: Callable[[NDArray[np.floating], NDArray[np.int8]], float],
    scores: NDArray[np.float32],
    tested: NDArray[np.bool_],
    shown: NDArray[np.int8],
) -> NDArray[np.float64]:
    """[descriptors, splits, classes]"""
    return np.array(
        [
            [
                [of_class(by_class, its_shown) for by_class, its_shown in zip(by[its].T, shown[its].T, strict=True)]
                for by, its in zip(of_descriptor, tested, strict=True)
            ]
            for of_descriptor in scores
        ]
    )
