"""Studies on tiny networks and a few digits: what is trained, shared, stopped, lost and measured."""

import json
import math
import re
import shutil
import signal
from dataclasses import replace

import accessibility
import pytest
import torch
import translated_pages

from verydeep import Recipe, evaluate, load, reproduce, train
from verydeep.images.open import open_for_training
from verydeep.images.sources.samples import sampled
from verydeep.images.sources.source import subset
from verydeep.images.sources.splits import Splits
from verydeep.images.tolerance import Tolerance
from verydeep.machine.runtime import Execution, Runtime, Stopped
from verydeep.reproduction.estimate import estimates
from verydeep.reproduction.grid import Grid
from verydeep.reproduction.reproduce import run_folder
from verydeep.reproduction.studies import STUDIES_BY_NAME, recipe_on_part
from verydeep.reproduction.study_report import write_studies
from verydeep.reproduction.study_runs import note_divergence, why_diverged
from verydeep.reproduction.trainings import QUICK
from verydeep.runs.record import read_record
from verydeep.training import loop
from verydeep.training.norms import read_norms
from verydeep.training.step import DivergedError

TINY = Recipe(crop=32, width=0.05, batch=8, epochs=1, learning_rate=1e-3, schedule="cosine", flip=False)
SOME = Grid(only=("A", "D-256"), tables=(3,), studies=tuple(STUDIES_BY_NAME))
LOST, HALVED = "D-256-paper-variance", "A-256-1-in-2"
OF_A_AND_D = [
    *("A-256", "D-256"),
    *("D-256-glorot", "A-256-paper", "A-256-paper-variance", "D-256-paper", "D-256-paper-variance"),
    *("A-256-1-in-8", "A-256-1-in-4", "A-256-1-in-2", "D-256-1-in-8", "D-256-1-in-4", "D-256-1-in-2"),
]


@pytest.fixture(scope="module")
def images():
    counts = {"train": 48, "val": 12, "test": 20}
    digits = open_for_training("digits")
    parts = {split: subset(digits.source(split), tuple(range(count))) for split, count in counts.items()}
    return Splits(name="some digits", sources=parts)


def disturbed(learner, *arguments, descend=loop.descend, stop=True, **options):
    """Lose one training in its second step, and stop in the third of another."""
    name = learner.job.out.name
    if name == LOST and options["step"] == 1:
        raise DivergedError("training diverged at step 1 (loss inf, gradient norm inf)")
    if name == HALVED and options["step"] == 3 and stop:
        signal.raise_signal(signal.SIGTERM)
    return descend(learner, *arguments, **options)


@pytest.fixture(scope="module")
def studied(images, tmp_path_factory):
    """All studies of A and D; stopped on the way, and gone on with."""
    out = tmp_path_factory.mktemp("studied") / "out"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop, "descend", disturbed)
        with pytest.raises(Stopped, match="repeat the command to continue"):
            reproduce(images, out=out, recipe=TINY, grid=SOME)
        assert not (out / "studies").exists()
        patch.setattr(loop, "descend", lambda *a, **options: disturbed(*a, stop=False, **options))
        reproduce(images, out=out, recipe=TINY, grid=SOME)
    return out


def numbers(out, name):
    found = json.loads((out / "studies" / f"{name}.json").read_text())
    return found, {run["training"]: run for run in found["runs"]}


def weights(run):
    return torch.cat([value.flatten() for value in load(run).state_dict().values()])


def test_studies_take_the_grids_trainings_and_some_of_their_own():
    assert [one.name for one in (*SOME.trainings, *SOME.studied)] == OF_A_AND_D
    assert Grid().studied == Grid().study_entries == ()
    everything = Grid(studies=SOME.studies)
    order = [one.name for one in (*everything.trainings, *everything.studied)]
    assert all(order.index(one.start) < order.index(one.name) for one in everything.studied if one.start)
    quick = Grid(only=QUICK, studies=("regularisation",))
    assert [one.name for one in quick.studied] == ["B-256-glorot"]
    assert "B-256-glorot" in order[: len(everything.trainings)]
    assert {one.start for one in SOME.studied if one.one_in == 4} == {None, "A-256-1-in-4"}


@pytest.mark.parametrize(
    ("grid", "said"),
    [
        ({"studies": ("depth",)}, "studies are some of initialisation, gradients, regularisation, images, not depth"),
        ({"studies": ("images",), "only": ("C",)}, "the study images needs one of A, D: add one"),
    ],
)
def test_studies_of_nothing_are_refused(grid, said):
    with pytest.raises(ValueError, match=said):
        Grid(**grid)


def test_on_part_of_the_images_steps_are_as_many():
    assert recipe_on_part(TINY, 4) == replace(TINY, epochs=4)
    assert recipe_on_part(Recipe(), 8) == replace(Recipe(), epochs=8 * 74, patience=8 * 5)
    step = Recipe(schedule="step", step_epochs=10, warm_up=2)
    assert recipe_on_part(step, 2) == replace(step, epochs=148, step_epochs=20, warm_up=4)
    assert recipe_on_part(step, 1) == step


def test_all_that_is_trained_is_in_one_folder_and_recorded(studied):
    folder = studied / "runs" / "seed-0"
    assert {path.name for path in folder.iterdir()} == set(OF_A_AND_D)
    assert read_record(folder / "D-256-1-in-8").recipe["init"] == str(folder / "A-256-1-in-8")
    assert read_record(folder / "D-256-1-in-8").images["train"] == 10  # one digit of each class at least
    assert [one.step for one in read_norms(folder / "A-256")] == [0]
    assert [one.step for one in read_norms(folder / "A-256-1-in-8")] == [0, 6, 12]
    assert read_record(folder / "A-256-paper").initialisation.startswith("paper initialisation: conv1_1")


def test_a_training_on_half_of_the_images_is_that_of_these_images_though_it_was_stopped(studied, images, tmp_path):
    half = sampled(images.source("train"), one_in=2, seed=0)
    parts = {**images.sources, "train": half}
    run = train(replace(images, sources=parts), network="A", out=tmp_path / "run", recipe=replace(TINY, epochs=2))
    assert torch.equal(weights(run), weights(studied / "runs" / "seed-0" / HALVED))
    assert 20 <= len(half) <= 28


def test_what_diverged_is_said_and_not_trained_again(studied, images, capsys):
    lost, kept = studied / "runs" / "seed-0" / LOST, studied / "runs" / "seed-0" / "A-256"
    assert why_diverged(lost) == "training diverged at step 1 (loss inf, gradient norm inf)"
    pages = {path.name: path.read_text() for path in (studied / "studies").iterdir()}
    times = [path.stat().st_mtime_ns for path in (lost / "run.json", kept / "model" / "model.safetensors")]
    reproduce(images, out=studied, recipe=TINY, grid=SOME)
    assert [path.stat().st_mtime_ns for path in (lost / "run.json", kept / "model" / "model.safetensors")] == times
    assert {path.name: path.read_text() for path in (studied / "studies").iterdir()} == pages
    assert re.search(rf"^\[\d+/\d+\] {LOST}: training diverged at step 1 ", capsys.readouterr().err, flags=re.MULTILINE)
    found, runs = numbers(studied, "initialisation")
    assert runs[LOST]["test"] is None
    assert "with variance 0.01 its training diverged at step 1 (loss inf, gradient norm inf)" in found["seen"][1]
    assert f"Diverged, that is, weights or losses ceased to be finite numbers: {LOST}." in found["limits"]


def test_a_training_of_the_grid_that_diverges_ends_it(images, tmp_path, monkeypatch):
    def diverging(*_, **__):
        raise DivergedError("training diverged")

    monkeypatch.setattr(loop, "descend", diverging)
    with pytest.raises(DivergedError):
        reproduce(images, out=tmp_path / "out", recipe=TINY, grid=SOME)


def test_trainings_of_a_study_are_done_and_tested_side_by_side_too(images, tmp_path):
    grid = replace(SOME, only=("A",), studies=("images", "regularisation"))
    reproduce(images, out=tmp_path / "out", recipe=TINY, grid=grid, jobs=2)
    found, _ = numbers(tmp_path / "out", "images")
    assert {run["training"] for run in found["runs"]} == {"A-256", *(training.name for training in grid.studied)}
    assert all(run["test"] for run in found["runs"])


def test_what_diverged_in_a_study_is_refused_where_the_tables_need_it(images, tmp_path, monkeypatch):
    only = Grid(only=("D-256-glorot",), tables=(3,))
    with monkeypatch.context() as patch:
        patch.setattr("verydeep.reproduction.reproduce._do", lambda _: None)
        reproduce(images, out=tmp_path, recipe=TINY, grid=only)
    run = run_folder(tmp_path, 0) / "D-256-glorot"
    run.mkdir(parents=True)
    note_divergence(run, "training diverged at step 1")
    with pytest.raises(ValueError, match=r"D-256-glorot: training diverged at step 1: remove .*D-256-glorot to train"):
        reproduce(images, out=tmp_path, recipe=TINY, grid=only)


def test_a_damaged_note_is_refused(tmp_path):
    (tmp_path / "diverged.json").write_text("[]")
    with pytest.raises(ValueError, match="remove it to train again"):
        why_diverged(tmp_path)


def test_errors_on_training_images_are_those_of_evaluate(studied, images):
    _, runs = numbers(studied, "regularisation")
    assert set(runs) == {"A-256", "D-256"}
    for name, run in runs.items():
        folder = studied / "runs" / "seed-0" / name
        for split, key, count in (("train", "on_training_images", 48), ("test", "test", 20)):
            found = evaluate(folder, data=images, split=split, scales="single", cache=False)
            assert (run[key]["images"], run[key]["top1_error"]) == (count, found.top1_error)


def test_of_many_training_images_a_sample_is_tested(studied, images, monkeypatch):
    monkeypatch.setattr("verydeep.reproduction.network_tests._MOST_TRAINING_IMAGES_TESTED", 20)
    reproduce(images, out=studied, recipe=TINY, grid=replace(SOME, studies=("regularisation",)))
    _, runs = numbers(studied, "regularisation")
    tested = len(sampled(images.source("train"), one_in=math.ceil(48 / 20), seed=0))
    assert {run["on_training_images"]["images"] for run in runs.values()} == {tested}
    assert f"| {tested} |" in (studied / "studies" / "regularisation.md").read_text()


@pytest.mark.parametrize("name", STUDIES_BY_NAME)
def test_a_study_is_a_page_that_everybody_can_read_with_its_figures(studied, name):
    page = (studied / "studies" / f"{name}.html").read_text()
    found, _ = numbers(studied, name)
    markdown = (studied / "studies" / f"{name}.md").read_text()
    assert accessibility.problems(page) == []
    assert page.count("<svg") == 1
    assert f"]({name}.svg)" in markdown
    for sentence in (*found["seen"], *found["limits"], found["paper_says"]):
        assert sentence in markdown
    assert f"(Section {STUDIES_BY_NAME[name].section}.)" in page
    assert "One seed: this illustrates" in page
    assert (studied / "studies" / f"{name}.svg").read_text().startswith("<svg")
    for report, ending in (
        (studied / "report.html", f'href="studies/{name}.html">'),
        (studied / "report.md", f"](studies/{name}.md)"),
    ):
        assert ending in report.read_text()
        assert STUDIES_BY_NAME[name].asks in report.read_text()


def test_the_cost_of_studies_is_told_before(images, studied):
    how = {"runtime": Runtime(device="cpu"), "execution": Execution(), "tolerance": Tolerance()}
    found = estimates(images, folders=[studied / "runs" / "seed-0"], recipe=TINY, grid=SOME, **how)
    assert [one.training for one in found] == OF_A_AND_D
    assert all((one.seeds, one.seeds_trained) == (1, 1) for one in found)
    by_name = {one.training: one for one in found}
    assert by_name["A-256-1-in-8"].epochs == 8
    assert by_name["A-256-1-in-8"].seconds > by_name["A-256"].seconds  # it is validated more often


def test_pages_of_studies_in_japanese(studied, tmp_path):
    out = shutil.copytree(studied, tmp_path / "out")
    folders = {0: out / "runs" / "seed-0"}
    for study in STUDIES_BY_NAME:
        english = (out / "studies" / f"{study}.html").read_text()
        write_studies(out, grid=Grid(only=SOME.only, studies=(study,)), folders=folders, source="noise", language="ja")
        translated_pages.check(english, (out / "studies" / f"{study}.html").read_text())
        assert "## わかること" in (out / "studies" / f"{study}.md").read_text()
