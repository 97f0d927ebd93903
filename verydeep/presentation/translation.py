"""Pages in other languages than English: fixed texts of templates are replaced before a page is filled in.

`japanese.toml` has the Japanese of headings, columns, captions and paragraphs as they stand in a template, with its
placeholders, and of words that come from the code: verdicts, claims, headings of sections. Other texts stay English.
"""

import re
import tomllib
from collections.abc import Mapping
from functools import cache
from importlib.resources import files
from typing import Literal, get_args

Language = Literal["en", "ja"]

DEFAULT_LANGUAGE: Language = "en"

_FILES: Mapping[Language, str] = {"ja": "japanese.toml"}

_ELEMENT = re.compile(
    r"<(title|h1|h2|h3|th|dt|dd|figcaption|caption|p|td)\b[^<>]*>(?:<span>)?(.*?)(?:</span>)?</\1>", re.DOTALL
)
_ATTRIBUTE = re.compile(r'(?<= )(?:aria-label|alt)="([^"]*)"')
_TITLE = re.compile(r"\{% block title %\}(.*?)\{% endblock %\}")
_LINE = re.compile(r"^(#+ .*|\|.*(?=\n\|[-:]))$", re.MULTILINE)
"""Headings of Markdown, and heads of its tables."""

_PLACES = (_ELEMENT, _ATTRIBUTE, _TITLE, _LINE)
"""Where a template has texts; each pattern's last group is one."""


@cache
def words(language: Language) -> Mapping[str, str]:
    """Return the texts of a language by the English ones; an empty mapping for English.

    Raises:
        ValueError: there is no such language.
    """
    if language not in get_args(Language):
        raise ValueError(f"language is one of {', '.join(get_args(Language))}, not {language}")
    if language not in _FILES:
        return {}
    found = tomllib.loads((files(__package__) / _FILES[language]).read_text(encoding="utf-8"))
    return {english: there for part in found.values() for english, there in part.items()}


def translated(template: str, language: Language) -> str:
    """Return a template whose texts are in a language; paragraphs that stay English are marked as such."""
    known = words(language)
    if not known:
        return template

    def put(match: re.Match[str]) -> str:
        group = match.lastindex or 0
        if match[group] in known:
            begin, end = (place - match.start() for place in match.span(group))
            return f"{match[0][:begin]}{known[match[group]]}{match[0][end:]}"
        return match[0].replace("<p", '<p lang="en"', 1) if match[0].startswith("<p") else match[0]

    for pattern in _PLACES:
        template = pattern.sub(put, template)
    return template
