"""The page about an evaluation: its figures are looked for in the page, and its pictures looked at."""

import base64
import io
import json
import re
from html.parser import HTMLParser
from xml.etree import ElementTree

import accessibility
import made_up_evaluations
import numpy as np
import pytest
import torch
import translated_pages
from PIL import Image

from verydeep import vgg
from verydeep.evaluation import report
from verydeep.evaluation.charts import _confusion_chart, reliability_chart
from verydeep.evaluation.metrics import predicted
from verydeep.evaluation.results import NO_TOP5
from verydeep.evaluation.score_maps import fitted, overlay, placed_score_map, posterior_map
from verydeep.images.sources.source import Sample, memory_source
from verydeep.images.views import rescale
from verydeep.runs.model import Model
from verydeep.runs.record import command, versions

ODD = ("<b>&\"'", "caf\udce9 $x$", "猫", "d", "e", "f", "g")
SECTIONS = [
    "Errors",
    "Classes",
    "Confusions",
    "Calibration",
    "The most confidently wrong images",
    "Score maps",
    "To repeat it",
]
VOID = {"meta", "img", "br"}
SVG = "{http://www.w3.org/2000/svg}"


class Page(HTMLParser):
    """Collects what stands under each heading: text, tables, images; and every tag and attribute there is."""

    def __init__(self, file):
        super().__init__()
        self.source = file.read_text(encoding="utf-8")
        self.open, self.tags, self.attributes = [], set(), []
        self.sections = {"": {"text": "", "tables": [], "images": [], "items": 0}}
        self.now = self.sections[""]
        self.feed(self.source)
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.tags.add(tag)
        self.attributes += attrs
        if tag not in VOID:
            self.open.append(tag)
        match tag:
            case "h2":
                self.now = {"text": "", "tables": [], "images": [], "items": 0}
            case "table":
                self.now["tables"].append([])
            case "tr":
                self.now["tables"][-1].append([])
            case "td" | "th":
                assert tag == "td" or dict(attrs)["scope"] in ("row", "col")
                self.now["tables"][-1][-1].append("")
            case "li":
                self.now["items"] += 1
            case "img":
                self.now["images"].append(dict(attrs))

    def handle_startendtag(self, tag, attrs):
        self.attributes += attrs

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] == "h2":
            self.sections[data] = self.now
        if {"td", "th"} & set(self.open):
            self.now["tables"][-1][-1][-1] += data
        if "style" not in self.open:
            self.now["text"] += data

    def text(self, section):
        return " ".join(self.sections[section]["text"].split())


def picture(address):
    kind, data = address.split(",", 1)
    assert kind == "data:image/jpeg;base64"
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(data)))).astype(int)


def png(pixels):
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


def source_of(labels, classes, size=(40, 60)):
    """Images whose colour is their index, each with a name."""
    pixels = [np.full((*size, 3), (index, 255 - index, 90), np.uint8) for index in range(len(labels))]
    samples = [
        Sample(png(one), label, f"<i>{index}\udce9.png")
        for index, (one, label) in enumerate(zip(pixels, labels, strict=True))
    ]
    return memory_source(classes=classes, samples=tuple(samples))


def evaluation(source, posteriors_of_runs, *, without=(), protocol="dense", scales=(256, 512)):
    """As `evaluate` puts it together; of the images `without` it is told that they cannot be used."""
    usable = [index for index in range(len(source)) if index not in without]
    return made_up_evaluations.evaluation(
        [f"runs/{number}<b>" for number in range(len(posteriors_of_runs))],
        [posteriors[usable] for posteriors in posteriors_of_runs],
        np.array(source.labels)[usable],
        source.classes,
        ids=[source.ids[index] for index in usable],
        scales=scales,
        mirror=False,
        source="made <b>up</b>",
        protocol=protocol,
        unusable={source.ids[index]: "truncated & <torn>" for index in without},
    )


def guesses(labels, classes, *, seed, sure=1.5):
    """Posteriors [N, classes] that lean towards the right class."""
    scores = np.random.default_rng(seed).normal(size=(len(labels), classes))
    scores[np.arange(len(labels)), labels] += sure
    return np.exp(2 * scores) / np.exp(2 * scores).sum(axis=1, keepdims=True)


def model_of(classes):
    """Its net prefers another class for images of another colour."""
    torch.manual_seed(0)
    net = vgg("A", classes=len(classes), crop=32, width=0.05).eval()
    plain = torch.rand(200, 3, 1, 1).expand(-1, -1, 32, 32) * 255
    with torch.no_grad():
        net.fc8.weight /= net(plain).std(dim=0)[:, None] / 4
        net.fc8.bias -= net(plain).mean(dim=0)
    return Model(net=net, classes=classes, scale="256", flip=False)


def written(folder, found, source, model=None, language="en"):
    model = model or model_of(source.classes)
    file = report._write_evaluation_page(found, folder, source=source, model=model, language=language)
    assert file == folder / "evaluation.html"
    assert json.loads((folder / "evaluation.json").read_text()) == json.loads(json.dumps(found.to_dict()))
    assert (folder / "wrong_images.jpg").exists() == bool(found.fused.top1_wrong)
    assert ("wrong_images.jpg" in file.read_text()) == bool(found.fused.top1_wrong)
    return Page(file)


@pytest.fixture(scope="module")
def fused(tmp_path_factory):
    """Two runs on 90 images, of which 25 cannot be used."""
    labels = [*range(6)] * 15  # of the last class there are none
    source = source_of(labels, ODD)
    posteriors = [guesses(labels, 7, seed=seed) for seed in (0, 1)]
    found = evaluation(source, posteriors, without=range(0, 50, 2), scales=(256, 768))
    return written(tmp_path_factory.mktemp("pages") / "new" / "folder", found, source), found, source


def test_the_same_in_japanese(fused, tmp_path):
    page, found, source = fused
    japanese = written(tmp_path, found, source, language="ja").source
    translated_pages.check(page.source, japanese)
    assert f"画像65枚でのtop-1誤差は {found.top1_error:.2f}%(95%信頼区間" in japanese
    assert "評価方法は密な評価、スケールはQ = 256, 768です。" in japanese
    assert 'lang="en">' not in japanese.split("</style>")[1]  # all of it is Japanese


def two(value):
    return "–" if value is None else f"{value:.2f}"


def ends(interval):
    return f"{interval[0]:.2f} to {interval[1]:.2f}"


def shown(name):
    """A name as it stands in the page."""
    return name.replace("\udce9", "\\udce9")


def test_every_section_is_there_in_its_order(fused):
    page, _, _ = fused
    assert list(page.sections) == ["", SECTIONS[0], "Comparisons", *SECTIONS[1:]]
    assert page.source.startswith("<!doctype html>")


def test_the_first_lines_say_what_was_found(fused):
    page, found, _ = fused
    text = page.text("")
    assert "Evaluation on made <b>up</b>" in text
    assert f"The top-1 error of 2 runs fused on 65 images of the split test is {found.top1_error:.2f}%" in text
    assert f"(95% interval {ends(found.top1_error_ci95)})" in text
    assert f"the top-5 error {found.top5_error:.2f}% ({ends(found.top5_error_ci95)})" in text
    assert "Dense evaluation at the scales Q = 256, 768" in text
    assert "crop of 32 that is 37, 110 pixels" in text
    assert "averaged over runs and over scales. Mirror images are not used." in text
    assert "25 images of the split cannot be used and are not counted" in text


def test_the_tables_hold_the_figures(fused):
    page, found, _ = fused
    (errors,) = page.sections["Errors"]["tables"]
    own = found.calibration.expected_calibration_error
    expected = [(run.name, run, run.expected_calibration_error) for run in found.per_run] + [("fused", found, own)]
    assert errors[1:] == [
        [
            name,
            "256, 768",
            two(one.top1_error),
            ends(one.top1_error_ci95),
            two(one.class_balanced_error),
            two(one.top5_error),
            ends(one.top5_error_ci95),
            two(error),
        ]
        for name, one, error in expected
    ]
    (compared,) = page.sections["Comparisons"]["tables"]
    assert compared[1:] == [
        [
            pair.first,
            pair.second,
            f"{pair.difference:+.2f}",
            f"{pair.difference_ci95[0]:+.2f} to {pair.difference_ci95[1]:+.2f}",
            str(pair.only_first_wrong),
            str(pair.only_second_wrong),
            f"{pair.p_value:.2g}",
        ]
        for pair in found.comparisons
    ]
    assert len(compared) == 1 + 3
    assert "not corrected for several comparisons" in page.text("Comparisons")
    (classes,) = page.sections["Classes"]["tables"]
    rows = [
        [shown(c.name), str(c.n), str(c.top1_wrong), two(c.top1_error), ends(c.top1_error_ci95)]
        for c in found.per_class
    ]
    assert sorted(classes[1:]) == sorted(rows)
    assert len(rows) == 6
    errors = [float(row[3]) for row in classes[1:]]
    assert errors == sorted(errors, reverse=True)
    assert errors[0] > errors[-1]


def test_confusions_are_counted(fused):
    page, found, _ = fused
    (table,) = page.sections["Confusions"]["tables"]
    taken = predicted(found.images.posteriors, found.images.labels)
    labels = found.images.labels
    for true, other, images, share in table[1:]:
        row, column = ([shown(name) for name in ODD].index(name) for name in (true, other))
        assert row != column
        assert int(images) == ((labels == row) & (taken == column)).sum()
        assert share == f"{100 * int(images) / (labels == row).sum():.1f}"
    assert [int(row[2]) for row in table[1:]] == sorted((n for a, b, n in found.confusions if a != b), reverse=True)[
        :12
    ]


def test_rows_of_the_confusion_chart_are_true_classes_and_columns_predicted_ones():
    chart = _confusion_chart(np.array([[5, 3], [0, 4]]), np.array([10, 4]), ["<cat>", "$dog$"])
    tree = ElementTree.fromstring(chart)
    texts = {"".join(text.itertext()): text.attrib for text in tree.iter(f"{SVG}text")}
    assert {"<cat>", "$dog$", "true class", "predicted class"} < texts.keys()
    five, three, four = ((float(texts[number]["x"]), float(texts[number]["y"])) for number in "534")
    assert five[0] < three[0] == pytest.approx(four[0])
    assert four[1] > three[1] == pytest.approx(five[1])
    assert all("fill: currentColor" in texts[number]["style"] for number in "345")
    squares = [path.attrib for path in tree.iter(f"{SVG}path") if "#0072b2" in path.attrib["style"]]
    for square, (x, y), share in zip(squares, (five, three, four), (0.5, 0.3, 1), strict=True):
        left, top, right, *_, bottom = (float(number) for number in re.findall(r"[\d.]+", square["d"])[:6])
        assert (left + right) / 2 == pytest.approx(x, abs=1)
        assert top < y < bottom
        opacity = re.search(r"fill-opacity: ([\d.]+)", square["style"])
        assert float(opacity[1]) == pytest.approx(0.75 * share**0.5, abs=1e-3)
    assert "currentColor" in chart
    assert "#123456" not in chart


def test_numbers_stand_out_from_the_darkest_cell_in_the_light_and_in_the_dark(fused):
    full = _confusion_chart(np.array([[9]]), np.array([9]), ["a"])
    ((colour, opacity),) = re.findall(r"fill: (#[0-9a-f]{6}); fill-opacity: ([\d.]+)", full)
    schemes = re.findall(r"--ink: (#[0-9a-f]{6}); --paper: (#[0-9a-f]{6})", fused[0].source)
    assert len(schemes) == 2
    for ink, paper in schemes:
        over, below = ([int(one[at : at + 2], 16) for at in (1, 3, 5)] for one in (colour, paper))
        parts = [float(opacity) * o + (1 - float(opacity)) * b for o, b in zip(over, below, strict=True)]
        cell = "#" + "".join(f"{round(part):02x}" for part in parts)
        assert accessibility.contrast(ink, cell) >= accessibility.READABLE


def test_calibration_is_explained(fused):
    page, found, _ = fused
    text = page.text("Calibration")
    confidence = 100 * found.images.posteriors.max(axis=1).mean()
    assert f"{found.calibration.expected_calibration_error:.2f}%" in text
    assert f"that probability is {confidence:.2f}% on average, and {100 - found.top1_error:.2f}% of the images" in text
    kind = "overconfident" if confidence > 100 - found.top1_error else "underconfident"
    assert f"the fused runs are {kind}, by {abs(confidence - 100 + found.top1_error):.2f} points" in text
    low, high = (100 - error for error in reversed(found.top1_error_ci95))
    assert ("which may be chance" in text) == (low < confidence < high)


def test_the_reliability_chart_has_a_point_for_every_bin_with_images(fused):
    _, found, _ = fused
    filled = [one for one in found.calibration.bins if one.n]
    assert 5 < len(filled) < 15
    tree = ElementTree.fromstring(reliability_chart(found.calibration))
    points = [use.attrib for use in tree.iter(f"{SVG}use") if "#0072b2" in use.attrib.get("style", "")]
    for axis, values in (("x", [one.confidence for one in filled]), ("y", [one.accuracy for one in filled])):
        assert np.corrcoef([float(point[axis]) for point in points], values)[0, 1] == pytest.approx(
            {"x": 1, "y": -1}[axis]
        )


def test_wrong_images_are_shown_with_their_story(fused):
    page, found, source = fused
    images, section = found.images, page.sections["The most confidently wrong images"]
    taken = predicted(images.posteriors, images.labels)
    wrong = sorted(np.flatnonzero(taken != images.labels), key=lambda i: -images.posteriors[i, taken[i]])
    assert len(wrong) > 12
    assert f"12 of {len(wrong)} wrong images" in section["text"]
    assert len(section["images"]) == 12
    for index, image in zip(wrong[:12], section["images"], strict=True):
        true, other, name = ODD[images.labels[index]], ODD[taken[index]], images.ids[index]
        probability = f"{100 * images.posteriors[index, taken[index]]:.1f}%"
        assert image["alt"] == shown(f"{name}: {true}, taken for {other} with a probability of {probability}")
        colour = source.ids.index(name)
        pixels = picture(image["src"])
        assert pixels.shape == (40 * 3, 60 * 3, 3)
        assert abs(pixels - (colour, 255 - colour, 90)).max() < 6


def test_score_maps_are_those_of_the_first_runs_net_at_its_largest_scale(fused):
    page, found, source = fused
    section = page.sections["Score maps"]
    images, net = found.images, model_of(ODD).net
    taken = predicted(images.posteriors, images.labels)
    assert section["items"] == 8
    assert section["text"].count("rightly classified") == 4
    assert len(section["images"]) == 4 * 3 + 4 * 2
    assert all(image["alt"] for image in section["images"])
    assert "Q = 768 (110 pixels)" in page.text("Score maps")
    assert "of runs/0<b> alone" in page.text("Score maps")
    index = max(np.flatnonzero(taken != images.labels), key=lambda i: images.posteriors[i, taken[i]])
    whole, of_predicted, of_true = (picture(image["src"]) for image in section["images"][:3])
    tested = rescale(np.asarray(Image.open(io.BytesIO(source[source.ids.index(images.ids[index])].data))), 110)
    found_map = posterior_map(net, tested)
    assert f"{found_map.shape[1]} x {found_map.shape[2]} positions" in page.text("Score maps")
    assert found_map.shape[2] == 165 // 32
    assert abs(whole - fitted(tested)).max() < 6
    for shown_map, label in ((of_predicted, taken[index]), (of_true, images.labels[index])):
        assert (
            abs(
                shown_map - fitted(overlay(tested, placed_score_map(found_map[label], tested.shape[:2], crop=32)))
            ).max()
            < 8
        )
        least, greatest = found_map[label].min(), found_map[label].max()
        assert f"{least:.2f} to {greatest:.2f}" in page.text("Score maps")


def test_names_are_text_and_not_markup(fused):
    page, _, _ = fused
    assert {"b", "i", "torn"} & page.tags == set()
    assert "&lt;b&gt;&amp;&#34;&#39;" in page.source


def test_the_end_says_how_to_repeat_it(fused):
    page, found, _ = fused
    text = page.text("To repeat it")
    assert " ".join(command().split()) in text
    assert "runs/0<b>, runs/1<b>" in text
    assert versions()["torch"] in text
    assert page.sections["To repeat it"]["items"] == 20
    for name, reason in [*found.unusable.items()][:20]:
        assert f"{shown(name)}: {reason}" in text
    assert "And 5 more, in evaluation.json" in text


def test_the_page_needs_no_other_file_and_can_be_read_by_everybody(fused):
    assert accessibility.problems(fused[0].source) == []


@pytest.mark.parametrize("dark", [False, True])
def test_a_browser_shows_the_page_without_complaint_and_readably(fused, dark, tmp_path):
    (said,) = accessibility.shown_by_a_browser(fused[0].source, tmp_path, dark=dark)
    found = json.loads(said)
    assert found.pop("texts") > 300
    assert found == {"dark": dark, "faint": [], "wide": False}


def test_five_classes_and_nothing_wrong(tmp_path):
    labels = [*range(5)] * 2
    source = source_of(labels, tuple("abcde"), size=(8, 8))
    found = evaluation(source, [np.eye(5)[labels] * 0.5 + 0.1], scales=(256,), protocol="crops")
    (tmp_path / "wrong_images.jpg").write_bytes(b"the sheet of an earlier page")
    page = written(tmp_path, found, source)
    assert list(page.sections) == ["", *SECTIONS]
    assert NO_TOP5 in page.text("")
    assert "top-5 error " not in page.text("").replace(NO_TOP5, "")
    assert "Multi-crop evaluation at the scale Q = 256" in page.text("")
    assert "averaged over crops." in page.text("")
    assert "All images of the split could be used." in page.text("")
    (errors,) = page.sections["Errors"]["tables"]
    assert len(errors) == 2
    assert errors[1][2:7] == ["0.00", ends(found.top1_error_ci95), "0.00", "–", "–"]
    assert "No image was taken for another class." in page.text("Confusions")
    assert "the network is underconfident, by 40.00 points" in page.text("Calibration")
    assert "chance (" not in page.text("Calibration")
    assert "Nothing is wrong: all 10 images" in page.text("The most confidently wrong images")
    assert page.sections["Score maps"]["images"] == []
    left_out = "Not shown: the score maps of 4 images chosen for it, which at Q = 256 (37 pixels) have fewer than 9"
    assert page.text("Score maps") == f"Score maps {left_out} positions."
    assert written(tmp_path, found, source).source == page.source


def test_of_many_classes_the_worst_are_shown(tmp_path):
    classes = tuple(f"class {number}" for number in range(60))
    labels = [*range(60)] * 4
    source = source_of(labels, classes, size=(8, 8))
    posteriors = guesses(labels, 60, seed=0, sure=3)
    posteriors[np.array(labels) >= 55] = (
        np.eye(60)[(np.array(labels)[np.array(labels) >= 55] + 1) % 60] * 0.9 + 0.1 / 60
    )
    found = evaluation(source, [posteriors], scales=(256,), protocol="both")
    page = written(tmp_path, found, source)
    assert "Multi-crop & dense evaluation at the scale Q = 256" in page.text("")
    assert "averaged over" not in page.text("")
    (table,) = page.sections["Classes"]["tables"]
    assert "the 20 worst of 60 classes" in page.text("Classes")
    assert [row[0] for row in table[1:6]] == list(classes[55:])
    assert len(table) == 1 + 20
    assert "Of 60 classes the picture shows the 30" in page.text("Confusions")
    assert "Numbers are images" not in page.text("Confusions")
    (chart,) = re.findall(r"<svg.*?</svg>", page.source[: page.source.index("Calibration</h2>")], flags=re.DOTALL)
    words = ["".join(node.itertext()) for node in ElementTree.fromstring(chart).iter(f"{SVG}text")]
    assert len(words) == 2 * 30 + 2
    assert set(classes[55:]) < set(words)
