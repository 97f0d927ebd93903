"""A page in Japanese beside the same in English, and what there is to translate."""

import html
import re
from collections import Counter

import accessibility

from verydeep.presentation.translation import _PLACES

FILLED_IN = re.compile(r"\{\{.*?\}\}|\{%.*?%\}|<[^>]*>", re.DOTALL)
LITERAL = re.compile(r"""(["'])[^"']*[A-Za-z]{2}[^"']*\1""")
WORD = re.compile(r"[A-Za-z]{2}")
NAMES = {"top-1", "top-5", "p(McNemar)", "mAP", "Caltech-101", "Caltech-256", "VOC-2007", "VOC-2012"}
JAPANESE = re.compile("[\u3000-\u30ff\u4e00-\u9fff]")


def figures(page):
    """Return how often each figure stands in the cells of tables."""
    cells = re.findall(r"<t[dh]\b[^>]*>(.*?)</t[dh]>", page, flags=re.DOTALL)
    texts = [re.sub(r"<[^>]*>|\dつ目", " ", html.unescape(cell)) for cell in cells]
    return Counter(number for text in texts for number in re.findall(r"\d(?:[\d,.:]*\d)?", text))


def check(english, japanese):
    """Assert that a Japanese page is one, has the same figures in as many tables, and that everybody can read it."""
    assert '<html lang="ja">' in japanese
    assert figures(japanese) - figures(english) == figures(english) - figures(japanese) == Counter()
    assert accessibility.problems(japanese) == []
    columns = re.findall(r'<th scope="col"(?: class="text")?>(.*?)</th>', japanese)
    assert [text for text in columns if WORD.search(text) and not JAPANESE.search(text) and text not in NAMES] == []
    for tag in ("h1", "h2", "h3", "caption", "figcaption"):
        texts = re.findall(rf"<{tag}>(.*?)</{tag}>", japanese, flags=re.DOTALL)
        assert len(texts) == len(re.findall(rf"<{tag}>", english))
        assert [text for text in texts if not JAPANESE.search(text) and "IoU" not in text] == []


def texts_of(template):
    """Return the headings, columns, captions and names of a template that have words, as it has them."""
    found = [match for pattern in _PLACES for match in pattern.finditer(template)]
    texts = [match[match.lastindex] for match in found if not match[0].startswith(("<p", "<td"))]
    return [
        text
        for text in texts
        if WORD.search(FILLED_IN.sub("", text)) or any(LITERAL.search(part) for part in FILLED_IN.findall(text))
    ]
