"""What is put up with in images (needs neither NumPy nor Pillow)."""

from dataclasses import dataclass

MAX_PIXELS = 100_000_000
"""Larger images are refused before they are unpacked, unless a setting says otherwise: as RGB they take over 300 MB."""

LARGEST_MAX_PIXELS = 178_956_970
"""Pillow refuses larger images whatever this project's limit is, and its own is shared by the whole process."""


@dataclass(frozen=True, kw_only=True)
class Tolerance:
    """Which images are used, and how many may be unusable.

    Raises:
        ValueError: a value that cannot be; the message says which ones can.
    """

    max_bad: float = 1.0
    """Percent of the images: when more of them cannot be used the work stops, up to it they are left out and listed."""

    max_pixels: int = MAX_PIXELS
    """Larger images are refused before they are unpacked."""

    def __post_init__(self) -> None:
        """Refuses what cannot be."""
        if not 0 <= self.max_bad <= 100:
            raise ValueError(f"max_bad is a share from 0 to 100 percent, not {self.max_bad}")
        if not 1 <= self.max_pixels <= LARGEST_MAX_PIXELS:
            raise ValueError(f"max_pixels is a number from 1 to {LARGEST_MAX_PIXELS:,}, not {self.max_pixels}")


class TooManyBadImagesError(ValueError):
    """A larger share of the images than is tolerated cannot be used."""
