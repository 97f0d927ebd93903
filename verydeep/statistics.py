"""Confidence intervals and significance tests: pure functions.

Errors are in percent and their differences in percentage points.
"""

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from jaxtyping import Bool, Float

from verydeep.numbers import number

CONFIDENCE = 0.95

LEVEL_OF_HOLDS, LEVEL_OF_REVERSED = 0.8 * (1 - CONFIDENCE), 0.2 * (1 - CONFIDENCE)
"""Probabilities of any false verdict of either kind; the paper's own direction has more of it, since it is the
question."""

POWER = 0.8
"""Probability with which a difference is to be told, wherever one is planned for."""

RESAMPLES = 10_000

_TAILS = 50 * (1 - CONFIDENCE), 50 * (1 + CONFIDENCE)
"""Percentiles at the ends of an interval."""


def wilson_interval(wrong: Bool[np.ndarray, " N"]) -> tuple[float, float]:
    """Return the 95% score interval of an error in percent, which also holds near 0 and 100.

    Source: Wilson, Probable Inference, the Law of Succession, and Statistical Inference, 1927.
    """
    from scipy.special import ndtri  # scipy.stats.binomtest also computes a p value, which takes 20 times as long

    count, share, normal = len(wrong), float(wrong.mean()), float(ndtri((1 + CONFIDENCE) / 2))
    middle = share + normal**2 / (2 * count)
    half = normal * (share * (1 - share) / count + (normal / (2 * count)) ** 2) ** 0.5
    low, high = (100 * (middle + side) / (1 + normal**2 / count) for side in (-half, half))
    return (0.0 if share == 0 else low), (100.0 if share == 1 else high)


def percentile_interval(resampled: Float[np.ndarray, " R"]) -> tuple[float, float]:
    """Return the 95% percentile interval of resampled values (Efron, Bootstrap Methods, 1979)."""
    low, high = np.percentile(resampled, _TAILS)
    return float(low), float(high)


def t_interval(difference: float, standard_error: float, degrees_of_freedom: float) -> tuple[float, float]:
    """Return the 95% interval of a difference by Student's t, in the difference's unit.

    Source: Student, The Probable Error of a Mean, 1908. Degrees of freedom need not be whole.
    """
    from scipy.special import stdtrit

    half = float(stdtrit(degrees_of_freedom, (1 + CONFIDENCE) / 2)) * standard_error
    return difference - half, difference + half


def t_p_below(difference: float, standard_error: float, degrees_of_freedom: float) -> float:
    """Return the one-sided p value of a difference so far below 0, if it truly were 0, by Student's t.

    Source: as `t_interval`. That of a difference so far above 0 is 1 minus it.

    Raises:
        ZeroDivisionError: the standard error is 0.
    """
    from scipy.special import stdtr

    return float(stdtr(degrees_of_freedom, difference / standard_error))


def t_power(distance: float, standard_error: float, degrees_of_freedom: float, level: float) -> float:
    """Return the probability that a one-sided t test rejects a bound so far from the truth, in the distance's unit.

    Source: as `t_interval`; by the noncentral distribution of t, since the standard error is estimated too.
    """
    from scipy.special import nctdtr, stdtrit

    needed = float(stdtrit(degrees_of_freedom, 1 - level))
    return 1 - float(nctdtr(degrees_of_freedom, distance / standard_error, needed))


def holm_by_family(families: Sequence[Mapping[str, float]], level: float) -> set[str]:
    """Return the hypotheses that are rejected at a level which all families share, by name.

    Families have equal shares. One all of whose hypotheses are at or below its share is rejected as a whole, and passes
    the share on to the others. In a family that remains, single hypotheses are rejected at its share, divided by how
    many of its own are still open.

    Source: Holm, A Simple Sequentially Rejective Multiple Test Procedure, 1979, over families and within those that
    remain. To reject a family when the largest of its p values is at its share is not Holm's but the first step of
    Hochberg's (A Sharper Bonferroni Procedure for Multiple Tests of Significance, 1988). It keeps the level where the p
    values of a family are independent or positively dependent (Sarkar, Some Probability Inequalities for Ordered MTP2
    Random Variables: A Proof of the Simes Conjecture, 1998); where they are negatively dependent, as those of
    differences that share a test on opposite sides, it may exceed it: for two normal ones by less than a hundredth of
    it. That all hypotheses of a family are false, as one statement, is told at its share however they depend (Berger,
    Multiparameter Hypothesis Testing and Acceptance Sampling, 1982).

    Args:
        families: p values of the hypotheses of each family, by name; no name in two of them. One that is not a number
            rejects nothing.
        level: probability at most of rejecting a true hypothesis, in all families together, under that assumption.
    """
    left, rejected = [family for family in families if family], set[str]()
    while whole := [family for family in left if all(p <= level / len(left) for p in family.values())]:
        rejected |= set().union(*whole)
        left = [family for family in left if family not in whole]
    for family in left:
        for rank, name in enumerate(sorted(family, key=lambda name: (math.isnan(family[name]), family[name]))):
            if not family[name] <= level / len(left) / (len(family) - rank):
                break
            rejected.add(name)
    return rejected


def levels_left(families: Sequence[Collection[str]], told: Collection[str], level: float) -> dict[str, float]:
    """Return the level that `holm_by_family` has left for each hypothesis that is not rejected, `told`, by name."""
    left = [open_ for family in families if (open_ := [name for name in family if name not in told])]
    return {name: level / len(left) / len(open_) for open_ in left for name in open_}


def _mcnemar(only_first_wrong: int, only_second_wrong: int) -> float:
    """Return the exact two-sided p value of 'both err equally often', from how often only one of them is wrong.

    Source: McNemar, Note on the Sampling Error of the Difference Between Correlated Proportions, 1947.
    """
    from scipy.stats import binomtest

    differing = only_first_wrong + only_second_wrong
    return float(binomtest(only_first_wrong, differing).pvalue) if differing else 1.0


def _paired_interval(only_first_wrong: int, only_second_wrong: int, n: int) -> tuple[float, float]:
    """Return the 95% interval of the difference of two errors on the same n images, in percentage points.

    Student's t over the images, whose variance is that of `variance_of_mean`, since without its two images none that
    differ would look certain. So it leaves 0 out wherever McNemar's exact test has p at 5% or below, and nowhere with p
    above 6.6%.
    """
    if n == 1:
        return -100.0, 100.0
    differing, more = only_first_wrong + only_second_wrong, only_first_wrong - only_second_wrong
    variance = variance_of_mean(differing, more / n, n)
    low, high = t_interval(100 * more / n, 100 * variance**0.5, n - 1)
    return max(-100.0, low), min(100.0, high)


def variance_of_mean(squares: float, mean: float, n: int, *, step: float = 1.0) -> float:
    """Return the variance of a mean of differences over n images, as with one more image on either side.

    Without these two (Agresti and Min, Effects and Non-effects of Paired Identical Observations, 2004, add as little) a
    handful of images on one side alone would look surer than in an exact test.

    Args:
        squares: sum of the images' squared differences.
        mean: mean of their differences.
        n: images, two or more.
        step: difference of an image that is added.
    """
    return (squares + 2 * step**2 - n * mean**2) / (n - 1) / n


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
    """Shift resampled values so that their mean over resamples, without NaN, becomes the given one."""
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
    """95% interval by Student's t over the images, with one more on either side; not corrected either."""
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
        other: true for the images that the second got wrong, in the same order.

    Raises:
        ValueError: there are no images, or the results are not on equally many.
    """
    if not len(wrong) or len(wrong) != len(other):
        raise ValueError(
            f"two results on the same images can be compared, not on {number(len(wrong))} and {number(len(other))}"
        )
    only_first, only_second = int((wrong & ~other).sum()), int((other & ~wrong).sum())
    return Comparison(
        first=first,
        second=second,
        n=len(wrong),
        only_first_wrong=only_first,
        only_second_wrong=only_second,
        difference=100 * (only_first - only_second) / len(wrong),
        difference_ci95=_paired_interval(only_first, only_second, len(wrong)),
        p_value=_mcnemar(only_first, only_second),
    )
