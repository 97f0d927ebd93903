"""Text in pictures: fonts that have its letters, and lines that fit."""

from collections.abc import Iterator
from functools import cache
from pathlib import Path

from PIL import ImageFont

Font = ImageFont.FreeTypeFont


def font_for(text: str, height: int) -> tuple[Font, str]:
    """Return a font of `height` pixels with all letters of a text, and the text as the font can write it.

    The font is DejaVu Sans, which comes with Matplotlib, or else one that is installed. If no font has all letters,
    DejaVu Sans writes those that it lacks as Python escapes them.
    """
    wanted = frozenset(text)
    own = next(_fonts())
    file = own if wanted <= _letters(own, wanted) else _installed_with(wanted) or own
    lacking = wanted - _letters(file, wanted)
    shown = "".join(one.encode("unicode_escape").decode() if one in lacking else one for one in text)
    return ImageFont.truetype(file, height), shown


def fitting_lines(text: str, font: Font, width: int, *, most: int) -> list[str]:
    """Break a text between words into at most so many lines of `width` pixels; the last may end with `…`."""
    lines: list[str] = []
    words = text.split()
    while words and len(lines) < most:
        count = len(words)
        while count > 1 and font.getlength(" ".join(words[:count])) > width:
            count -= 1
        if len(lines) == most - 1:
            count = len(words)
        lines.append(_shortened(" ".join(words[:count]), font, width))
        words = words[count:]
    return lines


def _shortened(line: str, font: Font, width: int) -> str:
    if font.getlength(line) <= width:
        return line
    while line and font.getlength(f"{line}…") > width:
        line = line[:-1]
    return f"{line.rstrip()}…"


@cache
def _installed_with(letters: frozenset[str]) -> Path | None:
    return next((file for file in _fonts() if letters <= _letters(file, letters)), None)


def _letters(file: Path, wanted: frozenset[str]) -> set[str]:
    """Return which of the wanted letters a font has; no letters if its file cannot be read."""
    from matplotlib.ft2font import FT2Font

    try:
        font = FT2Font(str(file))
    except (RuntimeError, OSError):  # RuntimeError: from FreeType
        return set()
    return {letter for letter in wanted if font.get_char_index(ord(letter))}


def _fonts() -> Iterator[Path]:
    """Yield files of fonts: Matplotlib's own, then those that are installed."""
    import matplotlib as mpl
    from matplotlib.font_manager import findSystemFonts

    yield Path(mpl.get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf"
    yield from map(Path, sorted(findSystemFonts()))
