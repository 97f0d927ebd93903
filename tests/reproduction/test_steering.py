"""What steers is not what tests: which images are held out, what a folder goes on with; tests change no training."""

import json
import random
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from verydeep import Grid, Recipe, reproduce
from verydeep.evaluation.tested_runs import testing_split as split_to_test
from verydeep.images.open import open_for_testing, open_for_training
from verydeep.images.sources.source import Sample, memory_source
from verydeep.images.sources.splits import Splits, with_steering_images
from verydeep.reproduction.plan_file import commands_of
from verydeep.reproduction.steering import about_steering, open_for_experiment, said_outright

TINY = Recipe(crop=32, width=0.05, batch=4, epochs=2, learning_rate=1e-3)
SMALL = Grid(only=("A", "B-256"), tables=(3,))
OF_BEFORE = {"fingerprints": {}, "recipe": {}}


def named(prefix, labels, classes="abc"):
    samples = [Sample(b"%d" % place, label, f"{prefix}-{place}") for place, label in enumerate(labels)]
    return memory_source(classes=tuple(classes), samples=samples)


def splits_of(train=8, **others):
    labels = [label for label in range(3) for _ in range(train)]
    sources = {"train": named("train", labels), "val": named("val", [0, 1, 2, 2])}
    return Splits(name="made up", sources={**sources, **others})


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """Make a folder of noise without splits: three classes of six images."""
    root, rng = tmp_path_factory.mktemp("photos"), np.random.default_rng(0)
    for name in "abc":
        (root / name).mkdir()
        for number in range(6):
            Image.fromarray(rng.integers(0, 256, (40, 40, 3), dtype=np.uint8)).save(root / name / f"{number}.png")
    return root


@pytest.mark.parametrize(("images", "share", "held"), [(8, 0.125, 1), (8, 0.5, 4), (2, 0.01, 1), (40, 0.25, 10)])
def test_a_share_of_every_class_is_held_out_of_the_training_images(images, share, held):
    before = splits_of(images)
    after = with_steering_images(before, share)
    train, val, test = (set(after.source(split).ids) for split in ("train", "val", "test"))
    assert not train & val | train & test | val & test
    assert train | val == set(before.source("train").ids)
    assert test == set(before.source("val").ids)
    assert Counter(after.source("val").labels) == {0: held, 1: held, 2: held}
    assert after.testing == "test"
    again = with_steering_images(splits_of(images), share)
    assert [again.source(split).ids for split in again.sources] == [after.source(split).ids for split in after.sources]


def test_what_steers_is_as_asked_for_and_as_the_folder_was_begun(tmp_path):
    new, before, begun = (tmp_path / name for name in ("new", "before", "begun"))
    for folder, plan in ((before, OF_BEFORE), (begun, {**OF_BEFORE, "steer": "held-out", "held_out": 0.25})):
        folder.mkdir()
        (folder / "plan.json").write_text(json.dumps(plan))
    for folder, asked, settled in (
        (new, Grid(), ("held-out", 0.125)),
        (new, Grid(held_out=0.25), ("held-out", 0.25)),
        (new, Grid(steer="validation"), ("validation", None)),
        (before, Grid(), ("validation", None)),
        (before, Grid(steer="validation"), ("validation", None)),
        (begun, Grid(), ("held-out", 0.25)),
        (begun, Grid(held_out=0.25), ("held-out", 0.25)),
        (begun, Grid(steer="held-out"), ("held-out", 0.25)),
    ):
        splits, grid = open_for_experiment(splits_of(), asked, folder)
        assert (grid.steer, grid.held_out) == settled
        assert splits.testing == ("test" if grid.held_out else "val")
        lasting = said_outright(asked, grid, splits)
        elsewhere = open_for_experiment(splits_of(), lasting, tmp_path / "elsewhere")[1]
        assert (elsewhere.steer, elsewhere.held_out) == settled
    for folder, asked, was in (
        (before, Grid(steer="held-out"), "--steer validation"),
        (before, Grid(held_out=0.125), "--steer validation"),
        (begun, Grid(steer="validation"), "--steer held-out --held-out 0.25"),
        (begun, Grid(held_out=0.1), "--steer held-out --held-out 0.25"),
    ):
        with pytest.raises(ValueError, match=f"was begun with {was}: leave out --steer"):
            open_for_experiment(splits_of(), asked, folder)


def test_a_source_with_test_images_is_steered_by_its_validation_images(tmp_path):
    three = splits_of(test=named("test", [0, 1, 2]))
    splits, grid = open_for_experiment(three, Grid(), tmp_path)
    assert splits is three
    assert about_steering(splits, grid) == (
        "The 4 validation images steer the learning rate; the 3 test images steer nothing."
    )
    for asked in (Grid(steer="held-out"), Grid(steer="validation"), Grid(held_out=0.1)):
        with pytest.raises(ValueError, match="made up has test images: its validation images steer, so leave out"):
            open_for_experiment(three, asked, tmp_path)


def test_what_cannot_be_held_out_is_refused_with_what_to_do(tmp_path):
    with pytest.raises(ValueError, match=r"class a of made up has a single training image.*--steer validation"):
        open_for_experiment(splits_of(1), Grid(), tmp_path)
    for share in (0.0, 1.0):
        with pytest.raises(ValueError, match=f"above 0 and below 1, not {share:g}"):
            open_for_experiment(splits_of(), Grid(held_out=share), tmp_path)
    for changes, problem in (
        ({"steer": "test"}, "steer is one of held-out, validation, not test"),
        ({"steer": "validation", "held_out": 0.1}, "does nothing with --steer validation"),
    ):
        with pytest.raises(ValueError, match=problem):
            Grid(**changes)
    (tmp_path / "plan.json").write_text('{"recipe": ')
    with pytest.raises(ValueError, match=r"plan.json cannot be read.*choose another folder"):
        open_for_experiment(splits_of(), Grid(), tmp_path)


def test_the_recorded_command_steers_a_new_folder_as_this_one_was(photos, tmp_path, monkeypatch):
    monkeypatch.setattr("verydeep.reproduction.reproduce._do", lambda _: None)
    monkeypatch.chdir(tmp_path)
    options = {"out": "out", "recipe": TINY, "grid": Grid(held_out=0.25)}
    reproduce(str(photos), **options)
    options["grid"] = Grid()
    reproduce(str(photos), **options)
    reproduce(str(photos), **options, command="verydeep reproduce photos --out out")
    commands = commands_of(tmp_path / "out")
    assert [one.command.partition("--held-out")[2] for one in commands] == [
        " 0.25 --crop 32 --width 0.05 --batch 4 --learning-rate 0.001 --epochs 2",
        " 0.25",
    ]
    assert commands[-1].command == "verydeep reproduce photos --out out --held-out 0.25"
    assert {one.directory for one in commands} == {str(tmp_path)}


def shuffled(splits):
    """Return the splits with the validation labels dealt out again; no image keeps its own."""
    val = splits.source("val")
    labels = [(label + random.Random(place).choice([1, 2])) % 3 for place, label in enumerate(val.labels)]
    return replace(splits, sources={**splits.sources, "val": replace(val, labels=tuple(labels))})


def trained(splits, out, **changes):
    """Return the figures of every epoch, and the weights, of all trainings."""
    reproduce(splits, out=out, recipe=TINY, grid=replace(SMALL, **changes))
    found = {}
    for run in sorted((out / "runs" / "seed-0").iterdir()):
        epochs = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
        names = ("epoch", "learning_rate", "loss", "training_error", "validation_error")
        figures = [{name: epoch[name] for name in names} for epoch in epochs]
        found[run.name] = figures, (run / "model" / "model.safetensors").read_bytes()
    return found


def test_labels_of_test_images_change_nothing_in_any_training(photos, tmp_path):
    splits = open_for_training(str(photos))
    other = shuffled(splits)
    right, wrong = tmp_path / "right", tmp_path / "wrong"
    assert trained(splits, right) == trained(other, wrong)
    results = [json.loads((out / "results.json").read_text()) for out in (right, wrong)]
    assert results[0]["tables"] != results[1]["tables"], "the tests are of other labels"

    source = results[0]["source"]
    assert source["images"] == {"train": 12, "val": 3, "test": 3}
    assert (source["steer"], source["held_out"], source["tested_on"]) == ("held-out", 0.125, "test")
    told = (
        "Of the source's 15 training images 3, 12.5% of each class, are held out to steer the learning rate (val); its "
        "3 validation images only test (test)."
    )
    assert source["steering"] == told
    assert told in (right / "report.md").read_text()

    # Whoever tests such a run by itself does not test it on its own training images.
    run = right / "runs" / "seed-0" / "A-256"
    assert split_to_test(open_for_testing(str(photos), ("a", "b", "c")), [run]) == "val"


def test_the_papers_way_is_said(photos, tmp_path):
    out = tmp_path / "out"
    reproduce(str(photos), out=out, recipe=TINY, grid=Grid(only=("A",), tables=(3,), steer="validation"))
    source = json.loads((out / "results.json").read_text())["source"]
    assert (source["steer"], source["held_out"], source["tested_on"]) == ("validation", None, "val")
    assert source["images"] == {"train": 15, "val": 3}
    assert "and are, as in the paper, the test images too" in (out / "report.md").read_text()
