"""The training set's mean RGB and pixel covariance, and Krizhevsky's colour shift, which is drawn from it."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from verydeep.images.decode import WHITE, decode
from verydeep.images.sources import Source

SAMPLE = 10_000
"""Images looked at, at most."""


@dataclass(frozen=True, kw_only=True)
class ColourStatistics:
    """Of the pixels of a set of images, RGB in 0..255; every image weighs the same, whatever its size."""

    mean: tuple[float, float, float]
    covariance: NDArray[np.float64]
    """[3, 3], squared grey levels."""


def colour_statistics(source: Source, *, sample: int = SAMPLE) -> ColourStatistics:
    """Mean RGB and covariance of the pixels of a source, or of `sample` images evenly spread over a larger one.

    Raises:
        UndecodableImageError: a file cannot be decoded; the message names it.
    """
    chosen = np.unique(np.linspace(0, len(source) - 1, min(sample, len(source))).round().astype(int))
    first, second = np.zeros(3), np.zeros((3, 3))
    for index in chosen:
        data, _, name = source[int(index)]
        pixels = decode(data, name).reshape(-1, 3).astype(np.float64)
        first += pixels.mean(axis=0)
        second += pixels.T @ pixels / len(pixels)
    red, green, blue = (first / len(chosen)).tolist()
    mean = np.array([red, green, blue])
    return ColourStatistics(mean=(red, green, blue), covariance=second / len(chosen) - np.outer(mean, mean))


def shift_components(covariance: NDArray[np.float64]) -> NDArray[np.float64]:
    """The rows lambda_i p_i of the colour shift, [3, 3], in grey levels of 0..255.

    lambda and p are eigenvalues and eigenvectors of the covariance of pixels in 0..1: the formula is not
    homogeneous, and with pixels in 0..255 the shifts would be hundreds of grey levels (docs/DEVIATIONS.md).
    """
    eigenvalues, eigenvectors = np.linalg.eigh(covariance / WHITE**2)
    return WHITE * eigenvalues[:, None] * eigenvectors.T


def colour_shift(components: NDArray[np.float64], sd: float, rng: np.random.Generator) -> NDArray[np.float64]:
    """One shift [3] in grey levels, for every pixel of an image: sum_i alpha_i lambda_i p_i, alpha_i ~ N(0, sd^2)."""
    return rng.normal(0, sd, size=3) @ components
