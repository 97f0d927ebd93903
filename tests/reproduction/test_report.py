"""Findings, gains, costs and sentences of the report."""

import html
import json
import re
from dataclasses import asdict, replace
from types import SimpleNamespace

import pytest
import torch
from made_up_grids import ERRORS, SMALL, TEN, html_table, made_up, markdown_table, noise, stored
from markdown_it import MarkdownIt

from verydeep.commands.reproduce import _next, _Results
from verydeep.networks.architecture import Architecture
from verydeep.networks.vgg import VGG
from verydeep.presentation.pages import _environment
from verydeep.reproduction.claims import CLAIMS, GAINS
from verydeep.reproduction.grid import Grid
from verydeep.reproduction.study_differences import difference_of_tests
from verydeep.reproduction.table_rows import outcomes, outcomes_by_images
from verydeep.runs.files import CONFIG, MODEL, WEIGHTS
from verydeep.runs.model import Model, save_model
from verydeep.training.recipe import Recipe


def test_page_and_markdown_say_the_same(small):
    page, markdown, _ = small
    for text in (page, markdown):
        assert "The lowest error on 200 test images is 9.5% (95% interval 6.2 to 14.4), of D" in text
        assert "it is the lowest of 6 results" in text
        assert "Q = 224, 256, 288 is 32, 37, 41 pixels" in text
        assert "crop 32 (paper: 224)" in text
        assert "3:06 of training in all, by the recipe" in text
        assert "1,234 train, 56 val, 200 test; 10 classes" in text
        assert "f1e2d3" in text
        assert "a top-5 error says nothing" not in text


def test_findings_have_their_verdicts_and_their_figures(small):
    page, markdown, results = small
    verdicts = {finding["number"]: finding["verdict_of_trained"] for finding in results["findings"]}
    # LRN was not trained; A, B and D differ by 10 points each, but E is not there to saturate.
    assert verdicts == dict.fromkeys(range(1, len(CLAIMS) + 1), "cannot_be_told") | {2: "holds_in_part"}
    assert results["verdicts"] == {"cannot_be_told": len(CLAIMS)}
    assert results["verdicts_of_trained"] == {"holds_in_part": 1, "cannot_be_told": len(CLAIMS) - 1}
    rows = html_table(page, "The paper's claims")
    depth = next(at for at, row in enumerate(rows) if row[0].startswith("2. depth helps"))
    assert rows[depth][1:3] == ["? cannot be told", "holds in part"]
    assert rows[depth][3:6] == ["B errs less than A", "20.0 and 30.0", "-10.00"]
    assert rows[depth + 1][:3] == ["D errs less than B", "10.0 and 20.0", "-10.00"]
    for text in (page, markdown):
        assert "One seed tells nothing about networks trained again" in text
        assert "one holds in part (depth helps, and saturates at D and E) and eight cannot be told; one seed" in text
    told, parts = markdown_table(markdown, "What a larger run would tell")
    assert [row[2] for row in told] == ["? cannot be told"] * len(CLAIMS)
    assert told[1][3] == "holds in part"
    assert told[0][4] == "nothing was trained or tested for it"
    low, high = results["findings"][1]["parts"][0]["difference_ci95"]
    first = ["2", "B errs less than A", "20.0", "30.0", "-10.00", f"{low:+.2f} to {high:+.2f}"]
    assert parts[0] == first
    assert rows[depth][6] == first[5]


def test_what_is_reversed_is_marked_so(tmp_path):
    worse = {**ERRORS, "B-256 dense single": 60.0, "D-256 dense single": 75.0}
    page, markdown, results = made_up(tmp_path, grid=replace(SMALL, seeds=3), errors=lambda name, seed: worse[name])
    assert results["findings"][1]["verdict"] == "reversed"
    rows = html_table(page, "The paper's claims")
    assert [row[1:3] for row in rows if row[0].startswith("2.")] == [["✗ reversed", "reversed"]]
    assert "one is reversed (depth helps, and saturates at D and E)" in page
    assert markdown_table(markdown, "Findings")[0][1][2:4] == ["✗ reversed", "reversed"]


def test_the_seeds_that_would_show_an_open_part_stand_beside_it(tmp_path):
    errors = {"A-256 dense single": 31.0, "B-256 dense single": 30.5, "D-256 dense single": 10.0}

    def spread(name, seed):
        return errors.get(name, 25.0) + (0, 2, 4, 1)[seed]

    page, markdown, results = made_up(tmp_path, grid=replace(SMALL, seeds=4), errors=spread)
    said = {part["id"]: part["deciding_seeds"] for finding in results["findings"] for part in finding["parts"]}
    assert {told["shows"] if told else None for told in said.values()} >= {None, "holds"}
    rows = [row for row in html_table(page, "The paper's claims") if row[-4] != "–"]
    _, parts = markdown_table(markdown, "Findings")
    for told, row, line in zip(said.values(), rows, parts, strict=True):
        number = "–" if told is None else "100+" if told["seeds"] > 100 else str(told["seeds"])
        expected = number + ", the opposite" * (told is not None and told["shows"] == "reversed")
        assert (row[-1], line[-1]) == (expected, expected)
    page, markdown, _ = made_up(tmp_path / "two", grid=replace(SMALL, seeds=2), errors=spread)
    assert ">seeds to show it<" not in page
    assert "| seeds to show it |" not in markdown


def test_trainings_that_were_cut_off_are_named_where_claims_are_told(tmp_path):
    page, markdown, results = made_up(tmp_path, epochs=3)
    assert results["unfinished"] == ["A-256", "B-256", "D-256"]
    for text in (page, markdown):
        assert (
            text.count("A-256, B-256 and D-256 were cut off before the schedule") == 3
        )  # first, at verdicts, how sure
        assert "trained too briefly: A-256, B-256, D-256" in text
        assert "trained too briefly to compare (A-256, B-256): B errs less than A" in text
    assert {finding["verdict_of_trained"] for finding in results["findings"]} == {"cannot_be_told"}


def test_what_each_step_adds_is_there_with_intervals(everything, small):
    page, markdown, results = everything
    assert {gain["id"]: gain["adds"] for gain in results["gains"]} == GAINS
    jitter = next(gain for gain in results["gains"] if gain["id"] == "jitter_against_256")
    assert jitter["adds"] == "scale jitter in training, against S = 256"
    assert jitter["difference"] == pytest.approx(-4.0)
    low, high = jitter["difference_ci95"]
    assert low < -4 < high < 0
    rows = html_table(page, "Top-1 error with it")
    assert rows == markdown_table(markdown, "What each step adds")[0]
    steps = [gain["id"] for gain in results["gains"]]
    assert rows[steps.index("jitter_against_256")][1:] == ["17.8", "21.8", "-4.00", f"{low:+.2f} to {high:+.2f}"]
    assert [gain["adds"] for gain in small[2]["gains"]] == ["depth: D, against A", "several test scales, against one"]


def test_costs_are_there_with_every_seed(small, everything):
    page, markdown, results = small
    costs = html_table(page, "Abacus, 2 threads.")
    assert costs == markdown_table(markdown, "Cost")[0]
    # 2 epochs of 30, 31 and 32 s, and 2 x 1,234 images in that time
    assert [[row[0], row[1], row[2], *row[5:]] for row in costs] == [
        ["A-256", "random weights", "11", "2", "1:00", "41", "40.0", "40.0"],
        ["B-256", "A-256", "13", "2", "1:02", "40", "40.0", "41.0"],
        ["D-256", "A-256", "16", "2", "1:04", "39", "40.0", "42.0"],
    ]
    assert results["training_seconds"] == 186.0
    page, markdown, _ = everything
    assert html_table(page, "Abacus") == markdown_table(markdown, "Cost")[0]
    assert html_table(page, "Abacus")[0][5:] == [
        "2, 2, 2",
        "1:00, 1:00, 1:00",
        "41",
        "1.5",
        "40.0, 40.0, 40.0",
        "40.0, 41.0, 42.0",
    ]


def test_memory_that_is_not_known_is_a_dash(tmp_path):
    grid, memory = Grid(only=("A-256", "B-256"), tables=(3,)), {"B-256": 2_000_000_000}
    page, markdown, results = made_up(tmp_path, grid=grid, errors=lambda *_: 20.0, memory=memory)
    for costs in (html_table(page, "Abacus, 2 threads."), markdown_table(markdown, "Cost")[0]):
        assert [row[-3] for row in costs] == ["–", "2.0"]
    assert [one["seeds"][0]["peak_memory_bytes"] for one in results["trainings"]] == [None, 2_000_000_000]


@pytest.mark.parametrize("measured", [False, True])
@pytest.mark.parametrize(("threads", "said"), [("1", "Abacus, 1 thread. "), ("2", "Abacus, 2 threads. ")])
def test_costs_are_of_so_many_threads_and_memory_is_told_of_where_it_has_a_column(threads, said, measured):
    results = {"versions": {"machine": "Abacus", "threads": threads}, "seeds": (0, 1), "memory_measured": measured}
    for language, memory in (("en", "memory"), ("ja", "メモリ")):
        environment = _environment(language, listed=str, unfinished_because=str)
        notes = environment.get_template("reproduction/notes.html.jinja").module
        assert (memory in notes.costs(results)) is measured
        assert language == "ja" or notes.costs(results).strip().startswith(said)


def test_others_results_on_imagenet_are_there_and_said_to_be_no_measure(small):
    page, markdown, results = small
    others = html_table(page, "As Table 7")
    assert len(others) == 15
    assert others[0] == ["VGG, 2 networks", "23.7", "6.8", "6.8"]
    assert others[3] == ["GoogLeNet, 1 network", "–", "7.9", "7.9"]
    assert others[-1] == ["Krizhevsky et al., 1 network", "40.7", "18.2", "–"]
    assert markdown_table(markdown, "The paper's networks beside others of their time")[0] == others
    for text in (page, markdown):
        assert "on ImageNet (ILSVRC), 1,000 classes of photographs" in text
        assert "errors on other images cannot be compared with them" in text
        assert "Clarifai reached a top-5 test error of 11.2%" in text
    row = {"who": "MSRA", "networks": "1", "top1": 27.9, "top5": 9.1, "top5_test": 9.1}
    assert row in results["state_of_the_art"]["rows"]


def test_one_seed_and_several_have_their_own_limits(small, everything):
    one = "Each network was trained once."
    assert one in small[0]
    assert one in small[1]
    assert one not in everything[0]
    assert "Each network was trained with 3 seeds" in everything[0]
    assert "B and D start from layers of trained A and so have its training as well as their own" in small[0]
    assert "B from random weights is compared with it" in everything[1]
    assert "A, A-LRN, B-5x5, B (Glorot) and D (Glorot) start from random weights" in everything[0]


def test_the_widest_interval_is_told_from_its_error_to_its_farther_end(small):
    """Intervals are not even: near 0 and 100 one end is cut off."""
    _, _, results = small
    rows = [row for rows in results["tables"].values() for row in rows]
    widest = max(abs(end - row["top1_error"]) for row in rows for end in row["top1_error_ci95"])
    assert f"reach up to {widest:.1f} points to either side" in " ".join(results["limits"])


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


def test_with_images_the_best_network_is_shown(pictured):
    page, markdown, results = pictured
    assert "Of A-256, dense evaluation at Q = 256: the single network with the lowest error." in page
    assert page.count("<img ") == 12  # the wrong images
    assert "Not shown: the score maps of 7 images" in page
    confused = html_table(page, "All confusions, the most frequent first")
    assert confused == markdown_table(markdown, "Confusions of the best network")[0]
    assert [row[0] for row in confused] == [row["true"] for row in results["confusions"]]


def test_without_images_there_is_nothing_of_it(small):
    page, markdown, results = small
    assert "Confusions" not in page + markdown
    assert "Score maps" not in page
    assert results["confusions"] is None


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
    assert len(results["findings"]) == len(CLAIMS)


def test_as_many_images_are_not_the_same_images(tmp_path):
    left_out = dict.fromkeys(ERRORS, ("x.png",)) | {"D-256 dense paper": ("y.png",)}
    page, _, results = made_up(tmp_path, unusable=left_out)
    assert results["findings"] == []
    assert results["not_told"] == (
        "Not every test could use the same images: 2 images were left out of some and not of others, so results "
        "cannot be paired and no claim was tested. Files in evaluations/ say why, under 'unusable': once they can be "
        "read, remove those that name them and repeat the command; or reproduce in another folder, from images "
        "without them."
    )
    assert results["not_told"] in html.unescape(page)


def test_outcomes_are_paired_by_images_not_by_their_number():
    one, other = SMALL.entries[:2]
    tests = {
        seed: {one.name: stored(one, 20, unusable=("x",)), other.name: stored(other, 20, unusable=(name,))}
        for seed, name in enumerate("xy")
    }
    assert list(outcomes([one, other], tests)) == [one.name]
    again = {seed: {**its, other.name: stored(other, 20, unusable=("y",))} for seed, its in tests.items()}
    assert [list(same) for same in outcomes_by_images([one, other], again)] == [[one.name], [other.name]]
    runs = [
        SimpleNamespace(seed=0, training=SimpleNamespace(name=entry.trainings[0]), test=again[0][entry.name])
        for entry in (one, other)
    ]
    weights = {one.trainings[0]: 1.0, other.trainings[0]: -1.0}
    assert difference_of_tests(runs, weights) is None
    assert difference_of_tests([runs[0], replace_test(runs[1], stored(other, 20, unusable=("x",)))], weights)


def replace_test(run, test):
    return SimpleNamespace(seed=run.seed, training=run.training, test=test)


HOSTILE = (
    "<img src=x onerror=alert(1)>",
    "*a*",
    "a `tick`",
    "new\nline",
    "back\\",
    "a|b",
    "_b_",
    "[c](d)",
    "# e",
    "&lt;",
)


def test_hostile_names_are_no_markup_in_markdown(tmp_path):
    """By a parser of CommonMark. Weights are there with the second seed alone, which the confusions name."""
    grid = Grid(only=("A-256",), tables=(3,), seeds=2)
    torch.manual_seed(0)
    net = VGG(Architecture(network="A", classes=10, crop=32, width=0.05)).eval()
    with torch.no_grad():
        net.fc8.bias[3] += 10
    model = Model(net=net, classes=HOSTILE, scale="256", flip=True)
    for seed in (0, 1):
        save_model(model, tmp_path / "runs" / f"seed-{seed}" / "A-256" / MODEL)
    (tmp_path / "runs" / "seed-0" / "A-256" / MODEL / WEIGHTS).unlink()
    commands = [
        {"command": text, "began": "now", "directory": "/a ``b`\n\nc"} for text in ("verydeep `<b>", "`x` *y*\n\nz`")
    ]
    plan = {"fingerprints": {}, "recipe": asdict(Recipe()), "commands": commands}
    (tmp_path / "plan.json").write_text(json.dumps(plan))
    how = {"errors": lambda *_: 90.0, "classes": HOSTILE, "splits": noise(HOSTILE)}
    page, markdown, _ = made_up(tmp_path, grid=grid, **how)
    assert "with seed 1" in page
    assert "Of A-256 dense single with seed 1, the most frequent first." in markdown
    shown = MarkdownIt().enable("table").render(markdown)
    assert "<img src=x" not in shown
    cells = [html.unescape(cell) for cell in re.findall("<td[^>]*>(.*?)</td>", shown)]
    assert {" ".join(name.split()) for name in HOSTILE} <= set(cells)
    for code in ("/a ``b`  c", "verydeep `<b>", "`x` *y*  z`"):
        assert f"<code>{html.escape(code)}</code>" in shown


@pytest.mark.parametrize("kept", [(), (1,), (1, 2)])
def test_the_next_command_is_of_a_run_with_weights(tmp_path, kept):
    for seed in range(3):
        model = tmp_path / "runs" / f"seed-{seed}" / "D-256" / MODEL
        model.mkdir(parents=True)
        for name in (CONFIG, *[WEIGHTS] * (seed in kept)):
            (model / name).touch()
    results = _Results(seeds=(0, 1, 2), answer=(), best_network="D-256 dense paper", larger_run=None)
    run = tmp_path / "runs" / "seed-1" / "D-256"
    assert _next(results, tmp_path) == (
        f"verydeep predict {run} picture.jpg" if kept else f"verydeep findings {tmp_path}"
    )


@pytest.mark.parametrize("seeds", [1, 2])
def test_the_next_command_of_too_few_seeds_has_more(tmp_path, seeds):
    results = _Results(seeds=tuple(range(seeds)), answer=(), best_network="D-256 dense paper", larger_run="more seeds")
    assert _next(results, tmp_path) == "more seeds"


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
