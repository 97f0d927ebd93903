"""Linear SVMs over descriptors (appendix B): one class against the others, C chosen on a fifth of the images."""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

import numpy as np
from numpy.typing import NDArray

from verydeep.images.sources import stratified_split

CHOICES_OF_C = (0.01, 0.1, 1.0, 10.0, 100.0, 1000.0)
"""For vectors of length 1. From underfitting to no regularisation that matters; the paper does not list its own."""

CHOOSING_SHARE = 0.2
"""Of each class's training images: what C is chosen on, as in the paper."""

LEAST_TRAINING_IMAGES = 2
"""Of a class: one to fit and one to choose C on."""

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
    from sklearn.exceptions import ConvergenceWarning  # 1 s to import
    from sklearn.svm import LinearSVC

    # The primal problem: liblinear's other solver takes ten times as long for a large C, and does not always end.
    solver = LinearSVC(C=c, dual=False, random_state=_SEED, max_iter=_MOST_ITERATIONS)
    with warnings.catch_warnings():
        # One that is not quite solved is judged by its recall like any other.
        warnings.simplefilter("ignore", ConvergenceWarning)
        solver.fit(vectors, labels)
    weights, biases = solver.coef_, solver.intercept_
    if len(weights) == 1:  # of two classes there is one plane, the second's
        weights, biases = np.concatenate([-weights, weights]), np.concatenate([-biases, biases])
    # liblinear's stand column by column; safetensors writes memory as it lies.
    return LinearSVM(weights=weights.astype(np.float32, order="C"), biases=biases.astype(np.float32), c=c)


def fit_choosing_c(vectors: NDArray[np.float32], labels: NDArray[np.int64]) -> LinearSVM:
    """The SVM of all the images, with the C that has the highest mean class recall on a fifth that is held out first.

    Of several equally good ones the middle one: with few images the smallest may hold for them by a hair. Which images
    are held out follows from the labels alone.

    Raises:
        ValueError: a class with a single image.
    """
    fitting, choosing = stratified_split(labels.tolist(), CHOOSING_SHARE)
    recalls = []
    for c in CHOICES_OF_C:
        svm = fit(vectors[fitting], labels[fitting], c=c)
        recalls.append(class_recalls(svm.classified(vectors[choosing]) == labels[choosing], labels[choosing]).mean())
    best = np.flatnonzero(np.isclose(recalls, max(recalls)))
    return fit(vectors, labels, c=CHOICES_OF_C[best[len(best) // 2]])


def class_recalls(right: NDArray[np.bool_], labels: NDArray[np.int64]) -> NDArray[np.float64]:
    """Of each class that occurs in `labels` [N], in ascending order: the share of its images that are right, 0..1."""
    _, places = np.unique(labels, return_inverse=True)
    recalls: NDArray[np.float64] = np.bincount(places, weights=right) / np.bincount(places)
    return recalls
