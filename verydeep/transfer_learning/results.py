"""What SVMs over descriptors found: how good each is over the splits, and how far they are apart."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import combinations
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from verydeep.descriptors.descriptor import VectorPool
from verydeep.statistics import percentile_interval
from verydeep.transfer_learning.measures import Measured
from verydeep.transfer_learning.paper import Measure, Transferred, reported_transfer

Kind = Literal["network", "stacked", "baseline"]


@dataclass(frozen=True, kw_only=True)
class DescriptorResult:
    """Of the SVMs over one descriptor, on the test images of every split; in percent, by `Transfer.measure`."""

    name: str
    kind: Kind
    numbers: int
    """Of an image."""
    mean: float
    """Of the classes' recalls or average precisions, and of the splits."""
    mean_sd: float | None
    """Of the splits' means; None with one split."""
    mean_ci95: tuple[float, float] | None
    """By a bootstrap over the test images: what other splits would give is not in it. None if a class has
    a single one."""
    means: tuple[float, ...]
    """Of each split."""
    per_class: dict[str, float]
    """Recall or average precision, averaged over the splits."""
    eleven_point_map: float | None
    """mAP by the definition of VOC 2007, averaged over the splits; None of recalls."""
    c: tuple[float, ...]
    """Chosen in each split."""
    paper: Transferred | None
    """The paper's line for the like networks."""


@dataclass(frozen=True, kw_only=True)
class DescriptorDifference:
    """Two descriptors on the same images; in percentage points."""

    first: str
    second: str
    difference: float
    """Mean of the first minus that of the second."""
    difference_ci95: tuple[float, float] | None
    """By a paired bootstrap over the test images."""
    differences: tuple[float, ...]
    """Of each split."""


@dataclass(frozen=True, kw_only=True)
class Transfer:
    """What `transfer` found."""

    runs: tuple[str, ...]
    source: str
    labels: str | None
    """File that says what each image shows; None where images have one label, by their source."""
    test_images: str | None
    """File that names the images for testing; None where splits are drawn."""
    measure: Measure
    classes: tuple[str, ...]
    n: int
    """Images that could be used."""
    n_train: int
    """In the first split; with one label an image in all."""
    n_test: int
    """In the first split; with one label an image in all."""
    train: tuple[int, ...]
    """Those of `n_train` that show each class."""
    test: tuple[int, ...]
    """Those of `n_test` that show each class."""
    splits: int
    seed: int
    scales: tuple[tuple[int, ...], ...]
    """Q of each run, for a crop of 224."""
    pool: VectorPool
    mirror: tuple[bool, ...]
    """Whether each run's features are averaged with those of the mirror image."""
    chance: float
    """Percent: recall of classes drawn at random, or mAP of scores that are all equal."""
    descriptors: tuple[DescriptorResult, ...]
    differences: tuple[DescriptorDifference, ...]
    unusable: dict[str, str]
    copies: int
    """Images for testing, of all splits, with an exact copy among the training images of their split."""
    seconds: float

    def to_dict(self) -> dict[str, Any]:
        """The figures as plain dictionaries, ready for JSON."""
        return asdict(self)


@dataclass(frozen=True, kw_only=True)
class Classified:
    """What the SVMs over one descriptor made of the test images."""

    name: str
    kind: Kind
    networks: str
    """As the paper's tables call them; empty where none is in it."""
    numbers: int
    outcome: NDArray[Any]
    """Of the test images of each split, nothing of others: [splits, N], which are right; with several labels an image
    [splits, N, classes], scores."""
    c: tuple[float, ...]


def descriptor_results(
    classified: Sequence[Classified], measured: Measured, classes: Sequence[str]
) -> tuple[tuple[DescriptorResult, ...], tuple[DescriptorDifference, ...]]:
    """Every descriptor, and every two of them but for two baselines.

    Args:
        classified: of each descriptor.
        measured: of their outcomes.
        classes: their names.
    """
    means, drawn = 100 * measured.of_classes.mean(axis=2), measured.drawn
    eleven = measured.eleven_point
    found = tuple(
        DescriptorResult(
            name=one.name,
            kind=one.kind,
            numbers=one.numbers,
            mean=float(its.mean()),
            mean_sd=float(its.std(ddof=1)) if len(its) > 1 else None,
            mean_ci95=_interval(drawn[place], within=(0, 100)),
            means=tuple(its.tolist()),
            per_class=dict(zip(classes, (100 * measured.of_classes[place].mean(axis=0)).tolist(), strict=True)),
            eleven_point_map=None if eleven is None else 100 * float(eleven[place].mean()),
            c=one.c,
            paper=reported_transfer(one.networks),
        )
        for place, (one, its) in enumerate(zip(classified, means, strict=True))
    )
    differences = tuple(
        DescriptorDifference(
            first=found[one].name,
            second=found[other].name,
            difference=float((means[one] - means[other]).mean()),
            difference_ci95=_interval(drawn[one] - drawn[other]),
            differences=tuple((means[one] - means[other]).tolist()),
        )
        for one, other in combinations(range(len(found)), 2)
        if not found[one].kind == found[other].kind == "baseline"
    )
    return found, differences


def _interval(
    drawn: NDArray[np.float64], within: tuple[float, float] = (-np.inf, np.inf)
) -> tuple[float, float] | None:
    known = drawn[~np.isnan(drawn)]
    if not len(known):
        return None
    low, high = np.clip(percentile_interval(known), *within).tolist()
    return low, high
