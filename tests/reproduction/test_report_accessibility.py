"""The page of a grid needs no other file and can be read by everybody."""

import json
import re
from xml.etree import ElementTree

import accessibility
import pytest
import translated_pages
from made_up_grids import made_up

from verydeep.reproduction.grid import Grid


@pytest.mark.parametrize("which", ["small", "everything", "pictured"])
def test_the_page_needs_no_other_file_and_can_be_read_by_everybody(which, request):
    page = request.getfixturevalue(which)[0]
    assert accessibility.problems(page) == []
    assert "<!ENTITY" not in page


SPOILT = {
    "the page's language is not said": (' lang="en"', ""),
    "no title": ("<title>The VGG paper on made up", "<title>"),
    "no viewport for phones": ('<meta name="viewport" content="width=device-width, initial-scale=1">', ""),
    "it cannot be enlarged": ("initial-scale=1", "initial-scale=1, user-scalable=no"),
    "not one <main>": ("main>", "div>"),
    "text outside of all landmarks": ("</main>", "</main><p>the end</p>"),
    "2 regions are called": ('aria-label="Findings"', 'aria-label="Cost of every training"'),
    "not one <h1> at the top": ("h1>", "h2>"),
    "<h4> Cost follows <h2>": ("<h2>Cost</h2>", "<h4>Cost</h4>"),
    "a section without a heading": ("<h2>Findings</h2>", ""),
    "a table without a caption": ("caption>", "em>"),
    "a <th> without a scope: step": ('<th scope="col">step', "<th>step"),
    "difference has the scope row in {'thead'}": ('<th scope="col">difference<', '<th scope="row">difference<'),
    "an empty <th>": (">claim<", "><"),
    "a line without a <th>": ('<th scope="row">several test scales, against one</th>', "<td>several test scales</td>"),
    "is cut off or makes the page wide on a phone": ('class="scroll"', 'class="wide"'),
    "nothing shows that a table goes on": ("var(--shade)", "transparent"),
    "has rows of": ('<th scope="col">step</th>', '<th scope="col">step</th><th scope="col">why</th>'),
    "an image without words": (' alt="', ' title="'),
    "a drawing without words": ('role="img" aria-label', "aria-label"),
    "<div role=img> without a label": ('role="img" aria-label', 'role="img" title'),
    "words in a drawing that are not in the page's colour": ("fill: currentColor", "fill: #ffffff"),
    "<button> without a label": ("<h2>Cost", "<button></button><h2>Cost"),
    "<div> jumps the queue of the keyboard": ('tabindex="0"', 'tabindex="1"'),
    "<pre> is reached by the keyboard and has no name": ("<pre>", '<pre tabindex="0">'),
    "is not scrolled by the keyboard": (' tabindex="0"', ""),
    "<script>": ("</main>", "</main><script></script>"),
    "onclick of <h1> runs something": ("<h1>", '<h1 onclick="alert()">'),
    "src=picture.png": ("</main>", '</main><img alt="" src="picture.png">'),
    "cite=https://example.org": ("<cite>", '<cite cite="https://example.org">'),
    "url(picture.png)": ("</style>", "h1 { background: url(picture.png) }</style>"),
    "@import": ("<style>", "<style>@import 'fonts.css';"),
    "2 elements have the id 'a'": ("<h2>Cost", '<i id="a"></i><i id="a"></i><h2>Cost'),
    "<h1> has class twice": ("<h1>", '<h1 class="a" class="b">'),
    "nothing has the id #nowhere": ("<h2>Cost", '<a href="#nowhere">there</a><h2>Cost'),
    "faint on paper: 3": ("--faint: #5a6470", "--faint: #8a94a0"),
    "good on best: 3": ("--good: #7fd6a2", "--good: #3f9662"),
    "not one set of colours for the light and one for the dark": ("prefers-color-scheme: dark", "min-width: 1rem"),
}


@pytest.mark.parametrize("said", SPOILT)
def test_a_page_that_somebody_could_not_read_is_noticed(pictured, everything, said):
    before, after = SPOILT[said]
    page = next(page for page, *_ in (pictured, everything) if before in page)
    assert any(said in problem for problem in accessibility.problems(page.replace(before, after)))


@pytest.mark.parametrize("dark", [False, True])
@pytest.mark.parametrize("which", ["everything", "pictured"])
def test_a_browser_shows_the_page_without_complaint_and_readably(which, dark, request, tmp_path):
    (said,) = accessibility.shown_by_a_browser(request.getfixturevalue(which)[0], tmp_path, dark=dark)
    found = json.loads(said)
    assert found.pop("texts") > 300
    assert found == {"dark": dark, "faint": [], "wide": False}


def test_what_a_browser_complains_about_and_what_is_faint_in_it_are_noticed(small, tmp_path):
    spoilt = small[0].replace("</main>", "<p style='color: #999'>faint</p></main><script>console.error('oh');</script>")
    said, found = accessibility.shown_by_a_browser(spoilt, tmp_path, dark=False)
    assert said == "oh"
    assert json.loads(found)["faint"] == ["faint"]


def test_the_charts_are_whole_svg_in_the_pages_colour_with_every_network(small, everything):
    for page, count, networks in ((small[0], 4, "ABD"), (everything[0], 4, "ABCDE")):
        charts = re.findall(r"<svg.*?</svg>", page, flags=re.DOTALL)
        assert len(charts) == count
        for chart in charts:
            words = " ".join("".join(node.itertext()) for node in ElementTree.fromstring(chart).iter() if node.text)
            assert "currentColor" in chart
            if "difference of test errors" not in words:
                assert all(re.search(rf"(^|\s){network}(\s|$)", words) for network in networks)


def test_steps_with_unfinished_trainings_are_marked_in_japanese_too(tmp_path):
    page, markdown, _ = made_up(tmp_path, cut_off=("D-256",), language="ja")
    for text in (page, markdown):
        assert "(学習が短すぎる): 途中で打ち切った学習を含みます。" in text
        assert "† 学習を途中で打ち切ったものを含みます。" in text
        assert "「DとEの誤りは同程度である」の逆は、Eの誤りのほうが多い場合だけ数えます。" in text


@pytest.fixture(scope="module", params=["one seed", "two seeds", "three seeds"])
def both(request, small, tmp_path_factory):
    """Reports in English and in Japanese: page, Markdown and numbers of each."""
    folder = tmp_path_factory.mktemp("both")
    if request.param == "one seed":
        return small, made_up(folder, language="ja")
    grid = Grid(only=("A", "D-256"), tables=(3,), seeds=2 if request.param == "two seeds" else 3)
    errors = lambda name, seed: 20 + len(name) + seed  # noqa: E731
    return [made_up(folder / one, grid=grid, errors=errors, language=one) for one in ("en", "ja")]


def test_a_japanese_report_has_the_same_figures(both):
    (english, markdown, numbers), (japanese, in_markdown, same) = both
    assert same == numbers
    translated_pages.check(english, japanese)
    for word in ("判定できない", "DはAより誤りが少ない", "1つの評価スケール", "再現するには"):
        assert word in japanese
        assert word in in_markdown
    assert len(re.findall("^## ", markdown, re.MULTILINE)) == len(re.findall("^## ", in_markdown, re.MULTILINE))
    heads = re.findall(r"^\|.*(?=\n\|[-:])", in_markdown, re.MULTILINE)
    assert heads
    assert [head for head in heads if not translated_pages.JAPANESE.search(head)] == []
    links = set(re.findall(r"\]\(#(.*?)\)", in_markdown))
    assert links == {line[3:].replace(" ", "-").lower() for line in re.findall("^## .*", in_markdown, re.MULTILINE)} - {
        "目次",
        "この実験でわかること",
        "答え",
    }
