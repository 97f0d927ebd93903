"""Checks that a page serves people who do not see it, or see it in the dark: by reading it, and by a browser.

They are the rules of WCAG 2, level AA, that a program can check.
"""

import re
import shutil
import subprocess
from collections import Counter
from contextlib import contextmanager
from html.parser import HTMLParser
from itertools import pairwise

import pytest

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome", "microsoft-edge")
READABLE = 4.5
"""Least ratio of the luminances of text and background."""

VOID = {"meta", "img", "br", "hr", "input", "link", "wbr"}
HEADS = {"col", "colgroup", "row", "rowgroup"}
LANDMARKS = {"header", "main", "footer", "nav"}
CONTROLS = {"a", "button", "input", "select", "textarea"}
LOADING = {"script", "link", "iframe", "object", "embed", "base", "image", "audio", "video", "source"}
ADDRESSES = ("src", "srcset", "href", "xlink:href", "action", "poster", "data")

SCRIPT = """<script>
const parts = css => css.match(/[\\d.]+/g).map(Number).concat(1).slice(0, 4);
const over = (top, below) => [0, 1, 2].map(i => top[3] * top[i] + (1 - top[3]) * below[i]).concat(1);
const luminance = colour => [0.2126, 0.7152, 0.0722].reduce((sum, weight, i) => {
  const part = colour[i] / 255;
  return sum + weight * (part <= 0.04045 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4);
}, 0);
const behind = element => element
  ? over(parts(getComputedStyle(element).backgroundColor), behind(element.parentElement)) : [255, 255, 255, 1];
const walk = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
let texts = 0, faint = [];
while (walk.nextNode()) {
  const element = walk.currentNode.parentElement, text = walk.currentNode.data.trim();
  if (!text || element.closest("script, style, metadata")) continue;
  const style = getComputedStyle(element), back = behind(element);
  const front = over(parts(element.closest("svg") ? style.fill : style.color), back);
  const [low, high] = [luminance(front), luminance(back)].sort((a, b) => a - b);
  texts += 1;
  if ((high + 0.05) / (low + 0.05) < READABLE) faint.push(text);
}
const wide = document.documentElement.scrollWidth > innerWidth;
console.log(JSON.stringify({dark: matchMedia("(prefers-color-scheme: dark)").matches, texts, faint, wide}));
</script>""".replace("READABLE", str(READABLE))


class Element:
    """A tag with what is in it and around it."""

    def __init__(self, tag, attributes, parent):
        self.tag, self.attributes, self.parent, self.children, self.words = tag, dict(attributes), parent, [], []
        self.repeated = [name for name, count in Counter(name for name, _ in attributes).items() if count > 1]

    def get(self, name):
        return self.attributes.get(name) or ""

    def around(self):
        """Return this element and all that it is in."""
        return [self, *self.parent.around()] if self.parent else [self]

    def all(self, *tags):
        """Return the elements in it, in the page's order."""
        inside = [found for child in self.children for found in (child, *child.all())]
        return [one for one in inside if one.tag in tags] if tags else inside

    def text(self):
        """Return its words and those of the elements in it, of pictures the words in their place."""
        own = [self.get("alt"), self.get("aria-label"), *self.words]
        return " ".join(" ".join([*own, *(child.text() for child in self.children)]).split())


class Reader(HTMLParser):
    def __init__(self, page):
        super().__init__()
        self.root = self.open = Element("", [], None)
        self.feed(page)
        self.close()

    def handle_startendtag(self, tag, attributes):
        self.open.children.append(Element(tag, attributes, self.open))

    def handle_starttag(self, tag, attributes):
        self.handle_startendtag(tag, attributes)
        if tag not in VOID:
            self.open = self.open.children[-1]

    def handle_endtag(self, tag):
        assert self.open.tag == tag, f"</{tag}> ends <{self.open.tag}>"
        self.open = self.open.parent

    def handle_data(self, data):
        self.open.words.append(data)


def problems(page):
    """Return everything that is wrong with a page, in words; of a good page an empty list."""
    reader = Reader(page)
    assert reader.open is reader.root, f"<{reader.open.tag}> is never ended"
    checks = (head, landmarks, headings, tables, scrolling, pictures, controls, addresses, identifiers)
    return [what for check in checks for what in check(reader.root)] + contrasts(page)


def head(root):
    (html,), metas = root.all("html"), {meta.get("name"): meta.get("content") for meta in root.all("meta")}
    if not html.get("lang"):
        yield "the page's language is not said"
    if not any(title.text() for title in root.all("head")[0].all("title")):
        yield "no title"
    if not any(meta.get("charset").lower() == "utf-8" for meta in root.all("meta")):
        yield "no charset"
    if "width=device-width" not in metas.get("viewport", ""):
        yield "no viewport for phones"
    if re.search("user-scalable=no|maximum-scale", metas.get("viewport", "")):
        yield "it cannot be enlarged"


def landmarks(root):
    for tag in ("main", "header"):
        if len(root.all(tag)) != 1:
            yield f"not one <{tag}>"
    for one in root.all("body")[0].all():
        if "".join(one.words).strip() and not LANDMARKS & {outer.tag for outer in one.around()}:
            yield f"text outside of all landmarks: {one.text()}"
    regions = [one.get("aria-label") for one in root.all() if one.get("role") == "region"]
    yield from (f"{count} regions are called {name!r}" for name, count in Counter(regions).items() if count > 1)


def headings(root):
    found = [(int(one.tag[1]), one.text()) for one in root.all("h1", "h2", "h3", "h4", "h5", "h6")]
    if [level for level, _ in found].count(1) != 1 or found[0][0] != 1:
        yield "not one <h1> at the top"
    yield from ("an empty heading" for _, text in found if not text)
    for (before, _), (level, text) in pairwise(found):
        if level > before + 1:
            yield f"<h{level}> {text} follows <h{before}>"
    for section in root.all("section"):
        if not section.children or not section.children[0].tag.startswith("h"):
            yield f"a section without a heading: {section.text()[:40]}"


def tables(root):
    for table in root.all("table"):
        captions = [one.text() for one in table.all("caption")]
        if len(captions) != 1 or not captions[0]:
            yield f"a table without a caption: {table.text()[:40]}"
        heads = table.all("th")
        yield from (f"a <th> without a scope: {one.text()}" for one in heads if one.get("scope") not in HEADS)
        yield from (f"an empty <th> in {captions}" for one in heads if not one.text())
        for one in heads:
            place = {outer.tag for outer in one.around()} & {"thead", "tbody"}
            if place != ({"thead"} if one.get("scope").startswith("col") else {"tbody"}):
                yield f"{one.text()} has the scope {one.get('scope')} in {place}"
        for body in table.all("tbody"):
            grouped = any(one.get("scope") == "rowgroup" for one in body.children[0].all("th"))
            if not grouped and not all(row.all("th") for row in body.children):
                yield f"a line without a <th> in {captions}"
        yield from (f"{captions} {what}" for what in grid(table))
        if not any("scroll" in outer.get("class").split() for outer in table.around()):
            yield f"{captions} is cut off or makes the page wide on a phone"


def grid(table):
    """Yield rows whose cells do not fill a rectangle, with those that span several rows and columns."""
    for part in table.all("thead", "tbody"):
        widths = Counter()
        for number, row in enumerate(part.children):
            for cell in row.children:
                for below in range(int(cell.get("rowspan") or 1)):
                    widths[number + below] += int(cell.get("colspan") or 1)
        wanted = sum(int(cell.get("colspan") or 1) for cell in table.all("tr")[0].children)
        if widths != dict.fromkeys(range(len(part.children)), wanted):
            yield f"has rows of {dict(widths)} cells, not {wanted}"


def pictures(root):
    yield from (f"an image without words: {one.get('src')[:40]}" for one in root.all("img") if not one.get("alt"))
    for svg in root.all("svg"):
        if not any(one.get("role") == "img" and one.get("aria-label") for one in svg.around()):
            yield f"a drawing without words: {svg.text()[:40]}"
    for one in root.all():
        if one.get("role") in ("img", "region") and not (one.get("aria-label") or one.get("aria-labelledby")):
            yield f"<{one.tag} role={one.get('role')}> without a label"
    for text in (text for svg in root.all("svg") for text in svg.all("text")):
        colours = re.findall(r"fill:\s*([^;]+)", " ".join(one.get("style") for one in text.around()))
        if set(colours) - {"none", "currentColor"} and not text.get("style").count("fill: currentColor"):
            yield f"words in a drawing that are not in the page's colour: {text.text()}"


def scrolling(root):
    """Yield what hides that there is more: shades at the edges, which what is scrolled covers where it ends."""
    style = root.all("head")[0].all("style")[0].text()
    rule = " ".join(re.findall(r"\.scroll \{ ([^}]*overflow-x: auto[^}]*)\}", style))
    if (rule.count("local"), rule.count(" scroll"), rule.count("var(--shade)")) != (2, 2, 2):
        yield "nothing shows that a table goes on"


def controls(root):
    labels = {one.get("for") for one in root.all("label")}
    for one in root.all(*CONTROLS):
        if not (one.text() or one.get("aria-labelledby") or (one.get("id") and one.get("id") in labels)):
            yield f"<{one.tag}> without a label"
    for one in root.all():
        if int(one.get("tabindex") or 0) > 0:
            yield f"<{one.tag}> jumps the queue of the keyboard"
        if one.get("tabindex") == "0" and one.tag not in CONTROLS and not (one.get("role") and one.get("aria-label")):
            yield f"<{one.tag}> is reached by the keyboard and has no name"
        if "scroll" in one.get("class").split() and one.get("tabindex") != "0":
            yield f"{one.text()[:40]} is not scrolled by the keyboard"


def addresses(root):
    """Yield everything that a browser would fetch or run."""
    yield from (f"<{one.tag}>" for one in root.all(*LOADING))
    for one in root.all():
        yield from (f"{name} of <{one.tag}> runs something" for name in one.attributes if name.startswith("on"))
        for name in ADDRESSES:
            beside = one.tag == "a" and re.fullmatch(
                r"(\.\./)?[a-z/]+\.html", one.get(name) or ""
            )  # to be followed, not loaded
            if one.get(name) and not beside and not one.get(name).startswith(("#", "data:image/jpeg;base64,")):
                yield f"{name}={one.get(name)[:60]}"
        for name, value in one.attributes.items():  # names of XML vocabularies are addresses that nothing fetches
            if "://" in (value or "") and not name.startswith("xmlns") and name not in ("rdf:resource", "rdf:about"):
                yield f"{name}={value[:60]}"
    styles = " ".join([one.get("style") for one in root.all()] + [one.text() for one in root.all("style")])
    yield from (f"url({address})" for address in re.findall(r"url\(\s*[\"']?([^)\"']*)", styles) if address[0] != "#")
    if "@import" in styles:
        yield "@import"


def identifiers(root):
    found = Counter(one.get("id") for one in root.all() if "id" in one.attributes)
    yield from (f"{count} elements have the id {name!r}" for name, count in found.items() if count > 1 or not name)
    for one in root.all():
        yield from (f"<{one.tag}> has {name} twice" for name in one.repeated)
        wanted = [one.get(name) for name in ("href", "xlink:href") if one.get(name).startswith("#")]
        wanted += [f"#{name}" for name in (one.get("aria-labelledby") + " " + one.get("for")).split()]
        wanted += [
            f"#{name}" for value in one.attributes.values() for name in re.findall(r"url\(#([^)]+)\)", value or "")
        ]
        yield from (f"nothing has the id {name}" for name in wanted if name[1:] not in found)


def contrasts(page):
    """Return too weak contrasts of any colour of text on any background, in the light and in the dark."""
    style = page[page.index("<style>") : page.index("</style>")]
    schemes = [dict(re.findall(r"--(\w+): (#[0-9a-f]{6})", scheme)) for scheme in re.findall(r":root \{(.*?)\}", style)]
    texts, backs = (set(re.findall(rf"[{{;\s]{name}: var\(--(\w+)\)", style)) for name in ("color", "background"))
    if len(schemes) != 2 or "prefers-color-scheme: dark" not in style or not texts or not backs:
        return ["not one set of colours for the light and one for the dark"]
    return [
        f"{text} on {back}: {contrast(colours[text], colours[back]):.1f}"
        for colours in schemes
        for text in sorted(texts)
        for back in sorted(backs)
        if contrast(colours[text], colours[back]) < READABLE
    ]


def contrast(one, other):
    """Return the contrast of two colours, #rrggbb, by WCAG 2: 1 to 21."""
    low, high = sorted((luminance(one), luminance(other)))
    return (high + 0.05) / (low + 0.05)


def luminance(colour):
    parts = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def browser_here():
    """Return the path of a browser; or skip the test."""
    found = next(filter(None, map(shutil.which, BROWSERS)), None)
    if found is None:
        pytest.skip(f"none of {', '.join(BROWSERS)} is on this machine")
    return found


@contextmanager
def steered_browser():
    """Start a browser that Playwright steers; or skip the test."""
    from playwright.sync_api import sync_playwright

    path = browser_here()
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield browser
        browser.close()


def shown_by_a_browser(page, folder, *, dark):
    """Return the lines on a browser's console for a page on a phone, the last one by SCRIPT; or skip the test."""
    browser = browser_here()
    file = folder / "page.html"
    file.write_text(page.replace("</body>", f"{SCRIPT}</body>"), encoding="utf-8")
    options = [
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--enable-logging=stderr",
        "--v=0",
        "--window-size=500,900",
    ]
    scheme = f"--blink-settings=preferredColorScheme={0 if dark else 1}"
    command = [browser, *options, scheme, f"--user-data-dir={folder / 'profile'}", "--dump-dom", file.as_uri()]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    assert "</html>" in done.stdout
    return re.findall(r"CONSOLE[^]]*\] \"(.*)\", source:", done.stderr)
