"""SIGTERM, wherever it meets the program, ends it soon, with status 143 and nothing lost; SIGHUP and SIGQUIT too."""

import json
import os
import random
import signal
import time
from pathlib import Path

import pytest

from verydeep import Execution, train
from verydeep.training.checkpoint import load_latest

pytestmark = pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="asks Linux for the processes")

SECONDS = 10

SIGNALLED = """
import collections, itertools, json, os, signal, sys, time
import torch
from torch.nn.modules.module import register_module_forward_pre_hook
from torch.optim.optimizer import register_optimizer_step_post_hook
from verydeep.cli import main
from verydeep.images import colour

when, log, *arguments = sys.argv[1:]
log = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
fsync, decode = os.fsync, colour.decode
counts = collections.defaultdict(lambda: itertools.count(1))
signals = steps = 0
main_process, set_num_threads = os.getpid(), torch.set_num_threads

def note(**what):
    os.write(log, json.dumps(what).encode() + b"\\n")

def count(what, slow=False):
    'Make slow work take forever after the signal.'
    global signals
    if signals and slow:
        time.sleep(4)
    if f"{what} {next(counts[what])}" in when.split(", "):
        signals += 1
        note(signal=time.monotonic())
        os.killpg(0, signal.SIGTERM)

def decoded(*arguments, **options):
    count("image", slow=True)
    note(image=True)
    return decode(*arguments, **options)

def synced(descriptor):
    file = os.readlink(f"/proc/self/fd/{descriptor}")
    for name in ("step-00000003", "best"):
        if f"/.{name}." in file:
            count(name)
    fsync(descriptor)

def forward(module, _):
    if isinstance(module, torch.nn.Conv2d) and module.in_channels == module.out_channels == 3:  # conv1_1
        count("training" if module.training else "testing", slow=True)

def stepped(*_):
    global steps
    steps += 1
    note(step=True)
    count("step")

def worker_starts(number):
    'Count a worker that has the handlers of PyTorch and does not yet ignore signals.'
    if os.getpid() != main_process:
        count(f"worker after step {steps}:")
    set_num_threads(number)

colour.decode, os.fsync = decoded, synced
torch.set_num_threads = worker_starts
register_module_forward_pre_hook(forward)
register_optimizer_step_post_hook(stepped)
main(arguments)
"""
"""A script that sends SIGTERM to its process group, as batch systems do, when something happens for the n-th time."""

WHEN = {
    "in the preparation": ("image 3", 0, 0),
    "in the preparation, with workers": ("image 3", 2, 0),
    "in the first batch": ("training 1", 0, 0),
    "in the first batch, with workers": ("training 1", 2, 0),
    "in training": ("step 4", 0, 4),
    "in a step": ("training 16", 0, 4),  # after 4 + 4 + 2 in the first epoch, and 4
    "in training, with workers": ("step 4", 2, 4),
    "in the validation": ("testing 2", 0, 3),
    "in the validation, with workers": ("testing 8", 2, 6),
    "while workers for the validation start": ("worker after step 3: 1", 2, 3),
    "while saving": ("step-00000003 2", 0, 3),
    "twice in quick succession": ("step 3, step-00000003 1, step-00000003 4", 2, 3),
    "while the models are saved": ("best 2", 0, 6),
}
"""Moments, each with the number of workers and of steps done."""

OPTIONS = ["--network", "A", "--crop", "32", "--width", "0.05", "--batch", "4", "--learning-rate", "1e-3"]
OPTIONS += ["--scale", "256:512", "--seed", "5", "--keep-checkpoints"]
"""The options of tiny.RECIPE, except for the epochs."""

IN_PIECES = Execution(micro_batch=1, keep_checkpoints=True)


@pytest.fixture(scope="module")
def whole(tiny, source, tmp_path_factory):
    out = tmp_path_factory.mktemp("whole") / "run"
    return train(source, network="A", out=out, recipe=tiny.RECIPE, execution=IN_PIECES)


@pytest.fixture(scope="module")
def longest(figure):
    """Collect the seconds that each took to end."""
    seconds = {}
    yield seconds
    slowest = max(seconds, key=seconds.get)
    statuses = "exit status 143, of SIGHUP and SIGQUIT 129 and 131,"
    told = f"at {len(seconds)} moments: {statuses} after at most {seconds[slowest]:.1f} s ({slowest})"
    figure(6, "SIGTERM", f"{told}; no step lost, no process left, resumed to the same weights")


@pytest.fixture
def no_cache(tmp_path):
    """Return a line that makes the training compute colours again."""
    return f"import os; os.environ['VERYDEEP_CACHE'] = {str(tmp_path / 'cache')!r}\n"


def notes(log):
    return [json.loads(line) for line in log.read_text().splitlines()] if log.exists() else []


def ended(child, log, number=signal.SIGTERM):
    """Return the seconds from the first signal to the end; no process may be left."""
    status, now = child.wait(), time.monotonic()
    sent = [note["signal"] for note in notes(log) if "signal" in note]
    assert sent, child.errors
    assert status == 128 + number, child.errors
    assert "Traceback" not in child.errors
    alone(child)
    return now - sent[0]


def alone(child):
    end = time.monotonic() + 2
    while child.processes() and time.monotonic() < end:
        time.sleep(0.02)
    assert child.processes() == []


def same_end(run, whole, tiny):
    for model in ("best", "model"):
        file = Path(model) / "model.safetensors"
        assert (run / file).read_bytes() == (whole / file).read_bytes()
    assert tiny.digest(load_latest(run / "checkpoints")[0]) == tiny.digest(load_latest(whole / "checkpoints")[0])
    assert tiny.learning(run) == tiny.learning(whole)


@pytest.mark.parametrize("moment", WHEN)
def test_a_training_ends_with_all_its_steps_saved(python, tiny, longest, no_cache, tmp_path, source, whole, moment):
    when, workers, steps = WHEN[moment]
    out, log = tmp_path / "run", tmp_path / "log"
    options = [*OPTIONS, "--epochs", "2", "--micro-batch", "1", "--workers", workers]
    child = python(no_cache + SIGNALLED, when, log, "train", source, "--out", out, *options)
    longest[moment] = ended(child, log)
    assert longest[moment] < SECONDS
    assert sum("step" in note for note in notes(log)) == steps
    assert sum("signal" in note for note in notes(log)) >= len(when.split(", "))
    found, passed_over = load_latest(out / "checkpoints")
    assert passed_over == []
    if "preparation" in moment:
        assert found is None
    else:
        assert found.progress.step == steps
        said = f"verydeep: stopped, and saved in {out}: repeat the command with --resume to continue"
        assert child.errors.splitlines()[-1] == said or "models" in moment
    assert tiny.strays(out) == []
    train(source, network="A", out=out, recipe=tiny.RECIPE, execution=IN_PIECES, resume=True)
    same_end(out, whole, tiny)


@pytest.mark.parametrize("number", [signal.SIGHUP, signal.SIGQUIT])
def test_a_lost_terminal_saves_a_training_too(python, tiny, longest, no_cache, tmp_path, source, whole, number):
    out, log = tmp_path / "run", tmp_path / "log"
    script = no_cache + SIGNALLED.replace("killpg(0, signal.SIGTERM)", f"killpg(0, signal.{number.name})")
    options = [*OPTIONS, "--epochs", "2", "--micro-batch", "1", "--workers", 2]
    child = python(script, "step 4", log, "train", source, "--out", out, *options)
    longest[number.name] = seconds = ended(child, log, number)
    assert seconds < SECONDS
    assert load_latest(out / "checkpoints")[0].progress.step == 4
    assert tiny.strays(out) == []
    train(source, network="A", out=out, recipe=tiny.RECIPE, execution=IN_PIECES, resume=True)
    same_end(out, whole, tiny)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize(("to", "name", "when"), [("torch", "net.pt2", "testing 1"), ("onnx", "net.onnx", "testing 2")])
def test_an_export_leaves_nothing(python, tmp_path, source, whole, number, to, name, when):
    """While its graph is traced, and while it is compared."""
    log, file = tmp_path / "log", tmp_path / name
    script = SIGNALLED.replace("killpg(0, signal.SIGTERM)", f"kill(os.getpid(), signal.{number.name})")
    child = python(script, when, log, "export", whole, "--to", to, "--data", source, "--out", file)
    ended(child, log, number)
    assert child.errors.splitlines() in ([], ["verydeep: stopped"])
    assert list(tmp_path.iterdir()) == [log]


@pytest.mark.parametrize("workers", [0, 2])
def test_an_evaluation_ends_too(python, longest, tmp_path, source, whole, workers):
    log, figures = tmp_path / "log", tmp_path / "figures.json"
    arguments = ["evaluate", whole, "--data", source, "--json", figures, "--workers", workers]
    child = python(SIGNALLED, "testing 2", log, *arguments)
    longest[f"in an evaluation, {workers} workers"] = seconds = ended(child, log)
    assert seconds < SECONDS
    assert list(tmp_path.iterdir()) == [log]


def test_at_any_time_it_ends_a_training_that_loses_nothing(
    python, tiny, battery, figure, longest, no_cache, tmp_path, source
):
    """Send it from outside, at seeded instants; each start resumes the training."""
    out, log, rng, steps = tmp_path / "run", tmp_path / "log", random.Random(6), 0
    times = 40 if battery else 6
    often = [*OPTIONS, "--save-minutes", "1e-9", "--epochs", "400", "--patience", "400", "--workers", 2]
    for number in range(times):
        log.unlink(missing_ok=True)
        child = python(no_cache + SIGNALLED, "never", log, "train", source, "--out", out, *often, "--resume")
        end = time.monotonic() + 60
        while not child.errors and time.monotonic() < end:
            time.sleep(0.005)
        time.sleep(rng.uniform(0, 0.6))
        os.killpg(child.pid, signal.SIGTERM)
        started = time.monotonic()
        assert child.wait() == 128 + signal.SIGTERM, child.errors
        longest[f"instant {number}"] = time.monotonic() - started
        alone(child)
        assert "Traceback" not in child.errors
        steps += sum("step" in note for note in notes(log))
        found, passed_over = load_latest(out / "checkpoints")
        assert passed_over == []
        assert (found.progress.step if found else 0) == steps
        assert not out.exists() or tiny.strays(out) == []
    assert steps > 0, "each was stopped before its first step"
