"""Linear SVMs over descriptors (appendix B): one class against the others, C chosen on a fifth of the images.

Labels of images are [N], each image's class, or [N, classes] where it may show several: 1 for those that it shows, -1
for others, 0 where it does not count.
"""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from verydeep.images.sources.splits import stratified_split
from verydeep.transfer_learning.average_precision import average_precision

Labels = NDArray[Any]
"""int64 [N] or int8 [N, classes]."""

CHOICES_OF_C = (0.01, 0.1, 1.0, 10.0, 100.0, 1000.0)
"""For vectors of length 1. From underfitting to no regularisation that matters; the paper does not list its own."""

CHOOSING_SHARE = 0.2
"""Of each class's training images: what C is chosen on, as in the paper."""

_TOLERANCE = 1e-6
"""liblinear's own 1e-4 leaves scores of C = 1000 half a margin away from those of the best weights; with this 0.007."""

_MOST_ITERATIONS = 10_000
_SEED = 0


@dataclass(frozen=True, kw_only=True)
class LinearSVM:
    """A score for each class, linear in a descriptor."""

    weights: NDArray[np.float32]
    """[classes, D]"""
    biases: NDArray[np.float32]
    """[classes]"""
    c: float

    def scores(self, vectors: NDArray[np.float32]) -> NDArray[np.float32]:
        """[N, classes] of [N, D]: signed distances from each class's plane, in units of its margin."""
        return vectors @ self.weights.T + self.biases

    def classified(self, vectors: NDArray[np.float32]) -> NDArray[np.int64]:
        """[N], the class with the highest score."""
        return self.scores(vectors).argmax(axis=1)


def stacked(described: Sequence[NDArray[np.float32]]) -> NDArray[np.float32]:
    """Vectors [N, D] of several networks one after the other, of length 1 again."""
    return cast(NDArray[np.float32], np.concatenate(described, axis=1) / np.float32(len(described) ** 0.5))


def fit(vectors: NDArray[np.float32], labels: NDArray[np.int64], *, c: float) -> LinearSVM:
    """The SVM of [N, D] vectors with labels 0, 1, ..., of each of which there is at least one.

    It is liblinear's: one plane for each class. libsvm's would take one for every two classes, 32,640 for the 256
    classes of Caltech-256, and could not be kept as one matrix.
    """
    turned, back = _turned(vectors)
    weights, biases = _planes(turned, labels, c)
    if len(weights) == 1:  # of two classes there is one plane, the second's
        weights, biases = np.concatenate([-weights, weights]), np.concatenate([-biases, biases])
    return _svm(weights @ back, biases, c)


def fit_several(vectors: NDArray[np.float32], shown: NDArray[np.int8], *, c: float) -> LinearSVM:
    """The SVM of [N, D] vectors of images with several labels: each class against the images known not to show it.

    Args:
        vectors: [N, D]
        shown: [N, classes], 1 for images that show a class, -1 for others, 0 for those that do not count for it; of
            each class there are both.
        c: of all classes.
    """
    turned, back = _turned(vectors)
    found = []
    for its in shown.T:
        counted = its != 0
        found.append(_planes(turned if counted.all() else turned[counted], its[counted] > 0, c))
    weights, biases = (np.concatenate(arrays) for arrays in zip(*found, strict=True))
    return _svm(weights @ back, biases, c)


def _turned(vectors: NDArray[np.float32]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """[N, K] with the same products with one another, and what takes weights for them to the vectors', [K, D].

    Where there are fewer vectors than numbers in each (D), N directions hold them all: an SVM, whose penalty is the
    length of its weights, is the same there, and found 5 times (D = 1,024) to 18 times (4,096) as fast with N = 300.
    """
    whole = np.asarray(vectors, np.float64)  # liblinear's
    if len(whole) >= whole.shape[1]:
        return whole, np.eye(whole.shape[1])
    directions, turned = np.linalg.qr(whole.T)
    return np.ascontiguousarray(turned.T), directions.T


def _planes(
    vectors: NDArray[np.float64], labels: NDArray[np.generic], c: float
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Weights and biases of each class against the others; of two classes those of the second alone."""
    from sklearn.exceptions import ConvergenceWarning  # 1 s to import
    from sklearn.svm import LinearSVC

    # The primal problem: liblinear's other solver takes ten times as long for a large C, and does not always end.
    solver = LinearSVC(C=c, dual=False, tol=_TOLERANCE, random_state=_SEED, max_iter=_MOST_ITERATIONS)
    with warnings.catch_warnings():
        # One that is not quite solved is judged by its figures like any other.
        warnings.simplefilter("ignore", ConvergenceWarning)
        solver.fit(vectors, labels)
    return solver.coef_, solver.intercept_


def _svm(weights: NDArray[np.float64], biases: NDArray[np.float64], c: float) -> LinearSVM:
    # liblinear's stand column by column; safetensors writes memory as it lies.
    return LinearSVM(weights=weights.astype(np.float32, order="C"), biases=biases.astype(np.float32), c=c)


def fit_choosing_c(vectors: NDArray[np.float32], labels: Labels) -> LinearSVM:
    """The SVM of all the images, with the C that does best on a fifth that is held out first.

    Best is the highest mean class recall; with several labels an image the highest mean average precision. Of several
    equally good ones the middle one: with few images the smallest may hold for them by a hair. Which images are held
    out follows from the labels alone.

    Args:
        vectors: [N, D]
        labels: [N], or [N, classes] as for `fit_several`.

    Raises:
        ValueError: a class with too few images.
    """
    several = labels.ndim == 2
    fitting, choosing = several_split(labels) if several else stratified_split(labels.tolist(), CHOOSING_SHARE)
    train = fit_several if several else fit
    found = []
    for c in CHOICES_OF_C:
        svm = train(vectors[fitting], labels[fitting], c=c)
        figure = _mean_average_precision if several else _mean_class_recall
        found.append(figure(svm, vectors[choosing], labels[choosing]))
    best = np.flatnonzero(np.isclose(found, max(found)))
    return train(vectors, labels, c=CHOICES_OF_C[best[len(best) // 2]])


def several_split(shown: NDArray[np.int8]) -> tuple[list[int], list[int]]:
    """Indices of two parts of images with several labels, the second with a fifth of those that show each class.

    From the rarest class to the most common one, images that show it are drawn until there are enough; those drawn for
    others count. The first part keeps an image with and one without each class; where too few images show several
    classes, the second may have none of one of them. The choice is fixed: the same labels always give the same parts.
    """
    positive, negative = shown > 0, shown < 0
    left, left_without = positive.sum(axis=0), negative.sum(axis=0)
    wanted = np.maximum(1, np.round(CHOOSING_SHARE * left)).astype(int)
    order = np.random.Generator(np.random.PCG64(_SEED)).permutation(len(shown))
    taken = np.zeros(len(shown), bool)
    for label in np.argsort(left, kind="stable"):
        for index in order[positive[order, label]]:
            if (positive[:, label] & taken).sum() >= wanted[label]:
                break
            remain, remain_without = left - positive[index], left_without - negative[index]
            if taken[index] or remain.min() < 1 or remain_without.min() < 1:
                continue
            taken[index], left, left_without = True, remain, remain_without
    return np.flatnonzero(~taken).tolist(), np.flatnonzero(taken).tolist()


def _mean_class_recall(svm: LinearSVM, vectors: NDArray[np.float32], labels: NDArray[np.int64]) -> float:
    return float(class_recalls(svm.classified(vectors) == labels, labels).mean())


def _mean_average_precision(svm: LinearSVM, vectors: NDArray[np.float32], shown: NDArray[np.int8]) -> float:
    scores = svm.scores(vectors)
    return float(np.mean([average_precision(its, signs) for its, signs in zip(scores.T, shown.T, strict=True)]))


def class_recalls(right: NDArray[np.bool_], labels: NDArray[np.int64]) -> NDArray[np.float64]:
    """Of each class that occurs in `labels` [N], in ascending order: the share of its images that are right, 0..1."""
    _, places = np.unique(labels, return_inverse=True)
    recalls: NDArray[np.float64] = np.bincount(places, weights=right) / np.bincount(places)
    return recalls
