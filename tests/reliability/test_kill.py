"""A training that is killed again and again ends as one that is left alone; one that saved in place would not."""

import json
import os
import random
import signal
import time
from collections import Counter
from dataclasses import dataclass, field

import pytest

from verydeep.runs.files import BEST, MODEL
from verydeep.training.checkpoint import load_latest

TRAINING = """
import json, os, sys, time
from contextlib import contextmanager
from pathlib import Path
import tiny
from torch.optim.optimizer import register_optimizer_step_post_hook
from verydeep import Execution, train
from verydeep.training import checkpoint

out, log, epochs, writer = sys.argv[1:]
log = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
fsync, save, save_file = os.fsync, checkpoint.save, checkpoint.save_file

def note(**what):
    os.write(log, json.dumps(what).encode() + b"\\n")

def noted(folder, found):
    note(saving=found.progress.step)
    place = save(folder, found)
    note(saved=found.progress.step, digest=tiny.digest(found))
    return place

def slow_fsync(descriptor):
    time.sleep(0.005)
    fsync(descriptor)

def slow_save_file(*arguments):
    save_file(*arguments)
    time.sleep(0.02)

@contextmanager
def in_place(path):
    path.mkdir(parents=True, exist_ok=True)
    yield path
    for file in path.iterdir():
        with file.open() as opened:
            os.fsync(opened.fileno())

checkpoint.save = noted
if writer != "whole":
    os.fsync, checkpoint.save_file = slow_fsync, slow_save_file
if writer == "in place":
    checkpoint.atomic.new_folder = in_place
register_optimizer_step_post_hook(lambda *_: note(step=True))
execution = Execution(save_minutes=1e-9, keep_checkpoints=True)  # saved before every step
train(tiny.splits(), network="A", out=out, recipe=tiny.recipe(int(epochs)), execution=execution, resume=True)
"""


@dataclass
class Found:
    """The outcome of the kills."""

    kills: int = 0
    inside: int = 0
    """Kills while a checkpoint was being written."""
    redone: Counter = field(default_factory=Counter)
    """Steps that kills cost, and how many cost so many."""
    losses: list = field(default_factory=list)


def notes(log):
    """Yield the notes of all processes so far; a kill may tear the last line of one."""
    for line in log.read_text().splitlines() if log.exists() else []:
        try:
            yield json.loads(line)
        except ValueError:
            continue


def saves(log):
    return {note["saved"]: note["digest"] for note in notes(log) if "saved" in note}


def killed_again_and_again(python, tiny, out, *, epochs, kills, seed, whole, writer="atomic"):
    """Kill a training at seeded instants, every other one inside a save, and look at what each leaves."""
    rng, found, start, log = random.Random(seed), Found(), 0, out.with_suffix(".log")
    while found.kills < kills and not found.losses:
        log.unlink(missing_ok=True)
        child = python(TRAINING, out, log, epochs, writer)
        wait_until(lambda log=log: saves(log), child)
        time.sleep(rng.uniform(0, 0.2))
        if found.kills % 2:
            wait_until(lambda log=log: "saving" in list(notes(log))[-1], child)
            time.sleep(rng.uniform(0, 0.04))
        os.kill(child.pid, signal.SIGKILL)
        assert child.wait() == -signal.SIGKILL, f"it ended before kill {found.kills + 1}"
        found.kills += 1
        found.inside += any((out / "checkpoints").glob(".step-*"))
        try:
            checkpoint, passed_over = load_latest(out / "checkpoints")
        except ValueError as error:
            found.losses.append(str(error))
            break
        step, saved = checkpoint.progress.step, max(saves(log))
        done = start + sum("step" in note for note in notes(log))
        found.losses += passed_over
        if step < saved:
            found.losses.append(f"step {saved} was saved, and {step} is there")
        if tiny.digest(checkpoint) != whole[step]:
            found.losses.append(f"the checkpoint of step {step} is another one")
        found.redone[done - step] += 1
        start = step
    return found


def wait_until(there, child, every=0.002):
    end = time.monotonic() + 60
    while not there():
        assert time.monotonic() < end, child.errors
        assert child.wait(0) is None, child.errors
        time.sleep(every)


@pytest.fixture(scope="module")
def whole_run(python, tiny, battery, tmp_path_factory):
    """Run a training that is left alone; return epochs, folder and the digest of each checkpoint."""
    epochs = 100 if battery else 16
    out = tmp_path_factory.mktemp("whole") / "run"
    child = python(TRAINING, out, out.with_suffix(".log"), epochs, "whole")
    assert child.wait(200) == 0, child.errors
    digests = saves(out.with_suffix(".log"))
    assert set(digests) == set(range(tiny.STEPS * epochs + 1))
    return epochs, out, digests


def test_a_run_killed_again_and_again_ends_as_a_whole_one(python, tiny, battery, figure, tmp_path, whole_run):
    (epochs, whole, digests), out = whole_run, tmp_path / "run"
    kills, inside = (50, 15) if battery else (10, 3)
    found = killed_again_and_again(python, tiny, out, epochs=epochs, kills=kills, seed=1, whole=digests)
    assert found.losses == []
    assert found.inside >= inside
    assert max(found.redone) <= 1
    assert python(TRAINING, out, tmp_path / "log", epochs, "whole").wait(200) == 0
    assert tiny.digest(load_latest(out / "checkpoints")[0]) == digests[tiny.STEPS * epochs]
    for model in (BEST, MODEL):
        assert (out / model / "model.safetensors").read_bytes() == (whole / model / "model.safetensors").read_bytes()
    assert tiny.learning(out) == tiny.learning(whole)
    assert len(tiny.learning(out)) == epochs
    assert tiny.strays(out) == []
    figure(
        1,
        "kill",
        f"{found.kills} kills, {found.inside} inside a save: no checkpoint lost, {found.redone[1]} cost the step since "
        "the last save, none more; final weights, momentum, progress and metrics identical",
    )


def test_the_same_kills_tear_checkpoints_that_are_saved_in_place(python, tiny, figure, tmp_path, whole_run):
    epochs, _, digests = whole_run
    found = killed_again_and_again(
        python, tiny, tmp_path / "run", epochs=epochs, kills=20, seed=1, whole=digests, writer="in place"
    )
    assert found.losses
    figure(2, "kill control", f"saved in place: kill {found.kills} left a checkpoint that is torn")
