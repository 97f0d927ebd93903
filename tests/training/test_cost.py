"""Costs of a training that are told before it begins."""

import json
import signal
from dataclasses import replace
from pathlib import Path

import pytest
import tiny
import torch

from verydeep import Execution, Recipe, Runtime, Tolerance, train
from verydeep.cli import main
from verydeep.commands import training_cost as told
from verydeep.machine.processes import Processes
from verydeep.numbers import rough_duration
from verydeep.training import cost
from verydeep.training.cost import is_surely_short, training_cost
from verydeep.training.job import TrainingJob

SIZES = cost._Sizes(memory_bytes=1000, checkpoint_bytes=400, model_bytes=200)
HOW = {"runtime": Runtime(), "execution": Execution(), "tolerance": Tolerance()}


@pytest.mark.parametrize(
    ("frozen", "views", "workers", "seconds"),
    [
        # 2 epochs: 10 images at 3 + 0.5 s, 6 at a third of 3 + 0.5 s
        (None, None, 0, 2 * (10 * 3.5 + 6 * 1.5)),
        (None, None, 2, 2 * (10 * 3 + 6 * 1)),
        # the 2 of 4 views that 2 epochs show of 10 images, and 6 others, at 2 + 0.5 s; then 2 epochs without loading
        (2.0, 4, 0, 26 * 2.5 + 2 * (10 * 3 + 6 * 1)),
    ],
)
def test_seconds_add_up(monkeypatch, frozen, views, workers, seconds):
    monkeypatch.setattr(cost, "_measured", lambda job: (frozen, 3.0, SIZES))
    monkeypatch.setattr(cost, "measured_loading", lambda source, recipe, tolerance: 0.5)
    recipe = Recipe(**{**tiny.RECIPE.__dict__, "views": views})
    found = training_cost(tiny.splits(), "A", recipe, runtime=Runtime(workers=workers))
    assert found.seconds == pytest.approx(seconds)
    assert (found.training_images, found.validation_images, found.steps_per_epoch) == (10, 6, tiny.STEPS)


def test_a_training_is_measured_with_the_threads_that_it_is_given(monkeypatch):
    asked = []
    monkeypatch.setattr(cost, "_measured", lambda job: (None, 3.0, SIZES))
    monkeypatch.setattr(cost, "use_threads", asked.append)
    training_cost(tiny.splits(), "A", tiny.RECIPE, runtime=Runtime(threads=3))
    assert asked == [3]


def test_what_is_measured_is_of_the_size_of_the_training():
    found = training_cost(tiny.splits(), "A", tiny.RECIPE)
    assert 0 < found.seconds < 60
    assert found.memory_bytes > 3 * 4 * found.parameters


def test_the_disk_is_that_of_the_files(tmp_path):
    """Four checkpoints at most, and two models; files have a few kilobytes of names besides."""
    kept = Execution(keep_checkpoints=True)
    run = train(tiny.splits(), network="A", out=tmp_path / "run", recipe=tiny.RECIPE, execution=kept)
    found = training_cost(tiny.splits(), "A", tiny.RECIPE)
    checkpoint, models = next((run / "checkpoints").iterdir()), run.glob("*/model.safetensors")
    assert 4 * size_of(checkpoint.glob("*.safetensors")) == pytest.approx(found.checkpoint_bytes, rel=0.05)
    assert size_of(models) == pytest.approx(found.model_bytes, rel=0.05)


def size_of(files):
    return sum(file.stat().st_size for file in files)


def test_layers_that_are_frozen_have_neither_gradients_nor_momentum_nor_kept_activations():
    frozen = Recipe(**{**tiny.RECIPE.__dict__, "finetune": "run", "trainable": "fc8"})
    less, whole = (training_cost(tiny.splits(), "A", recipe) for recipe in (frozen, tiny.RECIPE))
    learning = less.checkpoint_bytes / 4 - less.model_bytes / 2
    assert whole.memory_bytes - less.memory_bytes > 2 * (whole.model_bytes / 2 - learning)
    assert less.model_bytes == whole.model_bytes
    assert 0 < learning < whole.model_bytes / 20


def test_a_training_of_hours_is_told_with_a_quicker_one(monkeypatch, capsys):
    hours = {64: 0.2, 224: 59.2}
    figures = training_cost(tiny.splits(), "A", tiny.RECIPE).to_dict()
    answers = lambda splits, network, recipe, **how: cost.TrainingCost(  # noqa: E731
        **{**figures, "seconds": 3600 * hours[recipe.crop]}
    )
    monkeypatch.setattr(cost, "training_cost", answers)
    told.say_cost(tiny.splits(), "D", Recipe(), **HOW)
    assert capsys.readouterr().err.splitlines()[-1] == (
        "at most 59 hours on this CPU, by a short measurement: --quick (crop 64, width 0.25) takes about 12 minutes"
    )


def test_nothing_is_measured_of_a_training_that_is_surely_short(monkeypatch, capsys):
    assert is_surely_short(tiny.splits(), "A", tiny.RECIPE, Tolerance(), seconds=60)
    assert not is_surely_short(tiny.splits(), "D", Recipe(), Tolerance(), seconds=3600)
    monkeypatch.delattr(cost, "training_cost")
    monkeypatch.setattr(cost, "training_cost", None, raising=False)
    told.say_cost(tiny.splits(), "A", tiny.RECIPE, **HOW)
    assert capsys.readouterr().err == ""


def test_a_training_whose_images_take_long_to_load_is_not_surely_short(monkeypatch):
    """2 epochs of 10 and 6 images of 2 seconds."""
    monkeypatch.setattr(cost, "measured_loading", lambda *_: 2.0)
    assert not is_surely_short(tiny.splits(), "A", tiny.RECIPE, Tolerance(), seconds=60)
    assert is_surely_short(tiny.splits(), "A", tiny.RECIPE, Tolerance(), seconds=70)


@pytest.mark.usefixtures("unignored_signals")
def test_ctrl_c_is_answered_while_the_cost_is_measured(monkeypatch, capsys):
    monkeypatch.setattr(cost, "training_cost", lambda *_, **__: signal.raise_signal(signal.SIGINT))
    with pytest.raises(KeyboardInterrupt):
        told.say_cost(tiny.splits(), "D", Recipe(), **HOW)
    assert capsys.readouterr().err.splitlines()[-1] == "stopping after this step; again to quit at once"


def test_features_that_memory_does_not_hold_count_as_computed_in_every_step(monkeypatch):
    recipe = Recipe(**{**tiny.RECIPE.__dict__, "finetune": "run", "trainable": "fc8", "views": 2})
    kept = training_cost(tiny.splits(), "A", recipe)
    assert cost._measured(job(recipe))[0] is not None
    monkeypatch.setattr(cost, "fits", lambda *_: False)
    assert cost._measured(job(recipe))[0] is None
    assert training_cost(tiny.splits(), "A", recipe).memory_bytes < kept.memory_bytes


def job(recipe):
    return TrainingJob(
        splits=tiny.splits(),
        network="A",
        recipe=recipe,
        out=Path(),
        device=torch.device("cpu"),
        processes=Processes(),
        **HOW,
    )


def test_frozen_layers_are_measured_in_the_precision_of_the_training(monkeypatch):
    kept = []
    monkeypatch.setattr(cost, "fits", lambda _, feature: kept.append(feature.dtype))
    frozen = Recipe(**{**tiny.RECIPE.__dict__, "finetune": "run", "trainable": "fc8", "views": 2})
    cost._measured(replace(job(frozen), execution=Execution(precision="bf16")))
    assert kept == [torch.bfloat16]


def test_a_folder_of_checkpoints_in_the_current_folder_is_not_taken_for_the_run(tmp_path, monkeypatch):
    (tmp_path / "checkpoints").mkdir()
    monkeypatch.chdir(tmp_path)
    assert training_cost(tiny.splits(), "A", tiny.RECIPE).seconds > 0


def test_a_dry_run_shows_the_cost_and_writes_nothing(tmp_path, capsys):
    images = tiny.folder(tmp_path / "images")
    options = ["--network", "A", "--crop", "32", "--width", "0.05", "--batch", "4", "--epochs", "3"]
    main(["train", str(images), "--out", str(tmp_path / "run"), "--dry-run", "--json", "-", *options])
    found = json.loads(capsys.readouterr().out)
    assert (found["classes"], found["steps_per_epoch"], found["epochs"], found["network"]) == (2, 3, 3, "A")
    assert [path.name for path in tmp_path.iterdir()] == ["images"]


@pytest.mark.parametrize("dry", [["--dry-run"], []])
@pytest.mark.parametrize(("option", "named"), [("--network", "B"), ("--crop", "64"), ("--width", "0.1")])
def test_another_network_than_that_to_go_on_from_is_refused_before_anything_is_measured(
    tmp_path, capsys, monkeypatch, dry, option, named
):
    monkeypatch.setattr(cost, "_measured", lambda job: pytest.fail("a step was measured"))
    start = train(tiny.splits(), network="A", out=tmp_path / "start", recipe=tiny.RECIPE)
    images = tiny.folder(tmp_path / "images")
    options = ["--finetune", str(start), option, named, "--epochs", "1000000", *dry]
    with pytest.raises(SystemExit) as ended:
        main(["train", str(images), "--out", str(tmp_path / "run"), *options])
    assert ended.value.code == 2
    out, err = capsys.readouterr()
    assert f"cannot go on from {start}, which is --network A --crop 32 --width 0.05, with --network " in err
    assert "measuring" not in out + err
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("line", ["train digits --network A", "reproduce digits --quick"])
def test_a_dry_run_is_shown_by_the_first_process_alone(tmp_path, monkeypatch, capsys, line):
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", "1")
    main([*line.split(), "--out", str(tmp_path / "out"), "--dry-run"])
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(59, "less than a minute"), (60, "1 minute"), (7100, "118 minutes"), (7200, "2 hours"), (259_200, "3 days")],
)
def test_rough_durations(seconds, text):
    assert rough_duration(seconds) == text
