"""A page in Japanese beside the same in English."""

import html
import re
from collections import Counter

import accessibility

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
    for tag in ("h1", "h2", "h3", "caption", "figcaption"):
        texts = re.findall(rf"<{tag}>(.*?)</{tag}>", japanese, flags=re.DOTALL)
        assert len(texts) == len(re.findall(rf"<{tag}>", english))
        assert [text for text in texts if not JAPANESE.search(text) and "IoU" not in text] == []
