"""Figures as text, for the terminal, HTML and Markdown alike: a number format is changed here and nowhere else."""

from collections.abc import Sequence

FINE = 2
"""Decimals of the figures of a single test; pages that put many tests side by side use one decimal."""

MISSING = "–"


def number(count: int) -> str:
    """Write a whole number: `1,234`."""
    return f"{count:,}"


def plural(noun: str, count: float, several: str | None = None) -> str:
    """Return the noun (or verb) as it goes with a count: `seed` for 1, else `seeds` or the text `several`."""
    return noun if count == 1 else several or f"{noun}s"


def counted(count: int, noun: str, several: str | None = None) -> str:
    """Write how many there are of something: `1 image`, `1,234 images`."""
    return f"{number(count)} {plural(noun, count, several)}"


def decimal(value: float | None, digits: int) -> str:
    """Write a number with so many decimals; a dash where there is none."""
    return MISSING if value is None else f"{value:.{digits}f}"


def percent(value: float | None, digits: int = 1) -> str:
    """Write an error or accuracy in percent, without the sign: `12.5`; a dash where there is none."""
    return decimal(value, digits)


def share(value: float, digits: int = 1) -> str:
    """Write a share or a probability in 0..1 as percent: `12.5%`."""
    return f"{percent(100 * value, digits)}%"


def points(value: float, digits: int = 1) -> str:
    """Write a difference in percentage points with its sign: `+1.5`; never `-0.0`."""
    return f"{value:+z.{digits}f}"


def interval(ends: Sequence[float] | None, digits: int = 1, sign: str = "") -> str:
    """Write `6.6 to 14.9`; with the sign `+` also that of positive ends; a dash where there is no interval."""
    return MISSING if ends is None else " to ".join(f"{end:{sign}z.{digits}f}" for end in ends)


def significant(value: float | None, digits: int = 2) -> str:
    """Write a number of any size with so many significant digits: `0.031`, `2e-05`; a dash where there is none."""
    return MISSING if value is None else f"{value:.{digits}g}"


def trimmed(value: float) -> str:
    """Write a number without zeros at its end, as people choose and say it: `2`, `0.125`, `1e-05`."""
    return f"{value:g}"


def duration(seconds: float) -> str:
    """Write `75.2` as `1:15`, `4000` as `1:06:40`."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def rough_duration(seconds: float) -> str:
    """Write a time as people say it: `less than a minute`, `12 minutes`, `59 hours`, `5 days`."""
    for unit, length, least in (("day", 86400, 3), ("hour", 3600, 2), ("minute", 60, 1)):
        if seconds >= least * length:
            return counted(round(seconds / length), unit)
    return "less than a minute"


def millions(value: float, digits: int = 1) -> str:
    """Write a count in millions, or a size of bytes in megabytes, without the unit: `1,234.5`."""
    return f"{value / 1e6:,.{digits}f}"


def billions(value: float | None, digits: int = 1) -> str:
    """Write a count in billions, or a size of bytes in gigabytes, without the unit; a dash where there is none."""
    return MISSING if value is None else f"{value / 1e9:,.{digits}f}"


def size(value: float) -> str:
    """Write a number of bytes with its unit: `3.1 GB`, and below 0.1 GB `17.2 MB`."""
    return f"{billions(value)} GB" if value >= 1e8 else f"{millions(value)} MB"


def first_few(names: Sequence[str], most: int = 5, between: str = ", ") -> str:
    """Join the first names and say how many others there are: `ant, bee and 3 others`."""
    others = len(names) - most
    return between.join(names[:most]) + (f" and {counted(others, 'other')}" if others > 0 else "")
