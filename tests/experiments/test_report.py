"""The report of a grid that was never run: its numbers are made up here and looked for in all three files."""

import json
import re
from dataclasses import asdict
from xml.etree import ElementTree

import pytest

from verydeep import runs
from verydeep.experiments.report import write_report
from verydeep.training.recipe import Recipe

TEN = tuple("0123456789")
TOP5_EXPLAINED = "With five classes or fewer a top-5 error says nothing."


def evaluation(top1, interval, top5, *, scales, n=200):
    """As `Evaluation.to_dict` gives it."""
    return {
        "runs": ["made up"],
        "source": "made up",
        "split": "test",
        "protocol": "dense",
        "scales": scales,
        "n": n,
        "top1_error": top1,
        "top5_error": top5,
        "top1_error_ci95": interval,
        "per_run": [],
        "seconds": 1.0,
        "images_per_second": 200.0,
    }


EVALUATIONS = {
    ("A", "single"): evaluation(12.5, (8.61, 17.84), 3.04, scales=(256,)),
    ("D", "single"): evaluation(9.06, (5.9, 13.7), 2.0, scales=(256,)),
    ("B-5x5", "single"): evaluation(31.0, (25.0, 37.7), 4.0, scales=(256,)),
    ("A", "paper"): evaluation(11.0, (7.4, 16.1), 2.5, scales=(224, 256, 288)),
    ("D", "paper"): evaluation(7.77, (4.8, 12.3), 1.5, scales=(224, 256, 288)),
    ("B-5x5", "paper"): evaluation(30.0, (24.1, 36.7), 3.5, scales=(224, 256, 288)),
    ("D + E", "paper"): evaluation(8.0, (5.0, 12.6), 1.0, scales=(224, 256, 288)),
}


def grid(folder, *, source="made up", classes=TEN, evaluations=EVALUATIONS, command="verydeep reproduce", **recipe):
    """Folders of finished trainings, and their report."""
    networks = [name for name, scales in evaluations if scales == "single" and "+" not in name]
    settings = {"crop": 32, "width": 0.05, "epochs": 11, **recipe}
    folders = {}
    for number, network in enumerate(networks):
        folders[network] = folder / "runs" / network
        record = runs.Record(
            network=network,
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
        runs.write_record(folders[network], record)
        for epoch in (1, 2):
            figures = {
                "epoch": epoch,
                "loss": 2.25 / epoch + number,
                "validation_error": 80.0 / epoch + number,
                "seconds": 30.0 + number,
            }
            runs.append_metrics(folders[network], figures)
    written = write_report(folder, folders=folders, evaluations=evaluations)
    assert written == folder / "report.html"
    return (folder / name for name in ("report.html", "report.md", "results.json"))


def html_tables(text):
    """[table][row][cell], by Python's XML parser."""
    tables = [ElementTree.fromstring(table) for table in re.findall(r"<table>.*?</table>", text, flags=re.DOTALL)]
    return [[["".join(cell.itertext()) for cell in row] for row in table.iter("tr")] for table in tables]


def markdown_tables(text):
    tables = re.findall(r"(?:^\|.*\|\n)+", text, flags=re.MULTILINE)
    lines = [table.replace("\\*", "*").splitlines() for table in tables]
    return [[[cell.strip() for cell in line.strip("|").split("|")] for line in table] for table in lines]


ONE_SCALE = [
    ["A", "256", "256", "12.5", "8.6 to 17.8", "3.0", "29.6", "10.4"],
    ["D", "256", "256", "9.1", "5.9 to 13.7", "2.0", "27.0", "8.8"],
    ["B-5x5", "256", "256", "31.0", "25.0 to 37.7", "4.0", "–", "–"],
]
THREE_SCALES = [
    ["A", "256", "224, 256, 288", "11.0", "7.4 to 16.1", "2.5", "–", "–"],
    ["D", "256", "224, 256, 288", "7.8", "4.8 to 12.3", "1.5", "26.6", "8.6"],
    ["B-5x5", "256", "224, 256, 288", "30.0", "24.1 to 36.7", "3.5", "–", "–"],
    ["D + E", "256", "224, 256, 288", "8.0", "5.0 to 12.6", "1.0", "24.0*", "7.1*"],
]


def test_the_page_shows_every_error_beside_the_papers(tmp_path):
    page, _, _ = grid(tmp_path)
    one, three, _ = html_tables(page.read_text())
    assert one[2:] == ONE_SCALE
    assert three[2:] == THREE_SCALES
    assert one[1] == ["train S", "test Q", "top-1", "95% interval", "top-5", "top-1", "top-5"]


def test_the_markdown_has_the_same_figures(tmp_path):
    _, markdown, _ = grid(tmp_path)
    one, three, curves, costs = markdown_tables(markdown.read_text())
    assert one[2:] == ONE_SCALE
    assert three[2:] == THREE_SCALES
    assert curves[2:] == [
        ["A", "2", "2.25", "1.12", "40.0", "40.0"],
        ["D", "2", "3.25", "2.12", "41.0", "41.0"],
        ["B-5x5", "2", "4.25", "3.12", "42.0", "42.0"],
    ]
    # 2 epochs of 30, 31 and 32 s, and 2 x 1,234 images in that time
    assert [(row[0], row[1], row[4:]) for row in costs[2:]] == [
        ("A", "11", ["2", "1:00", "41"]),
        ("D", "16", ["2", "1:02", "40"]),
        ("B-5x5", "8", ["2", "1:04", "39"]),
    ]


def test_page_and_markdown_have_the_same_costs_and_the_same_words(tmp_path):
    page, markdown, _ = grid(tmp_path)
    page, markdown = page.read_text(), markdown.read_text()
    assert html_tables(page)[2][1:] == markdown_tables(markdown)[3][2:]
    for text in (page, markdown):
        assert "The lowest error on 200 test images is 7.8% (95% interval 4.8 to 12.3), of D" in text
        assert f"it is the lowest of {3 + 4} results" in text
        assert "Q = 256 is 37 pixels" in text
        assert "crop 32 (paper: 224)" in text
        assert " in 3:06. " in text
        assert "1,234 train, 56 val, 200 test; 10 classes" in text
        assert "f1e2d3" in text
        assert TOP5_EXPLAINED not in text


def test_the_best_line_is_marked_once(tmp_path):
    page, _, _ = grid(tmp_path)
    best = re.findall(r'<tr class="best">(.*?)</tr>', page.read_text())
    assert len(best) == 1
    assert best[0].startswith('<th scope="row">D</th><td>256</td><td>224, 256, 288</td><td>7.8</td>')


def test_the_numbers_are_there_as_json(tmp_path):
    _, _, results = grid(tmp_path)
    found = json.loads(results.read_text(), parse_constant=lambda word: pytest.fail(f"{word} is no JSON"))
    assert [row["top1_error"] for row in found["one_scale"]] == [12.5, 9.06, 31.0]
    assert found["several_scales"][3] == {
        "network": "D + E",
        "train": "256",
        "test": [224, 256, 288],
        "test_pixels": [32, 37, 41],
        "n": 200,
        "top1_error": 8.0,
        "top1_error_ci95": [5.0, 12.6],
        "top5_error": 1.0,
        "paper_top1_error": 24.0,
        "paper_top5_error": 7.1,
        "paper_train": "256:512",
    }
    assert found["best"] == found["several_scales"][1]
    assert found["curves"]["D"][1] == {"epoch": 2, "loss": 2.125, "validation_error": 41.0, "seconds": 31.0}
    assert found["training_seconds"] == 186.0
    assert found["source"]["images"] == {"train": 1234, "val": 56, "test": 200}


def test_a_range_of_scales_is_written_as_in_the_paper(tmp_path):
    evaluations = {
        ("D", "single"): evaluation(9.0, (5.9, 13.7), 2.0, scales=(384,)),
        ("D", "paper"): evaluation(8.0, (5.0, 12.6), 1.0, scales=(256, 384, 512)),
        ("D + E", "paper"): evaluation(7.0, (4.2, 11.4), 1.0, scales=(256, 384, 512)),
    }
    page, markdown, _ = grid(tmp_path, evaluations=evaluations, scale="256:512")
    for tables in (html_tables(page.read_text()), markdown_tables(markdown.read_text())):
        assert tables[0][2:] == [["D", "[256;512]", "384", "9.0", "5.9 to 13.7", "2.0", "25.6", "8.1"]]
        assert tables[1][2:] == [
            ["D", "[256;512]", "256, 384, 512", "8.0", "5.0 to 12.6", "1.0", "24.8", "7.5"],
            ["D + E", "[256;512]", "256, 384, 512", "7.0", "4.2 to 11.4", "1.0", "24.0", "7.1"],
        ]


def test_with_five_classes_top5_is_a_dash_and_explained(tmp_path):
    evaluations = {key: {**found, "top5_error": None} for key, found in EVALUATIONS.items()}
    page, markdown, results = grid(tmp_path, classes=TEN[:5], evaluations=evaluations)
    for text, tables in ((page, html_tables), (markdown, markdown_tables)):
        one, three, *_ = tables(text.read_text())
        assert [row[5] for row in (*one[2:], *three[2:])] == ["–"] * 7
        assert [row[3] for row in one[2:]] == ["12.5", "9.1", "31.0"]
        assert TOP5_EXPLAINED in text.read_text()
    assert json.loads(results.read_text())["one_scale"][0]["top5_error"] is None


def test_names_are_text_and_not_markup(tmp_path):
    page, _, results = grid(
        tmp_path,
        source="<b>cats</b> & <script>alert(1)</script>",
        classes=("<b>", *TEN),
        command="verydeep reproduce '<i>folder</i>'",
    )
    text = page.read_text()
    for markup in ("<b>", "<script", "<i>"):
        assert markup not in text
    assert "<h1>The VGG paper on &lt;b&gt;cats&lt;/b&gt; &amp; &lt;script&gt;" in text
    assert "&lt;i&gt;folder&lt;/i&gt;" in text
    assert json.loads(results.read_text())["source"]["classes"][0] == "<b>"


def test_the_page_needs_no_other_file_and_no_script(tmp_path):
    page, _, _ = grid(tmp_path)
    text = page.read_text()
    addresses = re.findall(r"\b(?:src|srcset|href|action|poster|data)\s*=\s*[\"']?([^\"'\s>]*)", text)
    addresses += re.findall(r"url\(\s*[\"']?([^)\"']*)", text)
    assert [address for address in addresses if not address.startswith("#")] == []
    for tag in ("<script", "<link", "<img", "<iframe", "<object", "<embed", "@import", "<!ENTITY"):
        assert tag.lower() not in text.lower()
    assert not re.search(r"\son[a-z]+\s*=", text)
    # What is left of the web are names of XML vocabularies, which nothing fetches.
    left = re.sub(r"xmlns(:\w+)?=\"[^\"]*\"|rdf:(resource|about)=\"[^\"]*\"", "", text)
    assert "http://" not in left
    assert "https://" not in left


def test_the_charts_are_whole_svg_in_the_pages_colour_with_every_network(tmp_path):
    page, _, _ = grid(tmp_path)
    charts = re.findall(r"<svg.*?</svg>", page.read_text(), flags=re.DOTALL)
    assert len(charts) == 2
    for chart in charts:
        words = " ".join("".join(node.itertext()) for node in ElementTree.fromstring(chart).iter() if node.text)
        for network in ("A", "D", "B-5x5"):
            assert re.search(rf"(^|\s){network}(\s|$)", words)
        assert "currentColor" in chart


def test_the_same_grid_gives_the_same_files(tmp_path):
    first = [path.read_bytes() for path in grid(tmp_path / "first")]
    second = [path.read_bytes() for path in grid(tmp_path / "second")]
    assert first == second


def test_images_that_were_left_out_are_told_once_each(tmp_path):
    lacking = {key: {**found, "unusable": {"x.png": "truncated"}} for key, found in EVALUATIONS.items()}
    for network in ("A", "D"):
        (tmp_path / "runs" / network).mkdir(parents=True)
        with (tmp_path / "runs" / network / "quarantine.jsonl").open("w") as file:
            for name in ("1.png", "2.png"):
                file.write(json.dumps({"split": "train", "image": name, "reason": "truncated"}) + "\n")
    html, markdown, results = grid(tmp_path, evaluations=lacking)
    assert json.loads(results.read_text())["unusable"] == {"test": 1, "train": 2}
    for page in (html, markdown):
        assert "were left out: 1 of test and 2 of train." in page.read_text()
    html, markdown, results = grid(tmp_path / "clean")
    assert json.loads(results.read_text())["unusable"] == {}
    assert "left out" not in html.read_text() + markdown.read_text()
