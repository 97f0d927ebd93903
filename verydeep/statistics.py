"""Confidence intervals and significance tests: pure functions on arrays.

Errors are in percent and their differences in percentage points. Whatever is resampled is resampled from the same seed,
so the same outcomes give the same figures again.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from jaxtyping import Bool, Float

CONFIDENCE = 0.95

RESAMPLES = 10_000
_SEED = 0

_TAILS = 50 * (1 - CONFIDENCE), 50 * (1 + CONFIDENCE)
"""Percentiles at the ends of an interval."""


def wilson_interval(wrong: Bool[np.ndarray, " N"]) -> tuple[float, float]:
    """Return the 95% score interval of an error in percent, which also holds near 0 and 100.

    Source: Wilson, Probable Inference, the Law of Succession, and Statistical Inference, 1927.
    """
    from scipy.stats import binomtest

    interval = binomtest(int(wrong.sum()), len(wrong)).proportion_ci(CONFIDENCE, method="wilson")
    return 100 * float(interval.low), 100 * float(interval.high)


def percentile_interval(resampled: Float[np.ndarray, " R"]) -> tuple[float, float]:
    """Return the 95% percentile interval of resampled values (Efron, Bootstrap Methods, 1979)."""
    low, high = np.percentile(resampled, _TAILS)
    return float(low), float(high)


def _mcnemar(only_first_wrong: int, only_second_wrong: int) -> float:
    """Return the two-sided exact p value that images which one result alone gets wrong fall to either equally often.

    Source: McNemar, Note on the Sampling Error of the Difference Between Correlated Proportions, 1947.
    """
    from scipy.stats import binomtest

    differing = only_first_wrong + only_second_wrong
    return float(binomtest(only_first_wrong, differing).pvalue) if differing else 1.0


def _paired_bootstrap_interval(only_first_wrong: int, only_second_wrong: int, n: int) -> tuple[float, float]:
    """Return the 95% interval of the difference of two errors on the same n images, by resampling the images.

    How many a resample has of the three kinds of images (only the first is wrong, only the second, neither or both) is
    multinomial, so those counts are sampled instead of images.
    """
    shares = np.array([only_first_wrong, only_second_wrong, n - only_first_wrong - only_second_wrong]) / n
    counts = np.random.default_rng(_SEED).multinomial(n, shares, size=RESAMPLES)
    return percentile_interval(100 * (counts[:, 0] - counts[:, 1]) / n)


def resampled_differences(gaps: Float[np.ndarray, "seeds N"]) -> Float[np.ndarray, " R"]:
    """Return the mean gap in points over resampled seeds on resampled images, both with replacement.

    `gaps` are those of every image in every seed: first wrong minus second wrong. Images with the same gaps in all
    seeds are alike, so how many of each kind a resample has is multinomial.
    """
    rng = np.random.default_rng(_SEED)
    kinds, counts = np.unique(gaps, axis=1, return_counts=True)
    images = gaps.shape[1]
    means = rng.multinomial(images, counts / images, size=RESAMPLES) @ kinds.T / images
    seeds = rng.integers(len(gaps), size=(RESAMPLES, len(gaps)))
    return 100 * np.take_along_axis(means, seeds, axis=1).mean(axis=1)


def bootstrap_p_value(resampled: Float[np.ndarray, " R"], bound: float) -> float:
    """Return the two-sided p value that the value which was resampled reaches `bound`."""
    return min(1.0, 2 * (1 + int((resampled >= bound).sum())) / (1 + len(resampled)))


def sign_test(gaps: Float[np.ndarray, "seeds N"]) -> float:
    """Return the two-sided p value that the images' mean gaps over all seeds have no preferred sign.

    It is Fisher's randomisation test of paired differences (The Design of Experiments, 1935). With one seed and gaps of
    1, 0 and -1 it is the exact McNemar test; otherwise signs are sampled.
    """
    means = gaps.mean(axis=0)
    if len(gaps) == 1 and set(np.unique(gaps)) <= {-1.0, 0.0, 1.0}:
        return _mcnemar(int((gaps > 0).sum()), int((gaps < 0).sum()))
    sizes, counts = np.unique(abs(means[means != 0]), return_counts=True)
    if not len(sizes):
        return 1.0
    rng = np.random.default_rng(_SEED)
    sums = sum(
        size * (2 * rng.binomial(count, 0.5, size=RESAMPLES) - count) for size, count in zip(sizes, counts, strict=True)
    )
    as_extreme = int((abs(sums) >= abs(means.sum()) - 1e-9).sum())
    return (1 + as_extreme) / (1 + RESAMPLES)


def t_test(differences: Float[np.ndarray, " seeds"]) -> float:
    """Return the two-sided p value of a mean of 0 over seeds; 0 with one seed, which says nothing about others.

    Source: Student, The Probable Error of a Mean, 1908.
    """
    from scipy.stats import ttest_1samp

    if len(differences) < 2:
        return 0.0
    if np.ptp(differences) == 0:
        return 1.0 if differences[0] == 0 else 0.0
    return float(ttest_1samp(differences, 0.0).pvalue)


def holm(p_values: Sequence[float]) -> list[float]:
    """Correct p values for their number, so that each may be compared with the level as if it were the only one.

    Source: Holm, A Simple Sequentially Rejective Multiple Test Procedure, 1979.
    """
    order = sorted(range(len(p_values)), key=lambda which: p_values[which])
    corrected, greatest = [0.0] * len(p_values), 0.0
    for rank, which in enumerate(order):
        greatest = max(greatest, min(1.0, (len(p_values) - rank) * p_values[which]))
        corrected[which] = greatest
    return corrected


def bootstrap_counts(rng: np.random.Generator, images: int, resamples: int) -> Float[np.ndarray, "R N"]:
    """Return how many times each of N images is in each of R resamples with replacement."""
    return rng.multinomial(images, np.full(images, 1 / images), size=resamples).astype(np.float64)


def with_unbiased_spread(resampled: Float[np.ndarray, "*other R"], images: int) -> Float[np.ndarray, "*other R"]:
    """Spread resampled means of so many images by the root of n / (n - 1); NaN for a single image.

    Resamples of n images have (n - 1) / n of the variance that the images were themselves sampled with.
    """
    centre = resampled.mean(axis=-1, keepdims=True)
    spread = float(np.sqrt(images / (images - 1))) if images > 1 else np.nan
    return centre + (resampled - centre) * spread


def centred(
    resampled: Float[np.ndarray, "other R"], means: Float[np.ndarray, " other"]
) -> Float[np.ndarray, "other R"]:
    """Move resampled values so that their mean, in which NaN does not count, is the one they tell the spread of."""
    return resampled + (means - np.nanmean(resampled, axis=1))[:, None]


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """Top-1 errors of two results, image by image."""

    first: str
    second: str
    n: int
    only_first_wrong: int
    only_second_wrong: int
    difference: float
    """Error of the first minus that of the second, in percentage points."""
    difference_ci95: tuple[float, float]
    """95% interval by a paired bootstrap over the images."""
    p_value: float
    """Exact McNemar test of 'both err equally often': two-sided; not corrected for several comparisons."""

    def to_dict(self) -> dict[str, Any]:
        """Return the figures as a plain dictionary, ready for JSON."""
        return asdict(self)


def paired_comparison(
    first: str, second: str, wrong: Bool[np.ndarray, " N"], other: Bool[np.ndarray, " M"]
) -> Comparison:
    """Compare which images two results got wrong.

    Args:
        first: name of one result.
        second: name of the other.
        wrong: true for the images that the first got wrong.
        other: the same of the second, image by image.

    Raises:
        ValueError: there are no images, or the results do not have equally many.
    """
    if not len(wrong) or len(wrong) != len(other):
        raise ValueError(f"two results on the same images can be compared, not on {len(wrong):,} and {len(other):,}")
    only_first, only_second = int((wrong & ~other).sum()), int((other & ~wrong).sum())
    return Comparison(
        first=first,
        second=second,
        n=len(wrong),
        only_first_wrong=only_first,
        only_second_wrong=only_second,
        difference=100 * (only_first - only_second) / len(wrong),
        difference_ci95=_paired_bootstrap_interval(only_first, only_second, len(wrong)),
        p_value=_mcnemar(only_first, only_second),
    )
