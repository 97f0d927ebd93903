"""The built site, and reports, in a real browser, as people with a phone, a dark screen or a screen reader meet it."""

import re
import subprocess
import sys
from pathlib import Path

import axe_core_python
import pytest
import torch
from accessibility import steered_browser
from made_up_grids import TEN, made_up, noise

from verydeep import evaluate, evaluation_report, save, vgg
from verydeep.reproduction.grid import Grid

ROOT = Path(__file__).parents[2]
AXE = next(Path(axe_core_python.__file__).parent.rglob("axe.min.js"))
PAGES = ["index", "first-steps", "tutorials/photographs", "tutorials/depth", "how-to/index", "explanations/paper"]
PAGES += ["reference/command-line", "reference/python", "reference/http", "RESULTS", "DEVIATIONS", "project/security"]
PAGES += ["ja/index", "ja/first-steps", "ja/photographs", "ja/depth", "ja/paper", "ja/glossary"]

pytestmark = pytest.mark.battery


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    built = tmp_path_factory.mktemp("site")
    command = [
        sys.executable,
        "-m",
        "sphinx",
        "-q",
        "-W",
        "--keep-going",
        "-d",
        built / "doctrees",
        ROOT / "docs",
        built,
    ]
    done = subprocess.run(command, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    return built


@pytest.fixture(scope="module")
def browser():
    with steered_browser() as browser:
        yield browser


@pytest.fixture(scope="module", params=[(1280, "light"), (1280, "dark"), (390, "light"), (390, "dark")], ids=str)
def tab(browser, request):
    width, scheme = request.param
    context = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme)
    tab = context.new_page()
    tab.asked = []
    tab.on("request", lambda request: tab.asked.append(request.url))
    yield tab
    context.close()


@pytest.fixture(scope="module")
def reports(tmp_path_factory):
    """Reports of an experiment, of its best network with images, and of one test, in both languages."""
    folder = tmp_path_factory.mktemp("reports")
    torch.manual_seed(0)
    network = vgg("A", classes=10, crop=32, width=0.05)
    for language in ("en", "ja"):
        out = folder / language
        run = save(network, out / "runs" / "seed-0" / "A-256" / "model", classes=TEN, flip=True)
        errors = {"A-256 dense single": 90.0}
        made_up(out, grid=Grid(only=("A-256",), tables=(3,)), errors=errors, splits=noise(), language=language)
        tested = evaluate(run, data=noise(), scales=(448,))
        evaluation_report(tested, out / "test", data=noise(), language=language)
    return folder


@pytest.mark.parametrize("page", PAGES)
def test_a_page_serves_everybody(tab, site, page):
    serves_everybody(tab, site / f"{page}.html", "ja" if page.startswith("ja/") else "en")


@pytest.mark.parametrize("page", [page for page in PAGES if page.startswith("ja/")])
def test_lines_of_japanese_are_joined_without_a_space(site, page):
    text = re.search("<article.*</article>", (site / f"{page}.html").read_text(encoding="utf-8"), re.DOTALL)[0]
    assert re.findall("[\u3041-\u30ff\u4e00-\u9fff、。][ \n][\u3041-\u30ff\u4e00-\u9fff]", text) == []


@pytest.mark.parametrize("page", ["report.html", "test/evaluation.html"])
@pytest.mark.parametrize("language", ["en", "ja"])
def test_a_report_serves_everybody(tab, reports, language, page):
    serves_everybody(tab, reports / language / page, language)


def serves_everybody(tab, file, language):
    tab.goto(file.as_uri())
    tab.add_script_tag(path=AXE)
    found = tab.evaluate("axe.run(document, {resultTypes: ['violations']})")["violations"]
    assert [(rule["id"], [node["html"] for node in rule["nodes"]]) for rule in found] == []
    assert tab.evaluate("document.documentElement.lang") == language
    assert tab.evaluate("document.documentElement.scrollWidth <= innerWidth"), "the page itself scrolls sideways"
    assert {url.partition(":")[0] for url in tab.asked} <= {"file", "data"}, "a file of another host"


def test_a_table_that_is_wider_than_a_phone_can_be_scrolled_by_keyboard(tab, site):
    tab.goto((site / "explanations/paper.html").as_uri())
    places = tab.locator(".pst-scrollable-table-container")
    states = places.evaluate_all("all => all.map(one => [one.scrollWidth > one.clientWidth, one.tabIndex])")
    assert states
    assert all(index == 0 for wide, index in states if wide)
    assert places.first.evaluate("one => getComputedStyle(one).backgroundImage").count("linear-gradient") == 4
