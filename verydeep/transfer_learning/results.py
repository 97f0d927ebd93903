"""Results of SVMs over descriptors: how good each is over the splits, and how far they are apart."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import combinations
from typing import Any

import numpy as np
from numpy.typing import NDArray

from verydeep.descriptors.descriptor import VectorPool
from verydeep.statistics import percentile_interval
from verydeep.transfer_learning.compared_descriptors import Compared, DescriptorKind, SVMOutcome
from verydeep.transfer_learning.measures import Measured
from verydeep.transfer_learning.paper import Measure, Transferred, reported_transfer


@dataclass(frozen=True, kw_only=True)
class DescriptorResult:
    """Figures of the SVMs over one descriptor, on the test images of every split, in percent by `Transfer.measure`."""

    name: str
    kind: DescriptorKind
    numbers: int
    """Numbers that describe an image."""
    mean: float
    """Mean of the classes' recalls or average precisions, and of the splits."""
    mean_sd: float | None
    """Standard deviation of the splits' means; None with one split."""
    mean_ci95: tuple[float, float] | None
    """By a bootstrap over the test images, without the spread that other splits would give. None if a class has
    a single test image."""
    means: tuple[float, ...]
    """Mean of each split."""
    per_class: dict[str, float]
    """Recall or average precision, averaged over the splits."""
    eleven_point_map: float | None
    """mAP by the definition of VOC 2007, averaged over the splits; None for recalls."""
    c: tuple[float, ...]
    """C chosen in each split."""
    paper: Transferred | None
    """The paper's line for these networks."""


@dataclass(frozen=True, kw_only=True)
class DescriptorDifference:
    """Difference of two descriptors on the same images, in percentage points."""

    first: str
    second: str
    difference: float
    """Mean of the first minus that of the second."""
    difference_ci95: tuple[float, float] | None
    """By a paired bootstrap over the test images."""
    differences: tuple[float, ...]
    """Difference in each split."""


@dataclass(frozen=True, kw_only=True)
class Transfer:
    """Results of `transfer`."""

    runs: tuple[str, ...]
    source: str
    labels: str | None
    """File of the images' labels; None if images have one label, by their source."""
    test_images: str | None
    """File that names the images for testing; None if splits are sampled."""
    measure: Measure
    classes: tuple[str, ...]
    n: int
    """Images that could be used."""
    n_train: int
    """Training images in the first split; in every one, with one label per image."""
    n_test: int
    """Test images in the first split; in every one, with one label per image."""
    train: tuple[int, ...]
    """How many of `n_train` show each class."""
    test: tuple[int, ...]
    """How many of `n_test` show each class."""
    splits: int
    seed: int
    scales: tuple[tuple[int, ...], ...]
    """Q of each run, for a crop of 224."""
    pool: VectorPool
    mirror: tuple[bool, ...]
    """Whether each run's features are averaged with those of the mirror image."""
    chance: float
    """Recall of random classes, or mAP of scores that are all equal, in percent."""
    descriptors: tuple[DescriptorResult, ...]
    differences: tuple[DescriptorDifference, ...]
    unusable: dict[str, str]
    copies: int
    """Test images, of all splits, with an exact copy among the training images of their split."""
    seconds: float

    def to_dict(self) -> dict[str, Any]:
        """Return the figures as plain dictionaries, ready for JSON."""
        return asdict(self)


def descriptor_results(
    compared: Sequence[Compared], outcomes: Sequence[SVMOutcome], measured: Measured, classes: Sequence[str]
) -> tuple[DescriptorResult, ...]:
    """Return the figures of every descriptor.

    Args:
        compared: the descriptors.
        outcomes: of each of them.
        measured: figures of these outcomes.
        classes: their names.
    """
    means, eleven = 100 * measured.per_class.mean(axis=2), measured.eleven_point
    return tuple(
        DescriptorResult(
            name=one.name,
            kind=one.kind,
            numbers=one.images.vectors.shape[1],
            mean=float(means[row].mean()),
            mean_sd=float(means[row].std(ddof=1)) if means.shape[1] > 1 else None,
            mean_ci95=_interval(measured.resampled[row], within=(0, 100)),
            means=tuple(means[row].tolist()),
            per_class=dict(zip(classes, (100 * measured.per_class[row].mean(axis=0)).tolist(), strict=True)),
            eleven_point_map=None if eleven is None else 100 * float(eleven[row].mean()),
            c=outcome.c,
            paper=reported_transfer(one.networks),
        )
        for row, (one, outcome) in enumerate(zip(compared, outcomes, strict=True))
    )


def descriptor_differences(results: Sequence[DescriptorResult], measured: Measured) -> tuple[DescriptorDifference, ...]:
    """Return the differences of every two descriptors, except two baselines.

    Args:
        results: of each descriptor.
        measured: figures that they were made from.
    """
    means, resampled = 100 * measured.per_class.mean(axis=2), measured.resampled
    return tuple(
        DescriptorDifference(
            first=results[one].name,
            second=results[other].name,
            difference=float((means[one] - means[other]).mean()),
            difference_ci95=_interval(resampled[one] - resampled[other]),
            differences=tuple((means[one] - means[other]).tolist()),
        )
        for one, other in combinations(range(len(results)), 2)
        if not results[one].kind == results[other].kind == "baseline"
    )


def _interval(
    resampled: NDArray[np.float64], within: tuple[float, float] = (-np.inf, np.inf)
) -> tuple[float, float] | None:
    known = resampled[~np.isnan(resampled)]
    if not len(known):
        return None
    low, high = np.clip(percentile_interval(known), *within).tolist()
    return low, high
