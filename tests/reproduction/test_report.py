"""The report of a grid that was never run: its numbers are made up here and looked for in all three files."""

import io
import json
import re
from dataclasses import asdict
from unittest.mock import patch
from xml.etree import ElementTree

import accessibility
import numpy as np
import pytest
from PIL import Image

from verydeep import evaluate
from verydeep.evaluation.protocols import chosen_scales
from verydeep.images.sources.source import MemorySource, Sample, Splits
from verydeep.networks.configurations import configuration
from verydeep.networks.vgg import VGG
from verydeep.reproduction.collect import best_network
from verydeep.reproduction.grid import TRAININGS, Grid
from verydeep.reproduction.report import write_report
from verydeep.runs.files import MODEL
from verydeep.runs.model import Model, save_model
from verydeep.runs.record import Record, append_metrics, write_record
from verydeep.statistics import wilson_interval
from verydeep.training.recipe import Recipe

TEN = tuple("0123456789")
TOP5_EXPLAINED = "With five classes or fewer a top-5 error says nothing."
SMALL = Grid(only=("A-256", "B-256", "D-256"), tables=(3, 4))

ERRORS = {
    "A-256 dense single": 30.0,
    "B-256 dense single": 20.0,
    "D-256 dense single": 10.0,
    "A-256 dense paper": 29.0,
    "B-256 dense paper": 19.5,
    "D-256 dense paper": 9.5,
}
"""Percent of 200 images: the first ones are wrong, so one test's wrong images are among those of a worse one."""


def stored(entry, error, *, n=200, classes=TEN, unusable=(), top5=2.04):
    """As the grid keeps an evaluation."""
    n -= len(unusable)
    wrong = np.arange(n) < round(n * error / 100)
    trained = next(one.scale for one in TRAININGS if one.name == entry.trainings[0])
    return {
        "runs": list(entry.trainings),
        "split": "test",
        "protocol": entry.method,
        "scales": list(chosen_scales(entry.scales, trained=trained)),
        "n": n,
        "top1_error": 100 * float(wrong.mean()),
        "top5_error": None if len(classes) <= 5 else top5,
        "top1_error_ci95": list(wilson_interval(wrong)),
        "per_class": [{"name": name, "n": n // len(classes)} for name in classes],
        "unusable": dict.fromkeys(unusable, "truncated"),
        "top1_wrong_by_image": "".join("01"[one] for one in wrong.tolist()),
    }


def made_up(
    folder,
    *,
    grid=SMALL,
    errors=ERRORS,
    source="made up",
    classes=TEN,
    command="verydeep reproduce",
    unusable=None,
    splits=None,
    memory=None,
    **recipe,
):
    """Folders of finished trainings, and their report. `errors` may be a function of (entry's name, seed)."""
    folders, found = {}, {}
    for seed in range(grid.seeds):
        folders[seed] = folder / "runs" / f"seed-{seed}"
        for number, training in enumerate(grid.trainings):
            settings = {"crop": 32, "width": 0.05, "epochs": 11, **recipe, "scale": training.scale, "seed": seed}
            record = Record(
                network=training.network,
                recipe=asdict(Recipe(**settings)),
                runtime={},
                source=source,
                fingerprints={"train": "f1e2d3", "val": "a4b5c6"},
                images={"train": 1234, "val": 56},
                classes=classes,
                initialisation="made up",
                command=command,
                versions={"verydeep": "9.9.9", "machine": "Abacus", "threads": "2"},
            )
            write_record(folders[seed] / training.name, record)
            for epoch in (1, 2):
                figures = {
                    "epoch": epoch,
                    "loss": 2.25 / epoch + number,
                    "validation_error": 80.0 / epoch + number + seed,
                    "seconds": 30.0 + number,
                    "peak_memory_bytes": memory,
                }
                append_metrics(folders[seed] / training.name, figures)
        of = errors if callable(errors) else lambda name, _: errors[name]
        found[seed] = {
            entry.name: stored(
                entry, of(entry.name, seed), classes=classes, unusable=(unusable or {}).get(entry.name, ())
            )
            for entry in grid.entries
        }
    best = None
    if splits is not None:
        network = best_network(grid, found)
        best = evaluate(folders[0] / network.trainings[0], data=splits, scales=network.scales)
    with patch("verydeep.reproduction.collect.command", lambda: command):
        written = write_report(folder, grid=grid, folders=folders, found=found, best=best, splits=splits)
    assert written == folder / "report.html"
    page, markdown = ((folder / name).read_text() for name in ("report.html", "report.md"))
    results = json.loads((folder / "results.json").read_text(), parse_constant=lambda word: pytest.fail(word))
    return page, markdown, results


def html_tables(text):
    """{caption: [row][cell]}, by Python's XML parser."""
    tables = [ElementTree.fromstring(table) for table in re.findall(r"<table.*?</table>", text, flags=re.DOTALL)]
    captions = ["".join(table.find("caption").itertext()) for table in tables]
    rows = [[[" ".join("".join(c.itertext()).split()) for c in row] for row in table.iter("tr")] for table in tables]
    return dict(zip(captions, rows, strict=True))


def html_table(text, caption):
    """The lines of one table below its head."""
    rows = next(rows for words, rows in html_tables(text).items() if words.startswith(caption))
    return rows[2:] if re.match("As Table [3-6]", caption) else rows[1:]


def markdown_table(text, heading):
    """The lines of the tables below a heading."""
    section = re.search(rf"^## {re.escape(heading)}$(.*?)(?=^## |\Z)", text, flags=re.MULTILINE | re.DOTALL)[1]
    tables = re.findall(r"(?:^\|.*\|\n)+", section, flags=re.MULTILINE)
    lines = [table.replace("\\*", "*").splitlines()[2:] for table in tables]
    return [[[cell.strip() for cell in line.strip("|").split("|")] for line in table] for table in lines]


ONE_SCALE = [
    ["A", "256", "256", "30.0", "24.1 to 36.7", "2.0", "29.6", "10.4"],
    ["B", "256", "256", "20.0", "15.0 to 26.1", "2.0", "28.7", "9.9"],
    ["D", "256", "256", "10.0", "6.6 to 14.9", "2.0", "27.0", "8.8"],
]
SEVERAL_SCALES = [
    ["A", "256", "224, 256, 288", "29.0", "23.2 to 35.6", "2.0", "–", "–"],
    ["B", "256", "224, 256, 288", "19.5", "14.6 to 25.5", "2.0", "28.2", "9.6"],
    ["D", "256", "224, 256, 288", "9.5", "6.2 to 14.4", "2.0", "26.6", "8.6"],
]


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    return made_up(tmp_path_factory.mktemp("small"))


@pytest.fixture(scope="module")
def everything(tmp_path_factory):
    """All of the grid, three seeds; fused and jittered networks err least."""

    def error(name, seed):
        trained = sum({"A": 30, "B": 26, "C": 24, "D": 20, "E": 20}[one[0]] for one in name.split(" ")[0].split("+"))
        networks = name.count("+") + 1
        better = 4 * ("512" in name) + 3 * ("paper" in name) + 2 * ("both" in name) + 5 * (networks > 1)
        return trained / networks - better + seed / 2

    return made_up(tmp_path_factory.mktemp("everything"), grid=Grid(seeds=3), errors=error, memory=1.5e9)


def test_page_and_markdown_show_every_error_beside_the_papers(small):
    page, markdown, _ = small
    assert html_table(page, "As Table 3") == ONE_SCALE
    assert html_table(page, "As Table 4") == SEVERAL_SCALES
    for heading, rows in (("One test scale", ONE_SCALE), ("Several test scales", SEVERAL_SCALES)):
        assert [row[:1] + row[2:] for row in markdown_table(markdown, heading)[0]] == rows


def test_tables_that_were_not_asked_for_are_not_there(small):
    page, markdown, results = small
    assert list(results["tables"]) == ["3", "4"]
    for text in (page, markdown):
        assert "Table 5" not in text
        assert "Table 6" not in text


def test_without_table_3_there_is_no_chart_of_it(tmp_path):
    errors = {f"{name}-256 dense paper": 20.0 for name in "ABD"}
    page, markdown, results = made_up(tmp_path, grid=Grid(only=("A-256", "B-256", "D-256"), tables=(4,)), errors=errors)
    assert list(results["tables"]) == ["4"]
    assert "Error against depth" not in page + markdown
    assert not (tmp_path / "depth.svg").exists()


def test_costs_are_there_with_every_seed(small, everything):
    page, markdown, results = small
    costs = html_table(page, "Abacus, 2 threads.")
    assert costs == markdown_table(markdown, "Cost")[0]
    # 2 epochs of 30, 31 and 32 s, and 2 x 1,234 images in that time
    assert [[row[0], row[1], row[2], *row[5:]] for row in costs] == [
        ["A-256", "random weights", "11", "2", "1:00", "41", "40.0"],
        ["B-256", "A-256", "13", "2", "1:02", "40", "41.0"],
        ["D-256", "A-256", "16", "2", "1:04", "39", "42.0"],
    ]
    assert results["training_seconds"] == 186.0
    page, markdown, _ = everything
    assert html_table(page, "Abacus") == markdown_table(markdown, "Cost")[0]
    assert html_table(page, "Abacus")[0][5:] == [
        "2, 2, 2",
        "1:00, 1:00, 1:00",
        "41",
        "1.5",
        "40.0, 41.0, 42.0",
    ]


def test_page_and_markdown_say_the_same(small):
    page, markdown, _ = small
    for text in (page, markdown):
        assert "The lowest error on 200 test images is 9.5% (95% interval 6.2 to 14.4), of D" in text
        assert "it is the lowest of 6 results" in text
        assert "Q = 224, 256, 288 is 32, 37, 41 pixels" in text
        assert "crop 32 (paper: 224)" in text
        assert " in 3:06. " in text
        assert "1,234 train, 56 val, 200 test; 10 classes" in text
        assert "f1e2d3" in text
        assert TOP5_EXPLAINED not in text


def test_findings_have_their_verdicts_and_their_figures(small):
    page, markdown, results = small
    verdicts = {finding["number"]: finding["verdict"] for finding in results["findings"]}
    # LRN was not trained; A, B and D differ by 10 points each, but E is not there to saturate.
    assert verdicts == dict.fromkeys(range(1, 10), "cannot be told") | {2: "holds"}
    assert results["verdicts"] == {"holds": 1, "cannot be told": 8}
    rows = html_table(page, "The paper's claims")
    depth = next(at for at, row in enumerate(rows) if row[0].startswith("2. depth helps"))
    assert rows[depth][1] == "✓ holds"
    assert rows[depth][3:6] == ["B errs less than A", "20.0 and 30.0", "-10.00"]
    assert rows[depth + 1][:3] == ["D errs less than B", "10.0 and 20.0", "-10.00"]
    for text in (page, markdown):
        assert "1 holds on these images, 0 are reversed, 8 cannot be told" in text
    told, parts = markdown_table(markdown, "Findings")
    assert [row[2] for row in told] == ["? cannot be told", "✓ holds", *["? cannot be told"] * 7]
    assert told[0][4] == "nothing was trained or tested for it"
    low, high = results["findings"][1]["parts"][0]["difference_ci95"]
    first = ["2", "B errs less than A", "20.0", "30.0", "-10.00", f"{low:+.2f} to {high:+.2f}"]
    assert parts[0] == first
    assert rows[depth][6] == first[5]


def test_what_is_reversed_is_marked_so(tmp_path):
    worse = {**ERRORS, "B-256 dense single": 60.0, "D-256 dense single": 75.0}
    page, markdown, results = made_up(tmp_path, errors=worse)
    assert results["findings"][1]["verdict"] == "reversed"
    rows = html_table(page, "The paper's claims")
    assert [row[1:3] for row in rows if row[0].startswith("2.")] == [["✗ reversed", "< 0.001"]]
    assert "1 is reversed" in page
    assert markdown_table(markdown, "Findings")[0][1][2:4] == ["✗ reversed", "< 0.001"]


def test_three_seeds_and_everything(everything):
    page, markdown, results = everything
    assert {table: len(rows) for table, rows in results["tables"].items()} == {"3": 15, "4": 15, "5": 6, "6": 4}
    row = next(row for row in results["tables"]["3"] if row["entry"] == "D-256-512 dense single")
    assert row["of_seeds"] == [16.0, 16.5, 17.0]
    assert row["top1_error"] == pytest.approx(16.5)
    low, high = row["top1_error_ci95"]
    assert 10 < low < 16 < 17 < high < 23
    cells = ["[256;512]", "384", "16.5", f"{low:.1f} to {high:.1f}", "16.0, 16.5, 17.0", "2.0", "25.6", "8.1"]
    assert ["D", *cells] in html_table(page, "As Table 3")
    assert ["D", "dense", *cells] in markdown_table(markdown, "One test scale")[0]
    unseeded = [row for row in html_table(page, "As Table 3") if row[0] == "D (Glorot)"]
    assert unseeded[0][-2:] == ["–", "–"]


def test_an_interval_over_seeds_allows_for_how_they_differ(tmp_path):
    grid = Grid(only=("A-256",), tables=(3,), seeds=3)
    _, _, results = made_up(tmp_path, grid=grid, errors=lambda _, seed: (10.0, 20.0, 30.0)[seed])
    row = results["tables"]["3"][0]
    low, high = row["top1_error_ci95"]
    assert row["top1_error"] == pytest.approx(20.0)
    # The mean of three drawn seeds varies with a standard deviation of 4.7 points; with one seed it is 2.1 (images).
    assert 9 < low < 20 - 1.96 * 4
    assert 20 + 1.96 * 4 < high < 31


def test_tables_5_and_6_are_beside_the_papers(everything):
    page, markdown, _ = everything
    methods = html_table(page, "As Table 5")
    assert [[row[0], row[1], *row[-2:]] for row in methods] == [
        ["D", "dense", "24.8", "7.5"],
        ["D", "multi-crop", "24.6", "7.5"],
        ["D", "multi-crop & dense", "24.4", "7.2"],
        ["E", "dense", "24.8", "7.5"],
        ["E", "multi-crop", "24.6", "7.4"],
        ["E", "multi-crop & dense", "24.4", "7.1"],
    ]
    fused = html_table(page, "As Table 6")
    assert [[row[0], row[1], *row[-2:]] for row in fused] == [
        ["7 of C, D, E", "dense", "24.7", "7.5"],
        ["D + E", "dense", "24.0", "7.1"],
        ["D + E", "multi-crop", "23.9", "7.2"],
        ["D + E", "multi-crop & dense", "23.7", "6.8"],
    ]
    assert [row[3] for row in fused] == ["those of each", *["256, 384, 512"] * 3]
    assert markdown_table(markdown, "Dense and multi-crop")[0] == methods
    assert markdown_table(markdown, "Fusion")[0] == fused
    assert "which were not trained here" not in page + markdown
    for text in (page, markdown):
        assert "submission: D-256, D-384, D-256-512, C-256, C-384, E-256, E-384." in text


def test_without_jittered_networks_the_papers_figures_are_marked(tmp_path):
    grid = Grid(only=("D-256", "E-256"), tables=(5, 6))
    page, markdown, results = made_up(tmp_path, grid=grid, errors=lambda name, _: 20.0 - name.count("+"))
    assert list(results["tables"]) == ["5", "6"]
    assert html_table(page, "As Table 5")[1][-2:] == ["24.6*", "7.5*"]
    assert markdown_table(markdown, "Fusion")[0][0][-2:] == ["24.0*", "7.1*"]
    for text in (page, markdown):
        assert text.count("which were not trained here") >= 2


def test_what_each_step_adds_is_there_with_intervals(everything, small):
    page, markdown, results = everything
    assert [gain["adds"] for gain in results["gains"]] == [
        "scale jitter in training, against S = 384",
        "several test scales, against one",
        "multi-crop, against dense",
        "multi-crop & dense, against dense",
        "multi-crop & dense, against multi-crop",
        "D and E fused, against D",
        "D and E fused, against E",
    ]
    jitter = results["gains"][0]
    assert jitter["difference"] == pytest.approx(-4.0)
    low, high = jitter["difference_ci95"]
    assert low < -4 < high < 0
    rows = html_table(page, "Top-1 error with it")
    assert rows == markdown_table(markdown, "What each step adds")[0]
    assert rows[0][1:] == ["17.8", "21.8", "-4.00", f"{low:+.2f} to {high:+.2f}"]
    assert small[2]["gains"][0]["adds"] == "several test scales, against one"


def test_others_results_on_imagenet_are_there_and_said_to_be_no_measure(small):
    page, markdown, results = small
    others = html_table(page, "As Table 7")
    assert len(others) == 15
    assert others[0] == ["VGG, 2 networks", "23.7", "6.8", "6.8"]
    assert others[3] == ["GoogLeNet, 1 network", "–", "7.9", "–"]
    assert others[-1] == ["Krizhevsky et al., 1 network", "40.7", "18.2", "–"]
    assert markdown_table(markdown, "The paper's networks beside others of their time")[0] == others
    for text in (page, markdown):
        assert "on ImageNet (ILSVRC), 1,000 classes of photographs" in text
        assert "errors on other images cannot be compared with them" in text
        assert "Clarifai reached a top-5 test error of 11.2%" in text
    row = {"who": "MSRA", "networks": "1", "top1": 27.9, "top5": 9.1, "top5_test": 9.1}
    assert row in results["state_of_the_art"]["rows"]


def test_one_seed_and_several_have_their_own_limits(small, everything):
    one = "How much its error would vary with another seed is not known"
    assert one in small[0]
    assert one in small[1]
    assert one not in everything[0]
    assert "Each network was trained with 3 seeds" in everything[0]
    assert "B and D start from layers of trained A" in small[0]
    assert "B from random weights is compared with it" in everything[1]


def test_the_best_line_is_marked_once_in_each_table_that_has_it(small):
    best = re.findall(r'<tr class="best">(.*?)</tr>', small[0])
    assert len(best) == 1
    assert best[0].startswith('<th scope="row">D</th><td>256</td><td>224, 256, 288</td><td><strong>9.5</strong></td>')


def test_the_numbers_are_there_as_json(small):
    results = small[2]
    assert [row["top1_error"] for row in results["tables"]["3"]] == [30.0, 20.0, 10.0]
    row = results["tables"]["4"][2]
    assert row == {
        "entry": "D-256 dense paper",
        "network": "D",
        "trainings": ["D-256"],
        "train": ["256"],
        "test": [224, 256, 288],
        "test_pixels": [32, 37, 41],
        "method": "dense",
        "n": 200,
        "top1_error": 9.5,
        "of_seeds": [9.5],
        "top1_error_ci95": row["top1_error_ci95"],
        "top5_error": 2.04,
        "paper_top1_error": 26.6,
        "paper_top5_error": 8.6,
        "paper_train": "256",
        "paper_trained_alike": True,
    }
    assert results["best"]["entry"] == results["best_network"] == "D-256 dense paper"
    assert results["curves"]["D-256"] == {"0": {"loss": [4.25, 3.125], "validation_error": [82.0, 42.0]}}
    assert results["source"]["images"] == {"train": 1234, "val": 56, "test": 200}
    assert results["trainings"][2]["seeds"][0]["lowest_validation_error"] == 42.0


def test_with_five_classes_top5_is_a_dash_and_explained(tmp_path):
    page, markdown, results = made_up(tmp_path, classes=TEN[:5])
    assert [row[5] for row in html_table(page, "As Table 3")] == ["–"] * 3
    assert [row[6] for row in markdown_table(markdown, "Several test scales")[0]] == ["–"] * 3
    assert TOP5_EXPLAINED in page
    assert TOP5_EXPLAINED in markdown
    assert results["tables"]["3"][0]["top5_error"] is None


def test_names_are_text_and_not_markup(tmp_path):
    page, _, results = made_up(
        tmp_path,
        source="<b>cats</b> & <script>alert(1)</script>",
        classes=("<b>", *TEN),
        command="verydeep reproduce '<i>folder</i>'",
    )
    for markup in ("<b>", "<script", "<i>"):
        assert markup not in page
    assert "<h1>The VGG paper on &lt;b&gt;cats&lt;/b&gt; &amp; &lt;script&gt;" in page
    assert "&lt;i&gt;folder&lt;/i&gt;" in page
    assert results["source"]["classes"][0] == "<b>"


def noise():
    """Ten classes with three images each, for training and for testing."""
    rng = np.random.default_rng(0)
    samples = []
    for index in range(30):
        buffer = io.BytesIO()
        Image.fromarray(rng.integers(0, 256, (40, 40, 3), dtype=np.uint8)).save(buffer, "PNG")
        samples.append(Sample(buffer.getvalue(), index % 10, f"{index}.png"))
    source = MemorySource(classes=TEN, samples=tuple(samples))
    return Splits(name="noise", parts={"train": source, "val": source, "test": source})


@pytest.fixture(scope="module")
def pictured(tmp_path_factory):
    """With images, so that the best network's confusions, wrong images and score maps are there."""
    folder, grid = tmp_path_factory.mktemp("pictured"), Grid(only=("A-256",), tables=(3,))
    net = VGG(configuration("A"), classes=10, crop=32, width=0.05).eval()
    model = Model(net=net, classes=TEN, scale="256", flip=True)
    save_model(model, folder / "runs" / "seed-0" / "A-256" / MODEL)
    return made_up(folder, grid=grid, errors={"A-256 dense single": 90.0}, splits=noise())


def test_with_images_the_best_network_is_shown(pictured):
    page, markdown, results = pictured
    assert "Of A-256, dense evaluation at Q = 256: the single network with the lowest error." in page
    assert page.count("<img ") > 12
    confused = html_table(page, "All confusions, the most frequent first")
    assert confused == markdown_table(markdown, "Confusions of the best network")[0]
    assert [row[0] for row in confused] == [row["true"] for row in results["confusions"]]


def test_without_images_there_is_nothing_of_it(small):
    page, markdown, results = small
    assert "Confusions" not in page + markdown
    assert "Score maps" not in page
    assert results["confusions"] is None


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
    "p has the scope row in {'thead'}": ('<th scope="col">p<', '<th scope="row">p<'),
    "an empty <th>": (">claim<", "><"),
    "a line without a <th>": ('<th scope="row">several test scales, against one</th>', "<td>several test scales</td>"),
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
    for page, count, networks in ((small[0], 3, "ABD"), (everything[0], 3, "ABCDE")):
        charts = re.findall(r"<svg.*?</svg>", page, flags=re.DOTALL)
        assert len(charts) == count
        for chart in charts:
            words = " ".join("".join(node.itertext()) for node in ElementTree.fromstring(chart).iter() if node.text)
            assert "currentColor" in chart
            if "difference of test errors" not in words:
                assert all(re.search(rf"(^|\s){network}(\s|$)", words) for network in networks)


def test_the_same_grid_gives_the_same_files(tmp_path):
    assert made_up(tmp_path / "first") == made_up(tmp_path / "second")


def test_images_that_were_left_out_are_told_once_each(tmp_path):
    for network in ("A", "D"):
        folder = tmp_path / "runs" / "seed-0" / f"{network}-256"
        folder.mkdir(parents=True)
        with (folder / "quarantine.jsonl").open("w") as file:
            for name in ("1.png", "2.png"):
                file.write(json.dumps({"split": "train", "image": name, "reason": "truncated"}) + "\n")
    page, markdown, results = made_up(tmp_path, unusable=dict.fromkeys(ERRORS, ("x.png",)))
    assert results["unusable"] == {"test": 1, "train": 2}
    for text in (page, markdown):
        assert "were left out: 1 of test and 2 of train." in text
    assert len(results["findings"]) == 9


def test_tests_on_different_images_are_not_paired(tmp_path, small):
    page, markdown, results = made_up(tmp_path, unusable={"D-256 dense paper": ("x.png",)})
    assert results["findings"] == results["gains"] == []
    for text in (page, markdown):
        assert "Not every test could use the same images" in text
        assert "✓" not in text
        assert "claims," not in text
    assert "Not every test" not in small[0] + small[1]
    assert small[2]["unusable"] == {}
    assert "left out" not in small[0] + small[1]
