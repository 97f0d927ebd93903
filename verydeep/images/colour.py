"""The training set's mean RGB and pixel covariance, and Krizhevsky's colour shift, which follows from it."""

import hashlib
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from jaxtyping import Float64

from verydeep.images.decode import WHITE, Refusal, UnusableImageError, decode
from verydeep.images.image_kinds import missing_for_heif
from verydeep.images.quarantine import Quarantine
from verydeep.images.sources.source import Source, contents_digests, subset
from verydeep.images.workers import single_items
from verydeep.machine import cache
from verydeep.numbers import counted
from verydeep.presentation.terminal import reporting

SAMPLE = 100_000
"""Images looked at, at most."""

_Triple = tuple[float, float, float]

_PIXELS_AT_ONCE = 2**20
"""Pixels of one image as 64-bit numbers: those of a large image would take gigabytes."""

_FORMAT = 3
"""Version of the kept figures; to be raised when the same source would give others."""

_SAMPLE_SEED = 0
"""Fixed: the statistics belong to the source, not to a training."""


@dataclass(frozen=True, kw_only=True)
class ColourStatistics:
    """Statistics of the pixels of a set of images, RGB in 0..255; every image counts the same, whatever its size."""

    mean: _Triple
    covariance: Float64[np.ndarray, "3 3"]
    """Squared grey levels."""
    images: int
    """Number of images looked at."""


@dataclass(frozen=True, kw_only=True)
class _Stored:
    """The kept findings of a look through a source."""

    mean: _Triple
    covariance: tuple[_Triple, _Triple, _Triple]
    images: int
    unusable: list[tuple[int, Refusal, str]]
    """Index of the image, kind and detail of each refusal: names may change where contents do not."""


def colour_statistics(
    source: Source, *, quarantine: Quarantine | None = None, workers: int = 0, sample: int = SAMPLE
) -> ColourStatistics:
    """Return mean RGB and covariance of the pixels of a source, or of a seeded sample of its images if it is larger.

    Images that cannot be used are left out. The result is kept under the contents of these images, which are decoded
    once.

    Raises:
        TooManyBadImagesError: the quarantine is full.
        ValueError: no image can be used.
    """
    listed = quarantine or Quarantine(len(source))
    max_pixels, indices = listed.tolerance.max_pixels, _sample(len(source), sample)

    def compute() -> dict[str, Any]:
        return _look_through(source, indices, listed, workers)

    contents = hashlib.sha256(b"".join(contents_digests(subset(source, indices)))).hexdigest()
    key = (_FORMAT, contents, len(source), sample, _SAMPLE_SEED, max_pixels, missing_for_heif() is None)
    stored = cache.remembered("colour", key, compute, _Stored)
    for index, kind, detail in stored.unusable:
        listed.add(UnusableImageError(source.ids[index], kind, detail))
    return ColourStatistics(mean=stored.mean, covariance=np.array(stored.covariance), images=stored.images)


def _sample(images: int, at_most: int) -> Sequence[int]:
    """Choose indices, all or at random; they ascend."""
    if images <= at_most:
        return range(images)
    return sorted(np.random.Generator(np.random.PCG64(_SAMPLE_SEED)).choice(images, at_most, replace=False).tolist())


def _look_through(source: Source, indices: Sequence[int], quarantine: Quarantine, workers: int) -> dict[str, Any]:
    first, second, images = np.zeros(3), np.zeros((3, 3)), 0
    unusable: list[tuple[int, Refusal, str]] = []
    items = single_items(partial(_moments, source, quarantine.tolerance.max_pixels), indices, workers=workers)
    with reporting("mean RGB and covariance", len(indices)) as report, closing(items):
        quarantine.say = report.say
        for index, item in zip(indices, items, strict=True):
            if isinstance(item, UnusableImageError):
                quarantine.add(item)
                unusable.append((index, item.kind, item.detail))
            else:
                first, second, images = first + item[0], second + item[1], images + 1
            report.advance()
    if not images:
        raise ValueError(f"none of the {counted(len(indices), 'image')} looked at can be used")
    mean = first / images
    covariance = second / images - np.outer(mean, mean)
    return {"mean": mean.tolist(), "covariance": covariance.tolist(), "images": images, "unusable": unusable}


def _moments(
    source: Source, max_pixels: int, index: int
) -> tuple[Float64[np.ndarray, " 3"], Float64[np.ndarray, "3 3"]]:
    """Return the first two moments of an image's pixels."""
    data, _, name = source[index]
    pixels = decode(data, name, max_pixels=max_pixels).reshape(-1, 3)
    first, second = np.zeros(3), np.zeros((3, 3))
    for start in range(0, len(pixels), _PIXELS_AT_ONCE):
        some = pixels[start : start + _PIXELS_AT_ONCE].astype(np.float64)
        first += np.ones(len(some)) @ some  # NumPy's mean along the long axis takes 20 times as long
        second += some.T @ some
    return first / len(pixels), second / len(pixels)


def shift_components(covariance: Float64[np.ndarray, "3 3"]) -> Float64[np.ndarray, "3 3"]:
    """Return the rows lambda_i p_i of the colour shift, in grey levels of 0..255.

    lambda and p are eigenvalues and eigenvectors of the covariance of pixels in 0..1: the formula is not
    homogeneous, and with pixels in 0..255 the shifts would be hundreds of grey levels (docs/DEVIATIONS.md).
    """
    eigenvalues, eigenvectors = np.linalg.eigh(covariance / WHITE**2)
    return WHITE * eigenvalues[:, None] * eigenvectors.T


def colour_shift(
    components: Float64[np.ndarray, "3 3"], sd: float, rng: np.random.Generator
) -> Float64[np.ndarray, " 3"]:
    """Sample the shift of all pixels of an image, in grey levels: sum_i alpha_i lambda_i p_i, alpha_i ~ N(0, sd^2)."""
    return rng.normal(0, sd, size=3) @ components
