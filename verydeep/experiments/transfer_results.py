"""What SVMs over descriptors found: mean class recall of each over random splits, and how far they are apart."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import combinations
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from verydeep.deployment.features import Pool
from verydeep.deployment.linear_svm import class_recalls
from verydeep.evaluation.metrics import TAILS
from verydeep.experiments.paper import Transferred, reported_transfer

RESAMPLES = 2_000
_SEED = 0

Kind = Literal["network", "stacked", "baseline"]


@dataclass(frozen=True, kw_only=True)
class DescriptorRecall:
    """Of the SVMs over one descriptor, on the test images of every split; in percent."""

    name: str
    kind: Kind
    numbers: int
    """Of an image."""
    recall: float
    """Mean class recall, averaged over the splits."""
    recall_sd: float | None
    """Of the splits' recalls; None with one split."""
    recall_ci95: tuple[float, float]
    """By a bootstrap over the test images: what other splits would give is not in it."""
    recalls: tuple[float, ...]
    """Of each split."""
    per_class: dict[str, float]
    """Averaged over the splits."""
    c: tuple[float, ...]
    """Chosen in each split."""
    paper: Transferred | None
    """The paper's line for the like networks."""


@dataclass(frozen=True, kw_only=True)
class RecallDifference:
    """Two descriptors on the same images; in percentage points."""

    first: str
    second: str
    difference: float
    """Mean class recall of the first minus that of the second, averaged over the splits."""
    difference_ci95: tuple[float, float]
    """By a paired bootstrap over the test images."""
    differences: tuple[float, ...]
    """Of each split."""


@dataclass(frozen=True, kw_only=True)
class Transfer:
    """What `transfer` found."""

    runs: tuple[str, ...]
    source: str
    classes: tuple[str, ...]
    n: int
    """Images that could be used."""
    train: int
    """Training images of each class."""
    test: tuple[int, ...]
    """Test images of each class."""
    splits: int
    seed: int
    scales: tuple[tuple[int, ...], ...]
    """Q of each run, for a crop of 224."""
    pool: Pool
    mirror: tuple[bool, ...]
    """Whether each run's features are averaged with those of the mirror image."""
    descriptors: tuple[DescriptorRecall, ...]
    differences: tuple[RecallDifference, ...]
    unusable: dict[str, str]
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
    right: NDArray[np.bool_]
    """[splits, N], of the test images of each split; false for all others."""
    c: tuple[float, ...]


def descriptor_recalls(
    classified: Sequence[Classified],
    tested: NDArray[np.bool_],
    labels: NDArray[np.int64],
    classes: Sequence[str],
) -> tuple[tuple[DescriptorRecall, ...], tuple[RecallDifference, ...]]:
    """Every descriptor, and every two of them but for two baselines.

    Args:
        classified: of each descriptor.
        tested: [splits, N], which images each split tests on: some of each class.
        labels: [N]
        classes: their names.
    """
    of_classes = np.stack([_of_classes(one.right, tested, labels) for one in classified])  # [descriptors, splits, C]
    drawn = bootstrapped_recalls(np.stack([one.right for one in classified]), tested, labels)
    recalls = 100 * of_classes.mean(axis=2)
    found = tuple(
        DescriptorRecall(
            name=one.name,
            kind=one.kind,
            numbers=one.numbers,
            recall=float(its.mean()),
            recall_sd=float(its.std(ddof=1)) if len(its) > 1 else None,
            recall_ci95=_interval(its_drawn),
            recalls=tuple(its.tolist()),
            per_class=dict(zip(classes, (100 * by_class.mean(axis=0)).tolist(), strict=True)),
            c=one.c,
            paper=reported_transfer(one.networks),
        )
        for one, its, its_drawn, by_class in zip(classified, recalls, drawn, of_classes, strict=True)
    )
    differences = tuple(
        RecallDifference(
            first=found[one].name,
            second=found[other].name,
            difference=float((recalls[one] - recalls[other]).mean()),
            difference_ci95=_interval(drawn[one] - drawn[other]),
            differences=tuple((recalls[one] - recalls[other]).tolist()),
        )
        for one, other in combinations(range(len(found)), 2)
        if not found[one].kind == found[other].kind == "baseline"
    )
    return found, differences


def bootstrapped_recalls(
    right: NDArray[np.bool_], tested: NDArray[np.bool_], labels: NDArray[np.int64]
) -> NDArray[np.float64]:
    """[descriptors, RESAMPLES], mean class recall over all splits, in percent, of images drawn again and again.

    An image is drawn with all that is known of it, from every split and every descriptor: splits share images, and
    descriptors find the same ones hard. Of each class as many are drawn as are tested in one split or another.

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
        counts = rng.multinomial(len(its), np.full(len(its), 1 / len(its)), size=RESAMPLES).astype(np.float64)
        shown = counts @ tested[:, its].T  # [RESAMPLES, splits]
        hits = counts @ right[:, :, its].transpose(0, 2, 1)  # [descriptors, RESAMPLES, splits]
        of_splits = np.divide(hits, shown, out=np.full_like(hits, np.nan), where=shown > 0)
        total += np.nanmean(of_splits, axis=2)  # a drawing may lack all of a split's images, not those of all splits
    return 100 * total / len(names)


def _of_classes(right: NDArray[np.bool_], tested: NDArray[np.bool_], labels: NDArray[np.int64]) -> NDArray[np.float64]:
    """[splits, classes], the share of each class's test images that are right."""
    return np.stack([class_recalls(its_right[its], labels[its]) for its_right, its in zip(right, tested, strict=True)])


def _interval(drawn: NDArray[np.float64]) -> tuple[float, float]:
    low, high = np.percentile(drawn, TAILS)
    return float(low), float(high)
