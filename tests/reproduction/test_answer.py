"""What a report says first: its sentences, its order, and what stands beside verdicts."""

import html
import re
import shlex
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from made_up_grids import ERRORS, SMALL, html_table, made_up, markdown_table

from verydeep.cli import main
from verydeep.reproduction.detectable import Assumed, detectable
from verydeep.reproduction.equivalent_command import equivalent_command
from verydeep.reproduction.grid import Grid
from verydeep.reproduction.larger_run import SEEDS, larger_run
from verydeep.reproduction.limits import TOPICS, _beyond_the_crop, _differences_of_recipe
from verydeep.training.recipe import Recipe


def headings(text):
    return re.findall(r"<h2>(.*?)</h2>", text) or re.findall(r"^## (.*)$", text, flags=re.MULTILINE)


def test_of_several_seeds_pictures_and_three_sentences_come_first_then_findings_then_tables(everything):
    page, markdown, results = everything
    first = ["The answer", "Contents", "Findings", "How sure is this", "One test scale"]
    for text in (html.unescape(page), markdown):
        assert headings(text)[: len(first)] == first
        places = [text.index(sentence) for sentence in results["answer"]]
        pictures = [match.start() for match in re.finditer(r"<svg|!\[", text)]
        assert pictures[1] < places[0] < places[1] < places[2] < text.index("Contents")
    assert results["answer"][0] == (
        "On these images, of the paper's nine findings six hold (LRN does not help; depth helps, and saturates at D "
        "and E; scale jitter in training helps; several test scales help; fusing D and E beats either; Glorot's "
        "initialisation needs no copying from A), one holds in part (more non-linearity helps, more spatial context "
        "helps more) and two cannot be told."
    )
    low, high = next(part for part in results["findings"][1]["parts"] if part["id"] == "d_against_a")["difference_ci95"]
    assert results["answer"][1] == (
        "D, with 16 weight layers, errs 10.0 points less than A, with 11; for networks trained again on other images "
        f"the 95% interval of this comparison alone goes from {-low:.1f} points less to {-high:.1f} points less. That "
        "stands with all claims counted."
    )
    assert results["answer"][2] == (
        "Not told: 'small filters beat large ones' and 'multi-crop is better than dense, both together are best', "
        "since 3 seeds and 200 images do not decide them at the level that all claims share."
    )


def test_one_seed_leads_with_what_was_trained_and_names_the_larger_run_at_its_findings(small):
    page, markdown, results = small
    for text in (page, markdown):
        assert headings(text)[:3] == ["What this run shows", "Contents", "One test scale"]
        further = text.split("What a larger run would tell")[2]
        assert further.index("verydeep reproduce --seeds 5") < further.index("How sure is this")
    assert page.count("<svg") == 4
    assert page.index("Validation error over epochs") < page.index("Contents")
    assert results["answer"][0] == (
        "Three networks of 11 to 16 weight layers learned in 3:06 minutes, without batch normalisation: they err on "
        "10.0% (D) to 30.0% (A) of 200 test images. Always predicting the most frequent class gives an error of 90.0%."
    )
    assert "for these trained networks alone on other images" in results["answer"][1]
    assert results["answer"][2].endswith("one seed tells nothing about networks trained again.")


def test_two_seeds_lead_with_what_was_trained_too(tmp_path):
    page, markdown, results = made_up(tmp_path, grid=replace(SMALL, seeds=2), errors=lambda name, _: ERRORS[name])
    for text in (page, markdown):
        assert headings(text)[:3] == ["What this run shows", "Contents", "One test scale"]
        further = text.split("What a larger run would tell")[2]
        assert "2 seeds decide nothing about networks trained again, so every verdict on those is open." in further
        assert further.index("verydeep reproduce --seeds 5") < further.index("How sure is this")
        assert "of each seed" in text
    learned, depth, told = results["answer"]
    assert learned.startswith(
        "Three networks of 11 to 16 weight layers learned in 6:12 minutes, each with 2 seeds, without batch "
        "normalisation: they err on 10.0% (D) to 30.0% (A) of 200 test images."
    )
    assert "Always predicting" in learned
    assert "for networks trained again on other images the 95% interval" in depth
    assert depth.endswith("It takes 3 seeds or more to tell whether that stands.")
    assert told == (
        "For these trained networks alone, of the paper's nine findings one holds in part (depth helps, and saturates "
        "at D and E) and eight cannot be told; two seeds decide nothing about networks trained again."
    )
    assert results["how_sure"]["seeds"][0].startswith("Each network was trained with 2 seeds. 2 seeds may come out")
    assert results["could_tell"].startswith("With 5 seeds, 200 test images")
    assert "a standard deviation of 0.00 points, as found" in results["could_tell"]


def test_what_learned_is_told_as_the_verdicts_take_it(tmp_path):
    """By every seed's own interval, not by that of their mean, which two seeds make wide."""
    spread = lambda name, seed: ERRORS[name] + 40 * seed  # noqa: E731
    results = made_up(tmp_path, grid=replace(SMALL, seeds=2), errors=spread)[2]
    assert results["tables"]["3"][0]["top1_error_ci95"][1] > results["guessing"] == 90.0
    assert results["answer"][0].startswith("Three networks of 11 to 16 weight layers learned")
    assert all(part["learned"] for finding in results["findings"] for part in finding["parts"])


def test_networks_that_did_not_learn_are_named(tmp_path):
    errors = {**ERRORS, "D-256 dense single": 89.0, "D-256 dense paper": 89.0}
    learned, depth, _ = made_up(tmp_path, errors=errors)[2]["answer"]
    assert learned.startswith("Two of three networks of 11 to 16 weight layers learned")
    assert "they err on 20.0% (B) to 30.0% (A) of 200 test images; D does no better than guessing." in learned
    assert depth == (
        "D, with 16 weight layers, errs 59.0 points more than A, with 11. It tells nothing, since one of them does "
        "no better than guessing."
    )


def test_a_single_network_that_learned_is_one(tmp_path):
    grid = Grid(only=("A-256",), tables=(3,))
    learned = made_up(tmp_path, grid=grid, errors=lambda *_: 30.0)[2]["answer"][0]
    assert learned.startswith("One network of 11 weight layers learned in 1:00 minutes")
    assert "normalisation: it errs on 30.0% (A) of 200 test images." in learned


def test_the_lead_is_no_surer_than_the_verdict(tmp_path):
    """An interval of one comparison may exclude 0 where the verdict, with all claims counted, is open."""
    grid = Grid(seeds=3, only=("A", "A-LRN", "B", "C-256", "D-256", "E-256"), tables=(3,))
    errors = {"A": 18.0, "B": 17.0, "C": 16.0, "D": 15.0, "E": 15.0}
    results = made_up(tmp_path, grid=grid, errors=lambda name, _: errors[name[0]])[2]
    part = next(part for part in results["findings"][1]["parts"] if part["id"] == "d_against_a")
    assert part["difference_ci95"][1] < 0
    assert part["networks"]["verdict"] == "cannot_be_told"
    assert "of this comparison alone" in results["answer"][1]
    assert results["answer"][1].endswith(
        "With all claims counted it cannot be told that D errs less than A: there may be no difference."
    )


def test_what_starts_from_an_unfinished_training_is_unfinished(tmp_path):
    grid = Grid(seeds=3, only=("A-256", "A-LRN-256", "B-256", "D-384"), tables=(3,))
    page, markdown, results = made_up(tmp_path, grid=grid, errors=lambda name, _: 30.0, cut_off=("A-256",))
    assert results["cut_off"] == ["A-256"]
    assert results["unfinished"] == ["A-256", "B-256", "D-256", "D-384"]
    assert results["findings"][1]["parts"][0]["unfinished"] == ["A-256", "B-256"]
    said = (
        "A-256 was cut off before the schedule had ended, and B-256, D-256 and D-384 start from a training that was "
        "cut off"
    )
    for text in (page, markdown):
        assert text.count(said) == 2  # at verdicts, how sure
    assert results["how_sure"]["unfinished"][0].startswith(said)


def test_one_unfinished_training_is_told_at_its_verdicts_and_in_how_sure(tmp_path):
    grid = Grid(seeds=3, only=("A-256", "A-LRN-256", "B-256", "D-256"), tables=(3,))
    errors = {f"{name}-256 dense single": error for name, error in (("A", 40), ("A-LRN", 40), ("B", 30), ("D", 20))}
    page, markdown, results = made_up(tmp_path, grid=grid, errors=lambda name, _: errors[name], cut_off=("D-256",))
    verdicts = {row[0][0]: row[1] for row in html_table(page, "The paper's claims") if row[0][0].isdigit()}
    assert verdicts["1"] == "✓ holds margin 2 points"
    assert verdicts["2"] == "◐ holds in part trained too briefly: D-256"
    assert markdown_table(markdown, "Findings")[0][1][2] == "◐ holds in part (trained too briefly: D-256)"
    said = "D-256 was cut off before the schedule had ended: claims that speak of it say so and are not told by it."
    for text in (page, markdown):
        findings, sure = (
            text.split(f"{heading}<" if "<h2>" in text else f"## {heading}\n")[-1]
            for heading in ("Findings", "How sure is this")
        )
        assert said in findings
        assert "D-256 was cut off before the schedule had ended." in sure
        assert "D-256 was cut off" in results["answer"][1]
    (gain,) = results["gains"]
    assert (gain["adds"], gain["unfinished"]) == ("depth: D, against A", ["D-256"])
    assert ">depth: D, against A †<" in page
    steps = html_table(page, "Top-1 error with it"), markdown_table(markdown, "What each step adds")[0]
    assert [rows[0][0] for rows in steps] == ["depth: D, against A (trained too briefly)"] * 2
    for text in (page, markdown):
        assert "† A training in it was cut off before the schedule had ended." in text
        assert "(trained too briefly): a training in it was cut off before the schedule had ended." in text
        assert "(of 'D and E err alike' only if E errs more)" in text
    marked = re.findall(r">(\d+†?)<", page[page.index("<svg") : page.index("network and its weight layers")])
    assert [count for count in marked if int(count.strip("†")) in (11, 13, 16)] == ["11", "11", "13", "16†"]
    for text in (page, markdown):
        assert "† A training of it was cut off before the schedule had ended." in text
    assert results["how_sure"]["unfinished"][0] in results["limits"]
    headings = re.findall("<dt>(.+?)</dt>", page.split('<dl class="sure">')[1].split("</dl>")[0])
    assert headings == [TOPICS[topic] for topic in results["how_sure"]]
    assert {"unfinished trainings", "steering images", "the lowest error"} < {*headings}
    assert [line.split("**")[1] for line in markdown.splitlines() if line.startswith("- **")][
        -len(headings) :
    ] == headings


@pytest.mark.parametrize("margin", [1.0, 2.5])
def test_the_margin_stands_beside_each_verdict_that_uses_it(tmp_path, margin):
    names = ("A-256", "A-LRN-256", "B-256", "D-256", "E-256")
    grid = Grid(seeds=3, only=names, tables=(3,), margin=margin)
    page, markdown, results = made_up(tmp_path, grid=grid, errors=lambda name, seed: 30.0 - seed)
    said = f"margin {margin:g} point{'s' * (margin != 1)}"
    in_page = [said in row[1] for row in html_table(page, "The paper's claims") if row[0][0].isdigit()]
    in_markdown = [said in row[2] for row in markdown_table(markdown, "Findings")[0]]
    assert in_page == in_markdown == [number in (1, 2) for number in range(1, 10)]
    assert [finding["margin"] for finding in results["findings"]][:3] == [margin, margin, None]
    assert f"up to {margin:g} points" in results["how_sure"]["margin"][0]


def test_what_more_seeds_could_tell_is_computed_for_these_images(small, tmp_path):
    """200 images and errors of 20%: not the two points that five seeds tell of thousands of images."""
    page, markdown, results = small
    assumed = Assumed(images=200, error=(30 + 20 + 10 + 29 + 19.5 + 9.5) / 6)
    tests = [entry.name for entry in SMALL.entries]
    told = detectable([one.name for one in SMALL.trainings], tests, [SEEDS], assumed)
    least = max(one.points[SEEDS] for one in told if one.kind == "less")
    assert least > 4
    assert results["could_tell"].startswith(
        f"With 5 seeds, 200 test images and errors of about 19.7%, differences of {least:.1f} points or more would be "
        "told with a probability of 80%. That is for errors that differ"
    )
    for text in (page, markdown):
        assert results["could_tell"] in text
    few = made_up(tmp_path, grid=SMALL, errors=lambda name, _: 2.0)[2]["could_tell"]
    assert "errors of about 2.0%, no difference would be told" in few


def test_a_margin_as_large_as_the_errors_is_said(small, tmp_path):
    assert len(small[2]["how_sure"]["margin"]) == 1
    for error, words in ((3.0, "most of"), (1.5, "more than")):
        margin = made_up(tmp_path / words, errors=lambda name, _, error=error: error)[2]["how_sure"]["margin"]
        assert margin[1].startswith(f"The lowest error here is {error}%, so the margin is {words} the error itself")


def test_one_look_with_what_was_fixed_beforehand_has_the_level(everything):
    assert "for one look, with seeds and a margin that were fixed beforehand" in everything[0]


@pytest.mark.parametrize(
    ("more", "recipe", "said"),
    [
        ((), {}, "B started from A, B with 5 x 5 layers from random weights"),
        (("B-256-glorot",), {}, ""),
        (
            ("B-256-glorot",),
            {"init": "paper"},
            "B started from Glorot's random weights, B with 5 x 5 layers from others",
        ),
    ],
)
def test_networks_that_start_unlike_each_other_are_told_beside_their_verdict(tmp_path, capsys, more, recipe, said):
    grid = Grid(only=("A-256", "B-256", "B-5x5-256", *more), tables=(3,), seeds=3)
    page, markdown, _ = made_up(
        tmp_path, grid=grid, errors=lambda name, seed: 30.0 if "5x5" in name else 20.0, **recipe
    )
    main(["findings", str(tmp_path)])
    for text in (" ".join(capsys.readouterr().out.replace("│", " ").split()), page, markdown):
        assert ("B started from" in text) is bool(said)
    verdict = next(row[1] for row in html_table(page, "The paper's claims") if row[0].startswith("4."))
    assert verdict.endswith(said)
    assert said in markdown_table(markdown, "Findings")[0][3][2]


def test_every_entry_of_the_contents_leads_to_its_section(everything, small, pictured):
    for page, markdown, _ in (everything, small, pictured):
        links = re.findall(r'<li><a href="#([^"]+)">([^<]+)</a>', page)
        assert links == re.findall(r'<section id="([^"]+)">\n<h2>([^<]+)</h2>', page)
        assert [heading for _, heading in links] == headings(page)[2:]
        assert re.findall(r"^- \[(.*)\]\(#", markdown, flags=re.MULTILINE) == headings(markdown)[2:]


WORDS = st.text(st.characters(codec="utf-8", exclude_categories=("Cc",)), min_size=1).filter(
    lambda word: not word.startswith("--seeds")
)


@example(before=["("], after=[], seeds=[])
@example(before=["verydeep.reproduce("], after=[], seeds=[])
@given(before=st.lists(WORDS), after=st.lists(WORDS), seeds=st.sampled_from([[], ["--seeds", "2"], ["--seeds=2"]]))
def test_the_larger_run_is_the_same_command_with_more_seeds(before, after, seeds):
    more = larger_run(shlex.join([*before, "reproduce", *seeds, *after]))
    assert shlex.split(more) == [*before, "reproduce", *after, "--seeds", str(SEEDS)]
    assert larger_run(more) == more


@given(
    source=st.text(st.characters(codec="utf-8")), words=st.lists(st.sampled_from(["reproduce", "it's", '"', "--seeds"]))
)
def test_a_call_in_python_and_what_no_shell_reads_have_no_larger_run(source, words):
    recipe = Recipe(scale="384")
    assert larger_run(equivalent_command(f"{source} {' '.join(words)}", Path("out"), Grid(), recipe)) is None
    assert larger_run("verydeep reproduce it's") is None


def test_another_command_than_reproduce_has_no_larger_run(tmp_path):
    page, markdown, results = made_up(tmp_path, grid=SMALL, command="python script.py")
    assert results["larger_run"] is None
    for text in (page, markdown):
        assert "More seeds decide; what is done is kept." in text


def test_a_recipe_is_called_scaled_down_only_where_nothing_is_larger():
    assert _differences_of_recipe(Recipe()) == []
    (small,) = _differences_of_recipe(Recipe(crop=64, epochs=20))
    assert small.startswith("The recipe was scaled down: crop 64 (paper: 224), epochs at most 20 (paper: 74). Deep")
    larger = "crop 256 (paper: 224), epochs at most 100 (paper: 74), batch 512 (paper: 256)"
    assert _differences_of_recipe(Recipe(crop=256, batch=512, epochs=100)) == [
        f"The recipe differs from the paper's: {larger}."
    ]
    (mixed,) = _differences_of_recipe(Recipe(crop=256, epochs=20))
    assert mixed.startswith("The recipe differs from the paper's: crop 256 (paper: 224), epochs at most 20")
    assert mixed.endswith("may only have been stopped too early.")
    assert _differences_of_recipe(Recipe(learning_rate=0.02)) == [
        "The recipe differs from the paper's: first learning rate 0.02 (paper: 0.01)."
    ]


def test_what_dense_evaluation_suffers_from_is_said_where_crops_are_smaller_than_the_papers():
    said = {crop: _beyond_the_crop(crop) for crop in (32, 64, 224, 256)}
    assert [bool(sentences) for sentences in said.values()] == [True, True, False, False]
    assert "The last map of a crop is 2 x 2 here and 7 x 7 in the paper" in said[64][0]
