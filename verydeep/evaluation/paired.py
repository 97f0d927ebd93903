"""Two results on the same images: how far apart they are, and whether that may be chance."""

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from jaxtyping import Bool

from verydeep.statistics import mcnemar, paired_bootstrap_interval


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
        difference_ci95=paired_bootstrap_interval(only_first, only_second, len(wrong)),
        p_value=mcnemar(only_first, only_second),
    )
