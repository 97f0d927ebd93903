"""The grid on a few made-up images: what is trained from what, what is repeated, what is refused."""

import json
import os
import shutil
import signal
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from verydeep import Recipe, reproduce
from verydeep.images.open import open_for_training
from verydeep.images.tolerance import Tolerance
from verydeep.machine.runtime import Execution, Runtime
from verydeep.reproduction.estimate import estimates
from verydeep.reproduction.grid import Grid
from verydeep.reproduction.reproduce import _recipe_of
from verydeep.reproduction.results import finished_run
from verydeep.reproduction.side_by_side import side_by_side
from verydeep.reproduction.trainings import QUICK, QUICK_RECIPE, GridTraining, quick_recipe
from verydeep.runs.record import read_record

TINY = Recipe(crop=32, width=0.05, batch=8, epochs=1, learning_rate=1e-3)
OPTIONS = ["--crop", "32", "--width", "0.05", "--batch", "8", "--epochs", "1", "--learning-rate", "1e-3"]


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    """Make a folder of noise: six classes with two training images and one validation image each."""
    root, rng = tmp_path_factory.mktemp("noise"), np.random.default_rng(0)
    for split, count in (("train", 2), ("val", 1)):
        for name in "abcdef":
            (root / split / name).mkdir(parents=True)
            for number in range(count):
                pixels = rng.integers(0, 256, (40, 40, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(root / split / name / f"{number}.png")
    return root


@pytest.fixture(scope="module")
def whole(images, tmp_path_factory):
    """Run the whole grid once."""
    out = tmp_path_factory.mktemp("whole") / "out"
    reproduce(str(images), out=out, recipe=TINY)
    return out


def results(out):
    return json.loads((out / "results.json").read_text())


def tables(out):
    """Return the figures of all tests, by entry."""
    return {
        path.name: {key: stored[key] for key in ("top1_error", "top5_error", "top1_wrong_by_image", "scales", "n")}
        for path in sorted(out.glob("evaluations/*/*.json"))
        for stored in [json.loads(path.read_text())]
    }


def test_tests_side_by_side_find_what_they_find_one_after_the_other(whole, images, tmp_path, monkeypatch):
    out, begun = tmp_path / "out", []
    shutil.copytree(whole, out)
    for path in out.glob("evaluations/*/*.json"):
        if path.name.startswith(("A-256 ", "D-256 ", "D-256-512")):
            path.unlink()

    def noted(what, tasks, **how):
        begun.extend((what, task.name, task.size) for task in tasks)
        side_by_side(what, tasks, **how)

    monkeypatch.setenv("VERYDEEP_CACHE", str(tmp_path / "cache"))  # nothing is kept from the first time
    monkeypatch.setattr("verydeep.reproduction.reproduce.side_by_side", noted)
    reproduce(str(images), out=out, recipe=TINY, jobs=2)
    assert tables(out) == tables(whole)
    own = {name: sum(path.startswith(f"{name} ") for path in tables(out)) for name in ("D-256-512", "D-256", "A-256")}
    assert begun == [("test", name, tests) for name, tests in own.items()]


def test_each_training_starts_from_what_the_paper_says(whole):
    folder = whole / "runs" / "seed-0"
    assert {path.name for path in folder.iterdir()} == {training.name for training in Grid().trainings}
    records = {path.name: read_record(path) for path in folder.iterdir()}
    for training in Grid().trainings:
        record = records[training.name]
        assert (record.network, record.recipe["scale"]) == (training.network, training.scale)
        if training.init:
            assert record.initialisation.startswith("copied: conv1_1, conv2_1, conv3_1, conv3_2, fc6, fc7, fc8; ")
            assert record.recipe["init"] == str(folder / training.init)
        elif training.finetune:
            assert record.recipe["finetune"] == str(folder / training.finetune)
            assert record.recipe["learning_rate"] == pytest.approx(TINY.learning_rate / 10)
        else:
            assert record.initialisation.startswith("glorot initialisation: conv1_1")
    assert len(tables(whole)) == len(Grid().entries)
    assert (whole / "report.html").is_file()


def test_the_rest_of_seeded_networks_is_drawn_like_a(tmp_path):
    seeded, going_on, unseeded = (
        GridTraining(network="B", scale="256", init="A-256"),
        GridTraining(network="C", scale="384", finetune="C-256"),
        GridTraining(network="D", scale="256", scheme="glorot"),
    )
    recipe = replace(TINY, init="paper")
    assert _recipe_of(seeded, recipe, tmp_path) == replace(recipe, init=str(tmp_path / "A-256"), init_rest="paper")
    changes = {"scale": "384", "finetune": str(tmp_path / "C-256"), "learning_rate": pytest.approx(1e-4)}
    assert _recipe_of(going_on, recipe, tmp_path) == replace(recipe, **{**changes, "learning_rate": 1e-4})
    assert _recipe_of(unseeded, recipe, tmp_path) == TINY
    assert _recipe_of(going_on, Recipe(), tmp_path).first_rate == 1e-3


def test_more_can_be_added_to_what_is_there(images, whole, tmp_path):
    out = tmp_path / "out"
    reproduce(str(images), out=out, recipe=TINY, grid=Grid(only=("A",), tables=(3,)))
    assert list(tables(out)) == ["A-256 dense single.json"]
    before = (out / "runs" / "seed-0" / "A-256" / "model" / "model.safetensors").stat().st_mtime_ns
    reproduce(str(images), out=out, recipe=TINY, grid=Grid(only=("A", "B-256"), tables=(3, 4), seeds=2))
    assert (out / "runs" / "seed-0" / "A-256" / "model" / "model.safetensors").stat().st_mtime_ns == before
    assert {path.name for path in (out / "runs").iterdir()} == {"seed-0", "seed-1"}
    assert read_record(out / "runs" / "seed-1" / "B-256").recipe["seed"] == 1
    seeds = [json.loads(path.read_text())["top1_wrong_by_image"] for path in out.glob("evaluations/*/B-256 dense p*")]
    assert len(seeds) == 2
    one = tables(whole)["B-256 dense paper.json"]
    assert one["top1_wrong_by_image"] in seeds


def test_only_what_was_found_on_other_weights_is_tested_again(images, tmp_path):
    grid = Grid(only=("A", "A-LRN"), tables=(3,))
    reproduce(str(images), out=tmp_path / "out", recipe=TINY, grid=grid)
    good, other = (
        tmp_path / "out" / "evaluations" / "seed-0" / f"{name}-256 dense single.json" for name in ("A", "A-LRN")
    )
    right, times = other.read_text(), good.stat().st_mtime_ns
    stale = json.loads(right)
    stale["tested"]["weights"], stale["top1_error"] = ["of another network"], 99.0
    other.write_text(json.dumps(stale))
    reproduce(str(images), out=tmp_path / "out", recipe=TINY, grid=grid)
    assert json.loads(other.read_text())["tested"] == json.loads(right)["tested"]
    assert json.loads(other.read_text())["top1_error"] == json.loads(right)["top1_error"]
    assert good.stat().st_mtime_ns == times
    assert (json.loads(right)["grid"], results(tmp_path / "out")["grid"]) == ("centred", "centred")
    reproduce(str(images), out=tmp_path / "out", recipe=TINY, grid=replace(grid, pooling_grid="ceil"))
    assert json.loads(good.read_text())["grid"] == results(tmp_path / "out")["grid"] == "ceil"
    assert "those of poolings by ceil" in (tmp_path / "out" / "report.md").read_text()


def test_an_experiment_goes_on_without_the_weights_of_what_is_tested(images, tmp_path, capsys):
    out, kept, grid = tmp_path / "out", tmp_path / "kept", Grid(only=("A", "B-256"), tables=(3,))
    reproduce(str(images), out=out, recipe=TINY, grid=grid)
    shutil.copytree(out, kept, ignore=shutil.ignore_patterns("*.safetensors", "checkpoints"))
    tested = tables(kept)
    capsys.readouterr()
    reproduce(str(images), out=kept, recipe=TINY, grid=grid)
    assert "The report has no pictures of" in capsys.readouterr().err
    assert "its weights were removed" not in (kept / "report.html").read_text()
    assert tables(kept) == tested
    assert results(kept)["tables"] == results(out)["tables"]
    for folder in (out, kept):
        reproduce(str(images), out=folder, recipe=TINY, grid=replace(grid, seeds=2))
    assert (tables(kept), results(kept)["findings"]) == (tables(out), results(out)["findings"])
    assert f"Of {results(kept)['best_network'].partition(' ')[0]} with seed 1" in (kept / "report.html").read_text()


def test_what_was_tested_under_another_limit_on_pixels_is_tested_again(images, tmp_path):
    photos, out, grid = tmp_path / "photos", tmp_path / "out", Grid(only=("A",), tables=(3,))
    shutil.copytree(images, photos)
    Image.new("RGB", (80, 80)).save(photos / "val" / "a" / "0.png")
    file = out / "evaluations" / "seed-0" / "A-256 dense single.json"
    small = Tolerance(max_bad=50, max_pixels=40 * 40)
    for tolerance, n, again in ((small, 5, True), (small, 5, False), (Tolerance(), 6, True), (Tolerance(), 6, False)):
        before = file.exists() and file.stat().st_mtime_ns
        reproduce(str(photos), out=out, recipe=TINY, grid=grid, tolerance=tolerance)
        assert json.loads(file.read_text())["n"] == n
        assert (file.stat().st_mtime_ns != before) == again


def test_weights_that_are_needed_again_must_be_there(images, tmp_path):
    out = tmp_path / "out"
    reproduce(str(images), out=out, recipe=TINY, grid=Grid(only=("A",), tables=(3,)))
    (out / "runs" / "seed-0" / "A-256" / "model" / "model.safetensors").unlink()
    gone = (
        r"A-256/model does not hold a usable model: model\.safetensors is missing: restore the file, or remove the run"
    )
    for grid in (Grid(only=("A", "B-256"), tables=(3,)), Grid(only=("A",), tables=(3, 4))):
        with pytest.raises(ValueError, match=gone):
            reproduce(str(images), out=out, recipe=TINY, grid=grid)


def test_a_record_that_does_not_count_its_images_is_told(whole, tmp_path):
    record = json.loads((whole / "runs" / "seed-0" / "A-256" / "run.json").read_text())
    (tmp_path / "run.json").write_text(json.dumps({**record, "images": {"val": 6}}))
    with pytest.raises(ValueError, match=r"run\.json does not say how many images it was trained on"):
        finished_run(tmp_path)


COMMAND = "import sys; from verydeep.cli import main; main(sys.argv[1:])"


def killed_when(pattern, process, out):
    """Kill a process and all that it started as soon as a file is there."""
    until = time.monotonic() + 60
    while not list(out.glob(pattern)) and (ended := process.wait(0)) is None and time.monotonic() < until:
        time.sleep(0.005)
    assert ended is None, "it ended before it was killed"
    os.killpg(process.pid, signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL


def test_killed_in_three_places_it_ends_with_the_same_tables(images, whole, tmp_path, python):
    """In a training, between two trainings, and in the tests."""
    out = tmp_path / "out"
    command = (COMMAND, "reproduce", images, "--out", out, *OPTIONS)
    for pattern in (
        "runs/seed-0/A-LRN-256/checkpoints/*",
        "runs/seed-0/D-384/run.json",
        "evaluations/seed-0/C-384 dense single.json",
    ):
        killed_when(pattern, python(*command), out)
    assert len(tables(out)) < len(tables(whole))
    assert python(*command).wait() == 0
    assert tables(out) == tables(whole)
    assert results(out)["tables"] == results(whole)["tables"]
    assert results(out)["findings"] == results(whole)["findings"]


def test_with_shuffled_labels_no_finding_holds(whole):
    """The images are noise, so nobody can tell their classes."""
    found = results(whole)["findings"]
    assert {one[which] for one in found for which in ("verdict", "verdict_of_trained")} == {"cannot_be_told"}


def test_a_folder_of_another_experiment_is_refused_with_what_differs(images, whole, tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    shutil.copy(whole / "plan.json", out)
    with pytest.raises(ValueError, match="started with a different epochs, seed: choose another folder"):
        reproduce(str(images), out=out, recipe=replace(TINY, seed=1, epochs=2))


def test_a_recipe_that_is_the_grids_business_is_refused(images, tmp_path):
    for recipe in (replace(TINY, scale="384"), replace(TINY, finetune="somewhere")):
        with pytest.raises(ValueError, match="reproduce itself decides at which S"):
            reproduce(str(images), out=tmp_path / "out", recipe=recipe)
    assert not (tmp_path / "out").exists()


def test_quick_is_the_papers_recipe_but_for_what_it_names():
    changed = {name for name, value in vars(QUICK_RECIPE).items() if value != vars(Recipe())[name]}
    assert changed == {"crop", "width", "batch", "learning_rate", "epochs", "schedule"}
    assert quick_recipe("digits") == replace(QUICK_RECIPE, flip=False)
    assert quick_recipe("photos") == QUICK_RECIPE


def test_an_estimate_costs_nothing_and_knows_what_is_there(images, whole):
    how = {"runtime": Runtime(device="cpu"), "execution": Execution(), "tolerance": Tolerance()}
    grid = Grid(only=QUICK)
    found = {
        one.training: one
        for out in (Path("nowhere"),)
        for one in estimates(open_for_training(str(images)), folders=[out], recipe=TINY, grid=grid, **how)
    }
    assert list(found) == list(QUICK)
    assert all(one.seconds > 0 and not one.seeds_trained and one.epochs == 1 for one in found.values())
    # A has the fewest activations of these and about as many weights as any.
    assert min(found.values(), key=lambda one: one.memory_bytes).training in ("A-256", "B-5x5-256")
    longer = estimates(
        open_for_training(str(images)),
        folders=[whole / "runs" / "seed-0", whole / "runs" / "seed-1"],
        recipe=replace(TINY, epochs=100),
        grid=Grid(only=("A",)),
        **how,
    )
    assert (longer[0].seeds_trained, longer[0].seeds, longer[0].epochs) == (1, 2, 100)
    assert longer[0].seconds > 10 * found["A-256"].seconds
