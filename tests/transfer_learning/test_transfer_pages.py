"""Every figure of a transfer in its cell, in the terminal's tables and on the page."""

import io
import re
from dataclasses import replace
from html.parser import HTMLParser

import pytest
import translated_pages
from rich.console import Console

from verydeep.transfer_learning.paper import MAP, RECALL, TABLE_11
from verydeep.transfer_learning.report import write_transfer_report
from verydeep.transfer_learning.results import DescriptorDifference, DescriptorResult, Transfer
from verydeep.transfer_learning.tables import transfer_tables

CLASSES = ("ant", "bee")
D = next(row for row in TABLE_11 if row.networks == "D")


def descriptor(name, kind, start, paper=None, eleven=None):
    """Return figures that occur nowhere else."""
    return DescriptorResult(
        name=name,
        kind=kind,
        numbers=1000 + int(start),
        mean=start + 0.11,
        mean_sd=start / 10 + 0.13,
        mean_ci95=(start - 2.71, start + 2.83),
        means=(start - 1, start + 1.22),
        per_class={"ant": start - 5.21, "bee": start + 5.43},
        eleven_point_map=eleven,
        c=(0.1, 10.0),
        paper=paper,
    )


def difference(first, second, value):
    return DescriptorDifference(
        first=first,
        second=second,
        difference=value,
        difference_ci95=(value - 1.31, value + 1.47),
        differences=(value - 0.57, value + 0.57),
    )


def made(measure):
    several = measure == MAP
    names = ("runs/d", "runs/e", "all stacked", "runs/d, untrained", "pixels")
    kinds = ("network", "network", "stacked", "baseline", "baseline")
    starts = (61.0, 52.0, 73.0, 44.0, 35.0)
    papers = (D, None, None, None, None)
    return Transfer(
        runs=names[:2],
        source="photos",
        labels="labels.csv" if several else None,
        test_images=None,
        measure=measure,
        classes=CLASSES,
        n=1234,
        n_train=24,
        n_test=91,
        train=(12, 13),
        test=(47, 49),
        splits=2,
        seed=0,
        scales=((256,), (256, 384)),
        pool="stack",
        mirror=(True, False),
        chance=17.7,
        descriptors=tuple(
            descriptor(name, kind, start, paper, start + 1.97 if several else None)
            for name, kind, start, paper in zip(names, kinds, starts, papers, strict=True)
        ),
        differences=(
            difference(names[0], names[1], 9.0),
            difference(names[1], names[2], -21.0),
            difference(names[0], names[4], -0.0004),
        ),
        copies=7,
        unusable={"bad.jpg": "undecodable"},
        seconds=61.0,
    )


class Rows(HTMLParser):
    """Return the texts of the cells of every row of every table, and all texts."""

    def __init__(self, page):
        super().__init__()
        self.tables, self.texts, self.open = [], [], False
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        if tag == "table":
            self.tables.append([])
        elif tag == "tr":
            self.tables[-1].append([])
        elif tag in ("td", "th"):
            self.tables[-1][-1].append("")
            self.open = True

    def handle_endtag(self, tag):
        if tag in ("td", "th"):
            self.open = False

    def handle_data(self, data):
        self.texts.append(data)
        if self.open:
            self.tables[-1][-1][-1] += data


def span(ends, digits, sign=""):
    return " to ".join(format(end, f"{sign}.{digits}f") for end in ends)


def short(name):
    return re.sub("^runs/", "", name)


def rows_of_descriptors(found, digits, paper):
    for one in found.descriptors:
        eleven = [] if one.eleven_point_map is None else [f"{one.eleven_point_map:.{digits}f}"]
        yield [
            short(one.name),
            f"{one.numbers:,}",
            f"{one.mean:.{digits}f}",
            f"{one.mean_sd:.{digits}f}",
            span(one.mean_ci95, digits),
            *eleven,
            "0.1, 10",
            *paper(one),
        ]


def rows_of_differences(found, digits):
    for pair in found.differences:
        told = f"{pair.difference:+.{digits}f}".replace("-0.00", "+0.00") if digits == 2 else f"{pair.difference:+.1f}"
        yield [
            short(pair.first),
            short(pair.second),
            told.replace("-0.0", "+0.0") if abs(pair.difference) < 0.01 else told,
            span(pair.difference_ci95, digits, "+"),
            ", ".join(f"{one:+.{digits}f}" for one in pair.differences),
        ]


@pytest.mark.parametrize("measure", [RECALL, MAP])
def test_the_page_has_every_figure_in_its_cell(tmp_path, measure):
    found = made(measure)
    page = Rows(write_transfer_report(found, tmp_path).read_text())
    papers = {
        RECALL: lambda one: [f"{D.caltech_101:.1f}" if one.paper else "–"],
        MAP: lambda one: [f"{D.voc_2012:.1f}", f"{D.voc_2007:.1f}"] if one.paper else ["–", "–"],
    }
    descriptors, differences, classes, *_ = page.tables
    assert descriptors[1:] == list(rows_of_descriptors(found, 1, papers[measure]))
    assert differences[1:] == list(rows_of_differences(found, 1))
    assert classes[0][-5:] == [short(one.name) for one in found.descriptors]
    for place, (name, row) in enumerate(zip(CLASSES, classes[1:], strict=True)):
        images = [str(found.train[place]), str(found.test[place])] if measure == MAP else [str(found.test[place])]
        assert row == [name, *images, *(f"{one.per_class[name]:.1f}" for one in found.descriptors)]
    text = " ".join("".join(page.texts).split())
    own = found.descriptors[2]
    for wanted in (
        (f"all stacked, asked which images show it, has a mean average precision (mAP) of {own.mean:.1f}%",)
        if (measure == MAP)
        else (f"the features of all stacked finds {own.mean:.1f}% of a class's images",)
    ):
        assert wanted in text
    for wanted in (
        span(own.mean_ci95, 1),
        "17.7%",
        "12 to 13",
        "47 to 49",
        "The runs are in runs/",
        "bad.jpg",
        "7 test images are exact copies",
    ):
        assert wanted in text
    assert "from 0.01, 0.1, 1, 10, 100, 1000." in text


@pytest.mark.parametrize("measure", [RECALL, MAP])
def test_the_terminal_has_every_figure_in_its_cell(measure):
    found = made(measure)
    tables = transfer_tables(found)
    cells = [[list(row) for row in zip(*(column.cells for column in table.columns), strict=True)] for table in tables]
    told = [[[str(cell) for cell in row] for row in table] for table in cells]
    assert told[0] == list(rows_of_descriptors(found, 2, lambda one: []))
    assert told[1] == list(rows_of_differences(found, 2))
    assert told[2][0][0] == "D"
    console = Console(file=io.StringIO(), width=200)
    console.print(*tables)
    text = " ".join(console.file.getvalue().split())
    for wanted in (
        "photos: 2 classes",
        "12 to 13",
        "47 to 49",
        "1 unusable left out",
        "The runs are in runs/",
        measure,
        "exact copies of training images: 7.",
    ):
        assert wanted in text


def test_without_an_interval_there_is_a_dash(tmp_path):
    found = made(RECALL)
    bare = replace(
        found,
        splits=1,
        descriptors=tuple(replace(one, mean_sd=None, mean_ci95=None) for one in found.descriptors),
        differences=tuple(replace(pair, difference_ci95=None) for pair in found.differences),
    )
    page = Rows(write_transfer_report(bare, tmp_path).read_text())
    assert [row[3:5] for row in page.tables[0][1:]] == [["–", "–"]] * 5
    assert [row[3] for row in page.tables[1][1:]] == ["–"] * 3
    table, differences, _ = transfer_tables(bare)
    assert list(table.columns[4].cells) == ["–"] * 5
    assert list(differences.columns[3].cells) == ["–"] * 3


@pytest.mark.parametrize("measure", [RECALL, MAP])
def test_the_same_in_japanese(tmp_path, measure):
    english, japanese = (
        write_transfer_report(made(measure), tmp_path / language, language=language).read_text()
        for language in ("en", "ja")
    )
    translated_pages.check(english, japanese)
    assert "各記述子の" + {RECALL: "クラスの再現率の平均", MAP: "mAP"}[measure] in japanese


def test_names_of_any_bytes_are_in_the_chart(tmp_path):
    """Linux allows names that are not UTF-8, which Matplotlib does not take."""
    found = made(RECALL)
    odd = replace(found, descriptors=tuple(replace(one, name="caf\udce9 $x$") for one in found.descriptors))
    page = write_transfer_report(odd, tmp_path).read_text()
    (chart,) = re.findall("<svg.*</svg>", page, re.DOTALL)
    assert chart.count(r"caf\udce9 $x$") >= len(found.descriptors)
