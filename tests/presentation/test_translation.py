"""Every heading, column, caption and name of a report has its Japanese one, with the same things filled in."""

import re
from importlib.resources import files
from pathlib import Path
from typing import get_args

import pytest
from translated_pages import JAPANESE, texts_of

from verydeep.evaluation.protocols import PROTOCOLS
from verydeep.presentation.pages import render
from verydeep.presentation.translation import translated, words
from verydeep.reproduction.claims import CLAIMS, GAINS
from verydeep.reproduction.findings import Verdict
from verydeep.reproduction.paper_tables import PAPER_TABLES
from verydeep.reproduction.studies import STUDIES
from verydeep.reproduction.study_report import _SHOWN
from verydeep.transfer_learning.paper import MAP, RECALL

PACKAGE = Path(str(files("verydeep")))
REPORTS = ("presentation", "evaluation", "localisation", "transfer_learning", "reproduction")
TEMPLATES = {
    f"{folder}/{file.name}": file.read_text(encoding="utf-8")
    for folder in REPORTS
    for file in (PACKAGE / folder).glob("*.jinja")
    if not file.name.startswith("notes.")
}
KNOWN = words("ja")
SAID = [
    *(text for claim in CLAIMS for text in (claim.says, *(part.says for part in claim.parts))),
    *GAINS.values(),
    *(text for table in PAPER_TABLES for text in (table.heading, table.caption)),
    *(study.asks for study in STUDIES),
    *(verdict.replace("_", " ") for verdict in get_args(Verdict)),
    *(name for protocol in PROTOCOLS.values() for name in (protocol, protocol.replace(" evaluation", ""))),
    *(MAP, RECALL),
]
GRAMMAR = {"_", "plural", "counted", "if", "else", "elif", "endif", "not", "capitalize", "join", "over", "for", "in"}
GRAMMAR |= {"endfor", "loop.last", "length", "number", "seeds"}
LITERAL = re.compile(r"""(["'])(?:(?!\1).)*\1""")


def filled_in(text):
    """Return the names of what is filled in, without words in quotes."""
    found = set()
    for part in re.findall(r"\{\{.*?\}\}|\{%.*?%\}", text, flags=re.DOTALL):
        found |= set(re.findall(r"[a-z_][a-z_0-9]*(?:\.[a-z_0-9]+)*", LITERAL.sub("", part)))
    return found - GRAMMAR


@pytest.mark.parametrize("name", TEMPLATES)
def test_every_heading_column_and_caption_is_there(name):
    assert [text for text in texts_of(TEMPLATES[name]) if text not in KNOWN] == []


def test_a_heading_that_nobody_translated_is_noticed():
    found = set(
        texts_of('<h2>New</h2><th scope="col">more</th><p>text</p><td>{{ one | percent }}</td>\n## Of Markdown\n')
    )
    assert found == {"New", "more", "## Of Markdown"}
    assert found.isdisjoint(KNOWN)


def test_words_of_the_code_are_there():
    assert [text for text in SAID if text not in KNOWN] == []


def test_nothing_is_translated_that_no_page_says():
    """Captions of studies are written over several lines, and some columns put together: their pages are tested."""
    of_studies = {text for shown in _SHOWN.values() for text in (shown.label, shown.caption)}
    of_studies |= {text for text in KNOWN if re.match("(outputs|gradient) of ", text)}
    everything = "".join(
        file.read_text(encoding="utf-8") for end in ("jinja", "py") for file in PACKAGE.rglob(f"*.{end}")
    )
    assert [text for text in KNOWN if text not in everything and text not in SAID and text not in of_studies] == []


def test_the_same_is_filled_in():
    assert [english for english, japanese in KNOWN.items() if filled_in(japanese) != filled_in(english)] == []


def test_what_is_english_is_marked_and_names_stay():
    page = '<p class="lead">{{ sentence }}</p><h2>Errors</h2><th scope="row">{{ name }}</th>'
    assert translated(page, "en") == page
    assert translated(page, "ja") == (
        '<p lang="en" class="lead">{{ sentence }}</p><h2>誤差</h2><th scope="row">{{ name }}</th>'
    )


def test_the_notes_of_both_languages_have_the_same_macros():
    english, japanese = (
        (PACKAGE / "reproduction" / f"notes.{which}html.jinja").read_text(encoding="utf-8") for which in ("", "ja.")
    )
    macros = [re.findall(r"\{% macro .*? %\}", text) for text in (english, japanese)]
    assert macros[0] == macros[1]
    bodies = japanese.split("{% macro ")[1:]
    assert [body.split("(")[0] for body in bodies if not JAPANESE.search(body)] == []


def test_there_is_no_other_language():
    with pytest.raises(ValueError, match="language is one of en, ja, not fr"):
        render("evaluation/evaluation.html", {}, "fr")
