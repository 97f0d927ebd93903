"""S and Q, the shorter sides that images are rescaled to, as the paper states them: for a crop of 224."""

from collections.abc import Collection

from verydeep.networks.architecture import PAPER_CROP
from verydeep.numbers import number

_LARGEST_SCALE = 10_000
"""At this S an image has 100 million pixels or more; images are refused long before that."""

_SCALE_STEP = 32
"""A net trained at a fixed S is tested at S - 32, S and S + 32."""


def scale_range(scale: str) -> tuple[int, int]:
    """Return the smallest and largest S of `256`, `384` or `256:512`; equal for a fixed S.

    Raises:
        ValueError: another form, or an S below the crop.
    """
    low, _, high = scale.partition(":")
    try:
        limits = int(low), int(high or low)
    except ValueError:
        raise ValueError(f"scale is a number such as 256 or a range such as 256:512, not {scale!r}") from None
    if not PAPER_CROP <= limits[0] <= limits[1] <= _LARGEST_SCALE:
        raise ValueError(f"scale {scale}: S goes from {PAPER_CROP} to {number(_LARGEST_SCALE)}, the smaller one first")
    return limits


def middle_scale(scale: str) -> int:
    """Return S, or the middle of its range: the paper's single test scale."""
    return sum(scale_range(scale)) // 2


def paper_scales(scale: str) -> tuple[int, ...]:
    """Return the paper's three test scales: {S-32, S, S+32}, or {Smin, middle, Smax} of a range such as `256:512`.

    There are fewer where S-32 is below the crop, and where a range is so short that its middle is one of its ends.
    """
    low, high = scale_range(scale)
    if low == high:
        return tuple(q for q in (low - _SCALE_STEP, low, low + _SCALE_STEP) if q >= PAPER_CROP)
    return tuple(dict.fromkeys((low, middle_scale(scale), high)))


def check_test_scales(scales: Collection[int]) -> None:
    """Check several Q at which one image is looked at.

    Raises:
        ValueError: none, one below 224, or one twice.
    """
    if min(scales, default=0) < PAPER_CROP or len(set(scales)) < len(scales):
        raise ValueError(
            f"scales, stated for a crop of {PAPER_CROP}, are distinct whole numbers from there up, not {list(scales)}"
        )


def scale_in_pixels(scale: int, crop: int) -> int:
    """Convert S or Q to pixels for a crop other than 224: 256 is 37 at crop 32."""
    return round(scale * crop / PAPER_CROP)
