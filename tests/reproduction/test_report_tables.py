"""Tables of the report beside the paper's: every number that was put in, in all three files."""

import re
from dataclasses import replace

import pytest
from made_up_grids import ERRORS, SMALL, TEN, html_table, made_up, markdown_table
from scipy import stats

from verydeep.reproduction.grid import Grid

TOP5_EXPLAINED = "With five classes or fewer a top-5 error says nothing."

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


def test_three_seeds_and_everything(everything):
    page, markdown, results = everything
    assert {table: len(rows) for table, rows in results["tables"].items()} == {"3": 24, "4": 15, "5": 6, "6": 4}
    row = next(row for row in results["tables"]["3"] if row["entry"] == "D-256-512 dense single")
    assert row["of_seeds"] == [16.0, 16.5, 17.0]
    assert row["top1_error"] == pytest.approx(16.5)
    low, high = row["top1_error_ci95"]
    assert 10 < low < 16 < 17 < high < 23
    cells = ["[256;512]", "384", "16.5", f"{low:.1f} to {high:.1f}", "16.0, 16.5, 17.0", "0.50", "2.0", "25.6", "8.1"]
    assert ["D", "dense", *cells] in html_table(page, "As Table 3")
    assert ["D", "dense", *cells] in markdown_table(markdown, "One test scale")[0]
    unseeded = [row for row in html_table(page, "As Table 3") if row[0] == "D (Glorot)"]
    assert unseeded[0][-2:] == ["–", "–"]
    assert [row["entry"] for row in results["tables"]["3"][15:]] == [
        f"{name} centre single"
        for name in (
            *("A-256", "A-LRN-256", "B-256", "B-256-glorot", "B-5x5-256"),
            *("C-256", "D-256", "D-256-glorot", "E-256"),
        )
    ]


def test_an_interval_over_seeds_allows_for_how_they_differ(tmp_path):
    grid = Grid(only=("A-256",), tables=(3,), seeds=3)
    _, _, results = made_up(tmp_path, grid=grid, errors=lambda _, seed: (16.0, 20.0, 24.0)[seed])
    row = results["tables"]["3"][0]
    low, high = row["top1_error_ci95"]
    assert row["top1_error"] == pytest.approx(20.0)
    # Three seeds alone, 4 points apart: Student's t with two degrees of freedom. Images add a little, also to those.
    half = stats.t.ppf(0.975, 2) * 4 / 3**0.5
    assert 20 - 1.1 * half < low < 20 - 0.7 * half
    assert high == pytest.approx(40 - low)


@pytest.mark.parametrize("why", ["did not learn", "cut off"])
def test_intervals_do_not_allow_for_how_networks_vary_that_are_not_compared(tmp_path, why):
    """A and D are the same with every seed; B varies, which the findings leave out, and so do tables."""

    def error(name, seed):
        return 20.0 if name[0] != "B" else 90.0 + 5 * seed if why == "did not learn" else 30.0 + 20 * seed

    grid = Grid(only=("A-256", "B-256", "D-256"), tables=(3,), seeds=3)
    cut_off = ("B-256",) if why == "cut off" else ()
    results = made_up(tmp_path, grid=grid, errors=error, cut_off=cut_off)[2]
    without = made_up(tmp_path / "without", grid=Grid(only=("D-256",), tables=(3,), seeds=3), errors=error)[2]
    rows, alone = ({row["entry"]: row for row in one["tables"]["3"]} for one in (results, without))
    for name in ("A-256 dense single", "D-256 dense single"):
        assert rows[name]["top1_error_ci95"] == alone[name]["top1_error_ci95"]


def test_every_network_has_its_standard_deviation_over_the_seeds(tmp_path):
    grid = Grid(only=("A-256", "B-256"), tables=(3,), seeds=3)
    page, markdown, results = made_up(tmp_path, grid=grid, errors=lambda name, seed: 20.0 + seed * (name[0] == "B"))
    assert [row["sd_of_seeds"] for row in results["tables"]["3"]] == [0.0, 1.0]
    for rows in (html_table(page, "As Table 3"), markdown_table(markdown, "One test scale")[0]):
        assert [row[-4] for row in rows] == ["0.00", "1.00"]


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
        assert "submission: D-256, D-384, D-256-512, C-256, C-384, E-256, E-384; the submission's D" in text


def test_without_jittered_networks_the_papers_figures_are_marked(tmp_path):
    grid = Grid(only=("D-256", "E-256"), tables=(5, 6))
    page, markdown, results = made_up(tmp_path, grid=grid, errors=lambda name, _: 20.0 - name.count("+"))
    assert list(results["tables"]) == ["5", "6"]
    assert results["answer"][0].startswith("Two networks of 16 to 19 weight layers learned")
    assert html_table(page, "As Table 5")[1][-2:] == ["24.6*", "7.5*"]
    assert markdown_table(markdown, "Fusion")[0][0][-2:] == ["24.0*", "7.1*"]
    for text in (page, markdown):
        assert text.count("which were not trained here") >= 2


def test_table_6_alone_is_reported(tmp_path):
    """It has no line of a single network, but tests of them, whose errors are those that a larger run may have."""
    errors = {"D-256 dense paper": 18.0, "E-256 dense paper": 23.0}
    grid = Grid(only=("D-256", "E-256"), tables=(6,))
    results = made_up(tmp_path, grid=grid, errors=lambda name, _: errors.get(name, 15.0))[2]
    assert [row["entry"] for row in results["tables"]["6"]] == [
        f"D-256+E-256 {method} paper" for method in ("dense", "crops", "both")
    ]
    assert "200 test images and errors of about 20.5%" in results["could_tell"]


def test_a_single_test_image_has_no_interval_over_seeds_and_tells_nothing(tmp_path):
    left_out = dict.fromkeys(ERRORS, tuple(map(str, range(199))))
    page, _, results = made_up(tmp_path, grid=replace(SMALL, seeds=2), errors=lambda *_: 90.0, unusable=left_out)
    assert {row["n"] for row in results["tables"]["3"]} == {1}
    assert {row["top1_error_ci95"] for row in results["tables"]["3"]} == {None}
    assert results["not_told"] == "A single test image tells nothing: no claim was tested."
    assert results["not_told"] in page


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
        "sd_of_seeds": None,
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
