"""How figures are written, for the terminal, HTML and Markdown alike."""

from collections.abc import Sequence


def percent(value: float | None, digits: int = 1) -> str:
    """`12.5`, without the sign; a dash where there is no figure."""
    return "–" if value is None else f"{value:.{digits}f}"


def points(value: float, digits: int = 1) -> str:
    """`+1.5`, a difference in percentage points; never `-0.0`."""
    return f"{value:+z.{digits}f}"


def interval(ends: Sequence[float] | None, digits: int = 1, sign: str = "") -> str:
    """`6.6 to 14.9`; with the sign `+` also that of positive ends; a dash where there is no interval."""
    return "–" if ends is None else " to ".join(f"{end:{sign}z.{digits}f}" for end in ends)


def duration(seconds: float) -> str:
    """`75.2` as `1:15`, `4000` as `1:06:40`."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
