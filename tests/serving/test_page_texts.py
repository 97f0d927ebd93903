"""The words of the page: both languages have all of them, and the browser's language is found."""

import dataclasses
import html
import re
import string
from pathlib import Path
from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

import verydeep.serving
from verydeep.evaluation.protocols import Method
from verydeep.images.decode import Refusal
from verydeep.serving.image_outcomes import FailedImage, ImageAnswer, PagePicture
from verydeep.serving.page import FormResult, results
from verydeep.serving.page_texts import ENGLISH, JAPANESE, texts_for
from verydeep.serving.refusals import RefusedRequestError
from verydeep.transfer_learning.classify import Classification

FIELDS = [field.name for field in dataclasses.fields(ENGLISH) if field.name != "language"]


def each_text(texts):
    """Yield the key and text of every text, those of its tables too."""
    for name in FIELDS:
        value = getattr(texts, name)
        yield from [(name, value)] if isinstance(value, str) else [((name, key), one) for key, one in value.items()]


def test_both_languages_have_every_text_with_the_same_values_in_it():
    english, japanese = dict(each_text(ENGLISH)), dict(each_text(JAPANESE))
    assert english.keys() == japanese.keys()
    for key, text in english.items():
        assert text, key
        assert {name for _, name, _, _ in string.Formatter().parse(text)} == {
            name for _, name, _, _ in string.Formatter().parse(japanese[key])
        }, key
        assert re.search("[\u3040-\u30ff\u4e00-\u9fff]", japanese[key]), key
        assert text.isascii() or text.replace("…", "").isascii(), key


def test_every_refusal_and_protocol_has_words():
    code = "".join(file.read_text() for file in Path(verydeep.serving.__file__).parent.glob("*.py"))
    codes = set(re.findall(r"(?:RefusedRequestError\(\s*\d+,|busy\()\s*\"(\w+)\"", code))
    assert len(codes) >= 12
    assert codes - {"client_gone", "not_found"} <= set(ENGLISH.refusals)
    assert set(get_args(Refusal)) == set(ENGLISH.unusable)
    assert {*get_args(Method), "features"} == set(ENGLISH.protocols)


@pytest.mark.parametrize(
    ("accepted", "language"),
    [
        ("", "en"),
        ("ja", "ja"),
        ("ja-JP,ja;q=0.9,en-US;q=0.8,en;q=0.7", "ja"),
        ("en-GB,en;q=0.9,ja;q=0.8", "en"),
        ("de,ja;q=0.5,en;q=0.4", "ja"),
        ("de-DE,de;q=0.9", "en"),
        ("JA ; q=1.000 , en", "ja"),
        ("ja;q=0", "en"),
        ("ja;q=2,*", "en"),
        ("jaa", "en"),
    ],
)
def test_the_language_is_the_one_that_the_browser_likes_best(accepted, language):
    assert texts_for(accepted).language == language


@given(st.text(alphabet="jaen-;q=,.01* \t\x00é"))
def test_any_header_gives_a_language(accepted):
    assert texts_for(accepted) in (ENGLISH, JAPANESE)


@pytest.mark.parametrize("texts", [ENGLISH, JAPANESE], ids=lambda texts: texts.language)
@pytest.mark.parametrize("code", sorted(ENGLISH.refusals))
def test_every_refusal_is_shown_in_words_with_what_the_service_says(texts, code):
    refusal = RefusedRequestError(503, code, "in <detail>", headers={"Retry-After": "7"})
    shown = results(texts, FormResult(refusal=refusal))
    assert texts.refusals[code] in html.unescape(shown)
    assert texts.retry.format(seconds=7) in shown
    assert "in &lt;detail&gt;" in shown


@pytest.mark.parametrize("texts", [ENGLISH, JAPANESE], ids=lambda texts: texts.language)
def test_a_failure_of_the_service_is_not_put_down_to_the_picture(texts):
    shown = html.unescape(results(texts, FormResult(images=[FailedImage(image="fine.png")])))
    assert texts.refusals["internal"] in shown
    assert texts.refusals["unusable_image"] not in shown


def test_scores_of_a_classifier_have_no_bars_and_no_maps():
    found = Classification(image="<a>.png", classes=("ant", "b&e"), scores=(1.5, -0.25))
    one = ImageAnswer(prediction=found, picture=PagePicture("data:,", (2, 3), ()))
    shown = results(ENGLISH, FormResult(images=[one], numbers="scores"))
    assert re.findall(r"<bdi>(.*?)</bdi>", shown) == ["&lt;a&gt;.png", "ant", "b&amp;e"]
    assert re.findall(r'"number">(-?\d.*?)<', shown) == ["1.500", "-0.250"]
    assert ENGLISH.score_note in shown
    assert not re.search("<svg|<fieldset|<input|figcaption", shown)
