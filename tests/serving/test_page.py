"""The page in a real browser: every way to give it a picture, what it shows, and what it says of what goes wrong."""

import hashlib
import re
from base64 import b64encode
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import axe_core_python
import numpy as np
import pytest
from accessibility import steered_browser
from gated_model import Gate
from playwright.sync_api import expect
from served import KEY, encoded, service_of, serving

from verydeep.evaluation.protocols import Protocol
from verydeep.serving.options import Access
from verydeep.serving.page_texts import ENGLISH, JAPANESE
from verydeep.serving.served_model import _served_network
from verydeep.serving.work_queue import WorkQueue

CLASSES = (
    "<img src=x onerror=alert(1)>",
    "Donaudampfschifffahrtselektrizitaetenhauptbetriebswerkbauunterbeamtengesellschaft",
    "\u0642\u0637",
    "\u732b",
    "{name}",
    'a "quoted" & <b>bold</b> name',
    "caf\udce9 \u202eevil",
)
PICTURE = {"name": "<i>one</i>.png", "mimeType": "image/png", "buffer": encoded(1, (60, 90))}
OTHER = {"name": "two.png", "mimeType": "image/png", "buffer": encoded(2, (90, 60))}
BAD = {"name": "notes.png", "mimeType": "image/png", "buffer": b"no picture"}
PHONE = {"viewport": {"width": 390, "height": 844}, "is_mobile": True, "has_touch": True}
REFUSED = re.compile(r"Failed to load resource: (the server responded with a status of [45]|net::ERR_FAILED)")
"""What the browser itself notes about answers that refuse something."""

DATA_TRANSFER = """files => {
  const data = new DataTransfer();
  for (const [name, base64] of files) {
    const bytes = Uint8Array.from(atob(base64), character => character.charCodeAt(0));
    data.items.add(new File([bytes], name, {type: "image/png"}));
  }
  return data;
}"""


@pytest.fixture(scope="module")
def service(model):
    named = replace(model, classes=CLASSES)
    return service_of(_served_network(named, Protocol(scales=(500,)), ()), max_body=0.25)


@pytest.fixture(scope="module")
def client(service):
    with serving(service) as client:
        yield client


@pytest.fixture(scope="module")
def browser():
    expect.set_options(timeout=20_000)
    with steered_browser() as browser:
        yield browser


@pytest.fixture(scope="module")
def opened(browser, client):
    """Open the page in a browser of such options, which tests share; look at what it logged and asked for."""
    pages = {}

    def new_page(options):
        context = browser.new_context(**{"locale": "en-US", **options})
        context.set_default_timeout(20_000)
        page, logged, asked = context.new_page(), [], []
        page.on("console", lambda message: logged.append(message.text))
        page.on("pageerror", lambda error: logged.append(str(error)))
        page.on("request", lambda request: asked.append(request.url))
        return page, logged, asked

    @contextmanager
    def opened(**options):
        key = repr(sorted(options.items()))
        if key not in pages:
            pages[key] = new_page(options)
        page, logged, asked = pages[key]
        page.goto(str(client.base_url))
        yield page
        page.unroute_all()
        assert [text for text in logged if not REFUSED.match(text)] == []
        assert [url for url in asked if not url.startswith((str(client.base_url), "data:"))] == []

    return opened


def given(page, kind, *files):
    """Drop or paste files."""
    data = page.evaluate_handle(DATA_TRANSFER, [[file["name"], b64encode(file["buffer"]).decode()] for file in files])
    page.evaluate(
        """([kind, data]) => document.body.dispatchEvent(kind === "drop"
            ? new DragEvent(kind, {dataTransfer: data, bubbles: true, cancelable: true})
            : new ClipboardEvent(kind, {clipboardData: data, bubbles: true, cancelable: true}))""",
        [kind, data],
    )


def check_accessible(page):
    page.evaluate(Path(axe_core_python.__file__).with_name("axe.min.js").read_text())
    found = page.evaluate("axe.run({resultTypes: ['violations']})")
    assert [(one["id"], one["nodes"][0]["html"]) for one in found["violations"]] == []


@pytest.fixture(scope="module")
def as_without_script(browser):
    """Show what a page without script shows where axe can run, which needs timers: its content, in the same browser."""
    tabs = {}

    def shown(page, **options):
        key = repr(sorted(options.items()))
        if key not in tabs:
            tabs[key] = browser.new_context(**options).new_page()
        tabs[key].set_content(re.sub(r"(?s)<script\b.*?</script>", "", page.content()))
        return tabs[key]

    return shown


def check_fits(page):
    width = page.evaluate("[document.documentElement.scrollWidth, innerWidth]")
    assert width[0] <= width[1]


def test_choosing_shows_what_a_program_is_answered(opened, client):
    expected = client.post("/v1/predict?maps=1", content=PICTURE["buffer"]).json()
    with opened() as page:
        page.set_input_files("#image", PICTURE)
        expect(page.locator("h2").first).to_have_text(PICTURE["name"])
        names = page.locator("tbody th").all_inner_texts()
        assert [name.strip() for name in names] == [
            name.encode(errors="backslashreplace").decode().replace("\u202e", "\\u202e") for name in expected["classes"]
        ]
        assert page.locator("td.number").all_inner_texts() == [f"{100 * p:.1f}%" for p in expected["probabilities"]]
        widths = [float(one.get_attribute("width")) for one in page.locator(".bar rect").all()]
        np.testing.assert_allclose(widths, expected["probabilities"], atol=1e-4)
        expect(page.get_by_role("status")).to_contain_text(f"{expected['probabilities'][0]:.1%}")
        assert page.locator("img.map:visible").count() == 0
        page.locator("input[type=radio]").nth(2).check()
        (grid,) = [one["grid"] for one in expected["maps"][1:2]]
        said = page.locator("img.map:visible").get_attribute("alt")
        assert said.endswith(f"from {np.min(grid):.2f} to {np.max(grid):.2f}")
        boxes = [page.locator(one).bounding_box() for one in ("img.plain", "img.map:visible")]
        assert boxes[0] == pytest.approx(boxes[1], abs=1)
        assert f"{len(grid)} x {len(grid[0])}" in page.locator("figcaption").inner_text()
        check_accessible(page)


def test_dropping_several_on_a_phone_in_japanese_and_in_the_dark(opened):
    with opened(locale="ja-JP", color_scheme="dark", **PHONE) as page:
        given(page, "drop", PICTURE, BAD, OTHER)
        expect(page.get_by_role("status")).to_have_text(JAPANESE.done.format(count=3))
        assert page.locator(".result").count() == 3
        assert page.get_by_role("alert").inner_text().startswith(JAPANESE.unusable["undecodable"])
        page.locator(".result").last.locator("input").nth(1).check()
        assert page.locator("img.map:visible").count() == 1
        assert page.evaluate("document.documentElement.scrollWidth") <= PHONE["viewport"]["width"]
        assert page.locator("html").get_attribute("lang") == "ja"
        dark = re.findall(r"\d+", page.evaluate("getComputedStyle(document.body).backgroundColor"))
        assert max(map(int, dark)) < 60
        check_accessible(page)


def test_pasting_and_what_holds_no_picture(opened):
    with opened() as page:
        given(page, "paste", OTHER)
        expect(page.locator("h2").first).to_have_text(OTHER["name"])
        given(page, "paste")
        expect(page.get_by_role("alert")).to_have_text(ENGLISH.no_picture)
        assert page.locator(".result").count() == 0


def test_the_keyboard_is_enough(opened):
    with opened() as page:
        page.on("filechooser", lambda _: None)  # from now on the browser tells of it, in place of opening a dialogue
        page.keyboard.press("Tab")
        expect(page.locator("#image")).to_be_focused()
        with page.expect_file_chooser() as chooser:
            page.keyboard.press("Enter")
        chooser.value.set_files(PICTURE)
        expect(page.locator(".result")).to_be_visible()
        page.keyboard.press("Tab")
        page.keyboard.press("ArrowDown")
        assert page.locator("img.map-0").is_visible()
        page.keyboard.press("ArrowDown")
        assert [page.locator(f"img.map-{number}").is_visible() for number in (0, 1)] == [False, True]


def test_the_page_is_busy_until_it_is_stopped(opened):
    with opened() as page:
        page.route("**/?part=results", lambda _: None)
        page.set_input_files("#image", [PICTURE, OTHER])
        expect(page.get_by_role("status")).to_have_text(ENGLISH.busy_of.format(number=1, count=2))
        assert page.locator("#results").get_attribute("aria-busy") == "true"
        page.get_by_role("button", name=ENGLISH.stop).click()
        expect(page.get_by_role("status")).to_have_text(ENGLISH.stopped)
        assert page.locator("#results").get_attribute("aria-busy") == "false"
        assert not page.locator("#progress").is_visible()


def test_what_goes_wrong_is_said(opened, service, monkeypatch):
    with opened() as page:
        said = page.get_by_role("alert")
        page.set_input_files("#image", {**PICTURE, "buffer": bytes(2**18 + 1)})
        expect(said).to_have_text(ENGLISH.file_too_large.format(name=PICTURE["name"], mib=0.25))
        with monkeypatch.context() as full:
            full.setattr(WorkQueue, "images", service.limits.queue)
            page.set_input_files("#image", PICTURE)
            again = ENGLISH.retry.partition("{")[0]
            expect(said).to_contain_text(f"{ENGLISH.refusals['queue_full']} {again}")
        page.route("**/?part=results", lambda route: route.fulfill(status=502, body="<h1>proxy</h1>"))
        page.set_input_files("#image", PICTURE)
        expect(said).to_have_text(ENGLISH.unexpected.format(status=502))
        page.unroute("**/?part=results")
        page.route("**/?part=results", lambda route: route.abort())
        page.set_input_files("#image", PICTURE)
        expect(said).to_have_text(ENGLISH.no_connection)
        page.set_input_files("#image", [PICTURE, OTHER])
        expect(page.locator("h2")).to_have_text([PICTURE["name"], OTHER["name"], ENGLISH.about])
        assert said.all_inner_texts() == [ENGLISH.no_connection] * 2


def test_without_script_the_form_is_answered_with_the_same(opened, as_without_script):
    with opened(java_script_enabled=False, color_scheme="dark", **PHONE) as page:
        page.set_input_files("#image", [PICTURE, BAD])
        page.get_by_role("button", name=ENGLISH.submit).click()
        assert page.locator(".result").count() == 2
        assert page.get_by_role("alert").inner_text().startswith(ENGLISH.unusable["undecodable"])
        page.locator("input[type=radio]").nth(1).check()
        assert page.locator("img.map-0").is_visible()
        same = as_without_script(page, color_scheme="dark", **PHONE)
        assert same.get_by_role("button", name=ENGLISH.submit).is_visible()
        same.locator("input[type=radio]").nth(1).check()
        check_accessible(same)
        check_fits(same)
        picture = page.locator("img.plain").get_attribute("src").partition("base64,")[2]
        assert picture
        page.set_input_files("#image", {**PICTURE, "buffer": bytes(2**18 + 1)})
        page.get_by_role("button", name=ENGLISH.submit).click()
        assert page.get_by_role("alert").inner_text().startswith(ENGLISH.refusals["too_large"])


def test_a_key_is_asked_for_before_anything_is_shown(opened, service, monkeypatch):
    monkeypatch.setattr(service, "_keys", (hashlib.sha256(KEY.encode()).digest(),))
    with opened() as page:
        assert page.locator(".about").count() == 0
        page.set_input_files("#image", PICTURE)
        expect(page.get_by_label(ENGLISH.key)).to_be_focused()
        page.keyboard.type("wrong")
        page.keyboard.press("Enter")
        expect(page.get_by_role("alert")).to_contain_text(ENGLISH.refusals["unauthorised"])
        page.get_by_label(ENGLISH.key).fill(KEY)
        page.keyboard.press("Enter")
        expect(page.locator(".result")).to_be_visible()


def test_pictures_that_are_dropped_before_the_key_are_kept(opened, service, monkeypatch):
    monkeypatch.setattr(service, "_keys", (hashlib.sha256(KEY.encode()).digest(),))
    with opened() as page:
        given(page, "drop", PICTURE, OTHER)
        expect(page.get_by_label(ENGLISH.key)).to_be_focused()
        page.keyboard.type(KEY)
        page.keyboard.press("Enter")
        expect(page.locator(".result")).to_have_count(2)


@pytest.mark.battery
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("locale", ["en-US", "ja-JP"])
@pytest.mark.parametrize("device", [{}, PHONE], ids=["desk", "phone"])
@pytest.mark.parametrize("script", [True, False], ids=["script", "no-script"])
def test_every_state_is_accessible_and_fits(opened, as_without_script, scheme, locale, device, script):
    with opened(color_scheme=scheme, locale=locale, java_script_enabled=script, **device) as page:
        for state in ("empty", "several", "map", "refused", "too large"):
            if state == "map":
                page.locator(".result").last.locator("input").nth(1).check()
            elif state != "empty":
                big = {**PICTURE, "buffer": bytes(2**18 + 1)}
                page.set_input_files("#image", {"several": [PICTURE, BAD, OTHER], "refused": [BAD]}.get(state, [big]))
                if not script:
                    page.locator("button:visible").click()
                expect(page.locator(".result")).to_have_count({"several": 3, "refused": 1}.get(state, 0))
            if script:
                expect(page.locator("#progress")).to_be_hidden()
            tab = page if script else as_without_script(page, color_scheme=scheme, **device)
            if state == "map" and not script:  # what is chosen is not in the page's content
                tab.locator(".result").last.locator("input").nth(1).check()
            check_accessible(tab)
            check_fits(tab)


@pytest.mark.battery
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("locale", ["en-US", "ja-JP"])
@pytest.mark.parametrize("code", ["unknown_host", "internal"])
def test_a_page_that_is_refused_is_accessible(browser, scheme, locale, code):
    service = service_of(Gate().model(), Access(allow_host=("other.example",) if code == "unknown_host" else ()))
    service.about = lambda: 1 / 0
    with serving(service, ready=False) as client:
        options = {"color_scheme": scheme, "locale": locale, **PHONE}
        page = browser.new_context(**options).new_page()
        page.goto(f"http://localhost:{client.base_url.port}")
        texts = JAPANESE if locale == "ja-JP" else ENGLISH
        expect(page.get_by_role("alert")).to_contain_text(texts.refusals[code])
        assert page.get_by_role("link").count() == (code != "unknown_host")
        check_accessible(page)
        check_fits(page)
