"""`train --out RUN --resume` takes all that a training was begun with from its run."""

import json
import shutil
import signal
from dataclasses import replace

import boxed_pictures
import pytest
import tiny
import torch
from several_commands import status_of

from verydeep import load, train, vgg
from verydeep.machine.runtime import Execution, Runtime, Stopped
from verydeep.runs.model import save
from verydeep.runs.record import read_metrics, read_record
from verydeep.training import frozen_layers, learner, loop

SETTINGS = ["--network", "B", "--crop", "32", "--width", "0.05", "--batch", "4", "--epochs", "2", "--seed", "7"]
SETTINGS += ["--schedule", "cosine", "--scale", "256:512", "--no-flip", "--held-out", "0.3", "--colour-sd", "0"]
WAYS = ["--device", "cpu", "--micro-batch", "3", "--image-memory", "0.5", "--norms-every", "2", "--max-bad", "2.5"]


@pytest.fixture
def stop_once(monkeypatch):
    """Let a training be stopped in its fifth step, once."""
    steps, cross_entropy = [], torch.nn.functional.cross_entropy

    def stopped_once(*arguments, **options):
        steps.append(1)
        if len(steps) == 5:
            signal.raise_signal(signal.SIGTERM)
        return cross_entropy(*arguments, **options)

    monkeypatch.setattr(learner.F, "cross_entropy", stopped_once)


@pytest.fixture
def stopped(tmp_path, stop_once):
    photos = tiny.folder(tmp_path / "photos")
    assert status_of("train", photos, *SETTINGS, *WAYS, "--out", tmp_path / "run") == 128 + signal.SIGTERM
    return tmp_path / "run"


@pytest.fixture
def start(tmp_path):
    """Weights to start from."""
    save(vgg("A", classes=2, crop=32, width=0.05), tmp_path / "start", scale="256", flip=True, classes=tiny.CLASSES)
    return tmp_path / "start"


def views_behind_frozen_layers(start):
    return replace(tiny.RECIPE, finetune=str(start), freeze="conv3_2", views=2, scale="256")


def refusal(capsys, *words):
    capsys.readouterr()
    assert status_of(*words) == 2
    (line,) = capsys.readouterr().err.splitlines()
    return line


def test_it_ends_with_the_weights_of_a_training_that_was_not_stopped(stopped, tmp_path, capsys):
    capsys.readouterr()
    assert status_of("train", "--out", stopped, "--resume") == 0
    said = capsys.readouterr().err
    assert f"{stopped} goes on as it was begun, on the images of {tmp_path / 'photos'} (moved ones may be" in said
    assert "resumed at step" in said
    assert status_of("train", tmp_path / "photos", *SETTINGS, *WAYS, "--out", tmp_path / "whole") == 0
    ours, theirs = load(stopped).state_dict(), load(tmp_path / "whole").state_dict()
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)


@pytest.mark.parametrize("room", [4, 2])
def test_as_many_images_are_computed_at_once_as_before(tmp_path, stop_once, monkeypatch, capsys, room):
    """Unless memory has become less, which is said."""
    out = tmp_path / "run"
    monkeypatch.setattr(learner, "_largest_by_arithmetic", lambda *_: 3)
    with pytest.raises(Stopped):
        train(tiny.splits(), network="A", out=out, recipe=tiny.RECIPE)
    assert read_record(out).runtime["micro_batch"] is None  # as it was asked for
    assert read_record(out).runtime["computed"]["micro_batch"] == 3
    monkeypatch.setattr(learner, "_largest_by_arithmetic", lambda *_: room)
    capsys.readouterr()
    train(tiny.splits(), network="A", out=out, recipe=tiny.RECIPE, resume=True)
    said = capsys.readouterr().err
    assert ("it does not go on as before (micro-batch 2 instead of 3): to the bit its weights" in said) == (room == 2)
    ways = Execution(micro_batch=3)
    whole = train(tiny.splits(), network="A", out=tmp_path / "whole", recipe=tiny.RECIPE, execution=ways)
    ours, theirs = load(out).state_dict(), load(whole).state_dict()
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs) == (room == 4)


def test_other_code_and_another_processor_are_said(stopped, capsys):
    record = json.loads((stopped / "run.json").read_text())
    here = record["versions"]["code"], record["versions"]["processor"]
    record["versions"] |= {"code": "abc", "processor": "Abacus"}
    (stopped / "run.json").write_text(json.dumps(record))
    capsys.readouterr()
    assert status_of("train", "--out", stopped, "--resume") == 0
    code, processor = here
    line = (
        f"it does not go on as before (code {code} instead of abc, processor {processor} instead of Abacus): to the bit"
    )
    assert line in capsys.readouterr().err


def test_fewer_threads_and_other_ways_of_computing_are_said(stopped, capsys):
    """What is not known of both, such as the threads of a run that was begun on a GPU, is not compared."""
    record = json.loads((stopped / "run.json").read_text())
    record["runtime"]["computed"] |= {"threads": 64, "processes": 2, "tf32": True, "device": None}
    record["runtime"]["compile"] = True
    (stopped / "run.json").write_text(json.dumps(record))
    capsys.readouterr()
    assert status_of("train", "--out", stopped, "--resume", "--no-compile") == 0
    threads = f"threads {torch.get_num_threads()} instead of 64"
    told = f"it does not go on as before (processes 1 instead of 2, {threads}, without TF32, without torch.compile): to"
    assert told in capsys.readouterr().err


@pytest.mark.parametrize("kept", [True, False])
def test_features_of_frozen_layers_are_kept_as_before(start, tmp_path, stop_once, monkeypatch, capsys, kept):
    out, whole, recipe = tmp_path / "run", tmp_path / "whole", views_behind_frozen_layers(start)
    monkeypatch.setattr(frozen_layers, "fits", lambda *_: kept)
    with pytest.raises(Stopped):
        train(tiny.splits(), network="A", out=out, recipe=recipe)
    assert read_record(out).runtime["computed"]["features_kept"] is kept
    monkeypatch.setattr(frozen_layers, "fits", lambda *_: True)
    capsys.readouterr()
    train(tiny.splits(), network="A", out=out, recipe=recipe, resume=True)
    said = "the frozen layers' features are computed in every step: as when it was begun"
    assert (said in capsys.readouterr().err) == (not kept)
    monkeypatch.setattr(frozen_layers, "fits", lambda *_: kept)
    train(tiny.splits(), network="A", out=whole, recipe=recipe)
    assert read_record(whole).runtime["computed"]["features_kept"] is kept
    ours, theirs = load(out).state_dict(), load(whole).state_dict()
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)


def test_features_that_norms_do_without_are_not_kept_later(start, tmp_path, stop_once, capsys):
    out, recipe = tmp_path / "run", views_behind_frozen_layers(start)
    with pytest.raises(Stopped):
        train(tiny.splits(), network="A", out=out, recipe=recipe, execution=Execution(norms_every=1))
    capsys.readouterr()
    train(tiny.splits(), network="A", out=out, recipe=recipe, resume=True)
    assert "features are computed in every step: as when it was begun" in capsys.readouterr().err


def resumed_job(monkeypatch, *words):
    jobs = []
    monkeypatch.setattr(loop, "is_done", lambda job: not jobs.append(job))
    monkeypatch.setattr(loop, "remove_left_checkpoints", lambda _: None)
    monkeypatch.setattr("verydeep.commands.train.show_training", lambda *_: None)
    assert status_of("train", *words, "--resume") == 0
    return jobs.pop()


def test_it_computes_as_before_unless_told_otherwise(stopped, monkeypatch):
    job = resumed_job(monkeypatch, "--out", stopped)
    assert (job.runtime, job.tolerance.max_bad) == (Runtime(device="cpu"), 2.5)
    begun_with = json.loads((stopped / "run.json").read_text())["runtime"]
    ways = Execution(micro_batch=3, image_memory=0.5, norms_every=2, precision=begun_with["precision"])
    assert job.execution == ways
    job = resumed_job(monkeypatch, "--out", stopped, "--micro-batch", "2", "--max-bad", "4")
    assert (job.execution.micro_batch, job.execution.norms_every, job.tolerance.max_bad) == (2, 2, 4)


def test_first_weights_are_not_asked_for_again(start, tmp_path, stop_once):
    out = tmp_path / "run"
    words = ["train", tiny.folder(tmp_path / "photos"), "--from", start, "--batch", "4", "--epochs", "3"]
    assert status_of(*words, "--out", out) == 128 + signal.SIGTERM
    shutil.rmtree(start)
    assert status_of("train", "--out", out, "--resume") == 0
    assert len(read_metrics(out)) == 3


def test_images_that_were_moved_may_be_named(stopped, tmp_path, capsys):
    (tmp_path / "photos").rename(tmp_path / "moved")
    capsys.readouterr()
    assert status_of("train", "--out", stopped, "--resume") == 2
    begun, refused = capsys.readouterr().err.splitlines()
    assert f"on the images of {tmp_path / 'photos'} (moved ones may be named" in begun
    assert f"no folder '{tmp_path / 'photos'}'" in refused
    assert status_of("train", tmp_path / "moved", "--out", stopped, "--resume") == 0


def test_some_settings_are_not_mixed_with_those_of_the_run(stopped, capsys):
    line = refusal(capsys, "train", "--out", stopped, "--resume", "--batch", "8", "--no-flip")
    assert line.endswith("goes on with all settings as they were: leave out --batch, --flip")


def test_where_nothing_was_begun_it_says_what_is_missing(tmp_path, capsys):
    line = refusal(capsys, "train", "--out", tmp_path / "none", "--resume")
    assert "none has no training to go on with: say what to train there, SOURCE and --network, --quick or" in line
    assert not (tmp_path / "none").exists()


def test_a_run_of_boxes_names_its_own_command(tmp_path, capsys):
    classifier = train(tiny.splits(), network="A", out=tmp_path / "run", recipe=tiny.RECIPE)
    photos, out = boxed_pictures.folder(tmp_path / "photos"), tmp_path / "boxes"
    boxes = ["--boxes", photos / "boxes.csv", "--box-units", "pixels", "--min-box", "0"]
    words = ["localise", "train", photos, *boxes[:4], "--finetune", classifier, "--epochs", "1", "--batch", "4"]
    assert status_of(*words, "--out", out) == 0, capsys.readouterr().err
    assert "learns boxes: repeat its command with --resume" in refusal(capsys, "train", "--out", out, "--resume")


def test_a_finished_run_is_said_to_be_finished(tmp_path, capsys):
    photos, out = tiny.folder(tmp_path / "photos"), tmp_path / "run"
    assert status_of("train", photos, *SETTINGS, "--out", out) == 0
    capsys.readouterr()
    assert status_of("train", "--out", out, "--resume") == 0
    first, *_ = capsys.readouterr().err.splitlines()
    assert first == f"{out} is finished"
    line = refusal(capsys, "train", "--out", out, "--resume", "--epochs", "9")
    assert line.endswith(f"leave out --epochs, or train further in another folder with --finetune {out}")


def test_a_training_that_ended_before_its_first_checkpoint_begins_again(stopped, tmp_path):
    shutil.rmtree(stopped / "checkpoints")
    assert status_of("train", "--out", stopped, "--resume") == 0
    assert len(read_metrics(stopped)) == 2


def test_a_record_without_all_settings_asks_for_the_command(stopped, capsys):
    """As an earlier version wrote it: the share held out is not to be guessed."""
    record = json.loads((stopped / "run.json").read_text())
    del record["held_out"], record["runtime"]["max_bad"], record["runtime"]["max_pixels"]
    (stopped / "run.json").write_text(json.dumps(record))
    line = refusal(capsys, "train", "--out", stopped, "--resume")
    assert "which did not note all settings: repeat its command with --resume" in line
    photos = stopped.parent / "photos"
    assert status_of("train", photos, *SETTINGS, *WAYS, "--out", stopped, "--resume") == 0
