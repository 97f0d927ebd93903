"""A kind of SOURCE as a value."""

from collections.abc import Callable
from dataclasses import dataclass

from verydeep.images.sources.splits import UnnumberedSplit


@dataclass(frozen=True, kw_only=True)
class Kind:
    """A kind of SOURCE: how it is recognised and opened."""

    described: str
    """For the message that nothing fits."""
    fits: Callable[[str], bool]
    """Whether SOURCE is of this kind."""
    splits: Callable[[str], dict[str, UnnumberedSplit]]
    """Finds the splits of SOURCE, or raises ValueError."""
