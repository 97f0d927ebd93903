"""Lists as messages write them."""

from collections.abc import Sequence


def first_few(names: Sequence[str], most: int = 5, between: str = ", ") -> str:
    """Join the first names and say how many more there are: `ant, bee and 3 more`."""
    more = f" and {len(names) - most:,} more" if len(names) > most else ""
    return between.join(names[:most]) + more
