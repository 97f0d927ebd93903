"""Names of files and classes are data: they neither act on a terminal, nor are they markup, nor break a chart."""

import html
import io
import json
from pathlib import Path
from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st
from markdown_it import MarkdownIt
from rich.text import Text

from verydeep.machine.errors import escaped, say
from verydeep.presentation.pages import _as_code, _in_markdown, svg_figure
from verydeep.presentation.terminal import reporting, show, table_with

CLIPBOARD, RED, C1, TURNED = "\x1b]52;c;ZXZpbA==\x07", "\x1b[31m", "\x9b31m", "gpj.\u202etxt"
HOSTILE = [CLIPBOARD, RED, C1, TURNED, "\x7f\x08\r", "[/bold] [link=x]a[/link]", ":smile:"]
SHOWN = [
    r"\u001b]52;c;ZXZpbA==\u0007",
    r"\u001b[31m",
    r"\u009b31m",
    r"gpj.\u202etxt",
    r"\u007f\u0008\u000d",
    "[/bold] [link=x]a[/link]",
    ":smile:",
]


@pytest.mark.parametrize(("name", "shown"), [*zip(HOSTILE, SHOWN, strict=True)])
def test_names_are_shown_escaped_wherever_they_stand(capsys, name, shown):
    """The autouse fixture of the suite looks at all that is printed, too."""
    for cell in (name, Text(name)):
        table = table_with(name, left=(name, "b"), right=(name,))
        table.add_row(cell, "x", cell)
        table.caption = name
        show({"name": name}, None, table, f"line {name}")
    with reporting(name, 2) as report:
        report.say(name)
        report.advance(tell=True, figures={name: name})
    say(name)
    captured = capsys.readouterr()
    assert captured.out.replace("\n", "").count(shown) >= 10  # rich drops some characters itself
    assert captured.err.count(shown) >= 2


def test_a_line_stays_one_line(capsys):
    with reporting("images", 2) as report:
        report.say("left out image a\nb.png: it is damaged")
    say("left out image a\nb.png: it is damaged")
    assert capsys.readouterr().err == "left out image a\\nb.png: it is damaged\n" * 2


def test_json_on_a_terminal_is_the_same_json(capsys, tmp_path):
    figures = {name: [name, "Müller"] for name in HOSTILE}
    show(figures, Path("-"))
    text = capsys.readouterr().out
    assert json.loads(text) == figures
    assert "Müller" in text
    assert escaped(text) == text
    show(figures, tmp_path / "f.json")
    assert json.loads((tmp_path / "f.json").read_text()) == figures


def test_a_chart_stays_xml():
    with svg_figure() as (axes, svg):
        axes[0].set_title("".join(HOSTILE))
    ElementTree.parse(io.StringIO(svg[0]))


def test_a_name_in_markdown_is_one_line_and_no_markup():
    shown = _in_markdown("a|b\n# c `d` <script> [e](f) *g* h_i ~j~ &lt; \\")
    assert shown == r"a\|b \# c \`d\` \<script\> \[e\](f) \*g\* h\_i \~j\~ \&lt; \\"


@given(st.text("`a \n\\<&*", min_size=1).filter(str.strip))
def test_a_text_as_code_is_that_text(text):
    """By a parser of CommonMark."""
    assert MarkdownIt().renderInline(_as_code(text)) == f"<code>{html.escape(text.replace(chr(10), ' '))}</code>"
