"""Linear SVMs over descriptors (appendix B): one class against the others, C chosen on a fifth of the images."""

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import cast

import numpy as np
from jaxtyping import Float32, Float64, Int, Int8, Int64
from numpy.typing import NDArray

from verydeep.images.sources.splits import stratified_split
from verydeep.transfer_learning.measures import Labels, class_average_precisions, class_recalls

CHOICES_OF_C = (0.01, 0.1, 1.0, 10.0, 100.0, 1000.0)
"""For vectors of length 1. From underfitting to no regularisation that matters; the paper does not list its own."""

_CHOOSING_SHARE = 0.2
"""Share of each class's training images that C is chosen on, as in the paper."""

_TOLERANCE = 1e-6
"""liblinear's own 1e-4 leaves scores of C = 1000 half a margin away from those of the best weights; with this 0.007."""

_MOST_ITERATIONS = 10_000
_SEED = 0


@dataclass(frozen=True, kw_only=True)
class LinearSVM:
    """A score for each class, linear in a descriptor."""

    weights: Float32[np.ndarray, "K D"]
    biases: Float32[np.ndarray, " K"]
    c: float

    def scores(self, vectors: Float32[np.ndarray, "N D"]) -> Float32[np.ndarray, "N K"]:
        """Return signed distances from each class's plane, in units of its margin."""
        return vectors @ self.weights.T + self.biases

    def predicted(self, vectors: Float32[np.ndarray, "N D"]) -> Int64[np.ndarray, " N"]:
        """Return the class with the highest score."""
        return self.scores(vectors).argmax(axis=1)


def stacked(described: Sequence[Float32[np.ndarray, "N _"]]) -> Float32[np.ndarray, "N D"]:
    """Put the vectors [N, D] of several networks one after the other, with length 1 again."""
    return cast(NDArray[np.float32], np.concatenate(described, axis=1) / np.float32(len(described) ** 0.5))


def fit(vectors: Float32[np.ndarray, "N D"], labels: Int64[np.ndarray, " N"], *, c: float) -> LinearSVM:
    """Fit an SVM to images with labels 0, 1, ..., at least one image of each.

    It is liblinear's: one plane for each class. libsvm's would take one for every two classes, 32,640 for the 256
    classes of Caltech-256, and could not be kept as one matrix.
    """
    rotated, back = _rotated(vectors)
    weights, biases = _planes(rotated, labels, c)
    if len(weights) == 1:  # of two classes there is one plane, the second's
        weights, biases = np.concatenate([-weights, weights]), np.concatenate([-biases, biases])
    return _svm(weights @ back, biases, c)


def _fit_multilabel(vectors: Float32[np.ndarray, "N D"], shown: Int8[np.ndarray, "N K"], *, c: float) -> LinearSVM:
    """Fit an SVM to images with several labels: each class against the images known not to show it.

    Args:
        vectors: one for each image.
        shown: 1 for images that show a class, -1 for others, 0 for those that do not count for it; there are both
            kinds for each class.
        c: the same for all classes.
    """
    rotated, back = _rotated(vectors)
    planes = []
    for signs in shown.T:
        counted = signs != 0
        planes.append(_planes(rotated if counted.all() else rotated[counted], signs[counted] > 0, c))
    weights, biases = (np.concatenate(arrays) for arrays in zip(*planes, strict=True))
    return _svm(weights @ back, biases, c)


def _rotated(vectors: NDArray[np.float32]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return vectors [N, d] with the same products with one another, and the matrix [d, D] that takes weights back.

    Where there are fewer vectors than numbers in each (D), N directions hold them all: an SVM, whose penalty is the
    length of its weights, is the same there, and found 5 times (D = 1,024) to 18 times (4,096) as fast with N = 300.
    """
    whole = np.asarray(vectors, np.float64)  # liblinear's
    if len(whole) >= whole.shape[1]:
        return whole, np.eye(whole.shape[1])
    directions, rotated = np.linalg.qr(whole.T)
    return np.ascontiguousarray(rotated.T), directions.T


def _planes(
    vectors: NDArray[np.float64], labels: NDArray[np.generic], c: float
) -> tuple[Float64[np.ndarray, "K d"], Float64[np.ndarray, " K"]]:
    """Return weights and biases of each class against the others; for two classes those of the second alone."""
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
    # liblinear's are in column order; safetensors writes memory as it is.
    return LinearSVM(weights=weights.astype(np.float32, order="C"), biases=biases.astype(np.float32), c=c)


def fit_choosing_c(vectors: Float32[np.ndarray, "N D"], labels: Labels) -> LinearSVM:
    """Fit an SVM to all the images, with the C that does best on a fifth that is held out first.

    Best is the highest mean class recall or, with several labels per image, the highest mean average precision. Of
    several equally good values the middle one is taken: with few images the smallest may be just enough for them. Which
    images are held out follows from the labels alone.

    Raises:
        ValueError: a class with too few images.
    """
    multilabel = labels.ndim == 2
    fitting, choosing = multilabel_split(labels) if multilabel else stratified_split(labels.tolist(), _CHOOSING_SHARE)
    train: Callable[..., LinearSVM] = _fit_multilabel if multilabel else fit
    fitted = [train(vectors[fitting], labels[fitting], c=c) for c in CHOICES_OF_C]
    figures = [_figure(svm, vectors[choosing], labels[choosing]) for svm in fitted]
    best = np.flatnonzero(np.isclose(figures, max(figures)))
    return train(vectors, labels, c=CHOICES_OF_C[best[len(best) // 2]])


def multilabel_split(shown: Int[np.ndarray, "N K"]) -> tuple[list[int], list[int]]:
    """Divide images with several labels; the second part has a fifth of those that show each class.

    From the rarest class to the most common one, images that show it are taken until there are enough; those taken for
    other classes count. The first part keeps an image with and one without each class; where too few images show
    several classes, the second may have none of one of them. The same labels always give the same parts.
    """
    positive, negative = shown > 0, shown < 0
    left, left_without = positive.sum(axis=0), negative.sum(axis=0)
    wanted = np.maximum(1, np.round(_CHOOSING_SHARE * left)).astype(int)
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


def _figure(svm: LinearSVM, vectors: NDArray[np.float32], labels: Labels) -> float:
    """Return the mean average precision or, with one label per image, the mean class recall."""
    if labels.ndim == 2:
        return float(class_average_precisions(svm.scores(vectors), labels).mean())
    return float(class_recalls(svm.predicted(vectors) == labels, labels).mean())
