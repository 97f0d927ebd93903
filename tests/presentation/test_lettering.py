"""Text in pictures: letters that a font has, and lines that fit."""

import unicodedata

from hypothesis import given, settings
from hypothesis import strategies as st

from verydeep.presentation import lettering
from verydeep.presentation.lettering import fitting_lines, font_for


def test_letters_that_no_font_has_are_escaped(monkeypatch):
    monkeypatch.setattr(lettering, "_installed_with", lambda letters: None)
    font, shown = font_for("cat \u732b \u00e9\u0416", 20)
    assert shown == "cat \\u732b \u00e9\u0416"
    assert font.getname()[0] == "DejaVu Sans"


def test_an_installed_font_that_has_the_letters_is_taken(monkeypatch, tmp_path):
    (tmp_path / "broken.ttf").write_bytes(b"no font")
    own = next(lettering._fonts())
    other = own.with_name("DejaVuSerif.ttf")
    without = lambda file, wanted: set() if file == own else real(file, wanted)  # noqa: E731
    real = lettering._letters
    monkeypatch.setattr(lettering, "_letters", without)
    monkeypatch.setattr(lettering, "_fonts", lambda: iter([own, tmp_path / "broken.ttf", other]))
    lettering._installed_with.cache_clear()
    font, shown = font_for("bee", 20)
    assert (font.getname()[0], shown) == ("DejaVu Serif", "bee")
    lettering._installed_with.cache_clear()


@settings(max_examples=10)
@given(text=st.text(st.characters(codec="latin-1", exclude_categories=["C"]), max_size=30), width=st.integers(20, 120))
def test_lines_fit_and_lose_nothing_in_silence(text, width):
    font = font_for("x", 12)[0]
    lines = fitting_lines(text, font, width, most=3)
    assert len(lines) <= 3
    assert all(font.getlength(line) <= width or line == "…" for line in lines)
    if not any(line.endswith("…") for line in lines) or "…" in unicodedata.normalize("NFC", text):
        assert " ".join(lines).split() == text.split()
