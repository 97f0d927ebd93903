"""Errors in percent, where they are made, and whether probabilities can be taken at their word."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int

TOP = 5
"""Answers of which one must be right; in the full test of boxes, classes whose boxes are returned (ILSVRC allows 5)."""

_BINS = 15
"""Bins of the reliability curve, equally wide (Guo et al., On Calibration of Modern Neural Networks, 2017)."""


@dataclass(frozen=True, kw_only=True)
class ReliabilityBin:
    """The images whose most probable class has a probability in (low, high]."""

    low: float
    high: float
    n: int
    confidence: float | None
    """Mean of that probability, 0..1; None without images."""
    accuracy: float | None
    """Share of images that are right, 0..1; None without images."""


@dataclass(frozen=True, kw_only=True)
class Calibration:
    """Whether images that get a probability of 0.8, say, are right 80% of the time."""

    expected_calibration_error: float
    """Mean distance between confidence and accuracy of the bins, weighted by their images, in percent."""
    bins: tuple[ReliabilityBin, ...]


def misclassified(
    posteriors: Float[np.ndarray, "N K"], labels: Int[np.ndarray, " N"], *, top: int = 1
) -> Bool[np.ndarray, " N"]:
    """Return for each image whether the right class is not among the `top` most probable ones.

    Of classes with equal probability the right one counts as the last, so that a constant output is not rewarded.
    Neither is one that is not a number.
    """
    right = posteriors[np.arange(len(labels)), labels][:, None]
    return (~(posteriors < right)).sum(axis=1) > top


def predicted(posteriors: Float[np.ndarray, "N K"], labels: Int[np.ndarray, " N"]) -> Int[np.ndarray, " N"]:
    """Return the most probable class of each image; where the right one ties with others, one of those.

    It is the right class exactly where `misclassified` says so.
    """
    rivals = posteriors.copy()
    rivals[np.arange(len(labels)), labels] = -1
    return np.where(misclassified(posteriors, labels), rivals.argmax(axis=1), labels)


def error_percent(wrong: Bool[np.ndarray, " N"]) -> float:
    """Return the share of images that are wrong, in percent."""
    return 100 * float(wrong.mean())


def class_balanced_error(wrong: Bool[np.ndarray, " N"], labels: Int[np.ndarray, " N"]) -> float:
    """Return the mean of the classes' errors, in percent; classes without images do not count."""
    images, errors = np.bincount(labels), np.bincount(labels, weights=wrong)
    there = images > 0
    return 100 * float((errors[there] / images[there]).mean())


def confusion_matrix(
    predictions: Int[np.ndarray, " N"], labels: Int[np.ndarray, " N"], *, classes: int
) -> Int[np.ndarray, "K K"]:
    """Count how many images of the class of each row were taken for that of each column."""
    return np.bincount(labels * classes + predictions, minlength=classes**2).reshape(classes, classes)


def calibration(
    posteriors: Float[np.ndarray, "N K"], labels: Int[np.ndarray, " N"], *, bins: int = _BINS
) -> Calibration:
    """Return the reliability curve and the expected calibration error of the most probable class."""
    confidence = posteriors.max(axis=1)
    right = ~misclassified(posteriors, labels)
    bin_of_image = np.searchsorted(np.arange(1, bins) / bins, confidence)  # what lies on an edge is below it
    curve, gaps = [], 0.0
    for number in range(bins):
        inside = bin_of_image == number
        n = int(inside.sum())
        mean = float(confidence[inside].mean()) if n else None
        accuracy = float(right[inside].mean()) if n else None
        gaps += n * abs(mean - accuracy) if mean is not None and accuracy is not None else 0
        edges = number / bins, (number + 1) / bins
        curve.append(ReliabilityBin(low=edges[0], high=edges[1], n=n, confidence=mean, accuracy=accuracy))
    return Calibration(expected_calibration_error=100 * gaps / len(labels), bins=tuple(curve))
