"""Limits on images: how large they may be, and how many may be unusable (needs neither NumPy nor Pillow)."""

from dataclasses import dataclass

from verydeep.numbers import number

MAX_PIXELS = 100_000_000
"""Default limit; as RGB such an image takes 300 MB."""

LARGEST_MAX_PIXELS = 178_956_970
"""Pillow's own limit, which the whole process shares: it refuses larger images whatever ours is."""


@dataclass(frozen=True, kw_only=True)
class Tolerance:
    """Which images are used, and how many may be unusable.

    Raises:
        ValueError: a value out of range; the message says which ones are allowed.
    """

    max_bad: float = 1.0
    """Percent of the images: if more cannot be used the work stops; up to that many are left out and listed."""

    max_pixels: int = MAX_PIXELS
    """Larger images are refused before they are unpacked."""

    def __post_init__(self) -> None:
        """Refuse a value out of range."""
        if not 0 <= self.max_bad <= 100:
            raise ValueError(f"max_bad must be from 0 to 100 percent, not {self.max_bad}")
        if not 1 <= self.max_pixels <= LARGEST_MAX_PIXELS:
            raise ValueError(f"max_pixels must be from 1 to {number(LARGEST_MAX_PIXELS)}, not {self.max_pixels}")


class TooManyBadImagesError(ValueError):
    """More images are unusable than is tolerated."""
