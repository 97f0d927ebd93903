"""Worker processes that die: told with the cause, soon, and without a trace left behind."""

import gc
import io
import multiprocessing
import os
import re
import signal
import threading
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import Dataset

from verydeep import Recipe, Runtime, Tolerance, load, train
from verydeep.images.crops import TrainingView
from verydeep.images.loader import training_batches
from verydeep.images.quarantine import TooManyBadImagesError
from verydeep.images.sources.source import Sample, Source, memory_source
from verydeep.images.sources.splits import Splits
from verydeep.images.workers import WorkerDiedError, single_items

SECONDS = 30
"""By then a death must have been told, on a busy machine too; a process that waits for a dead one waits for ever."""

SECONDS_ALONE = 10
"""By then in the battery, which has the machine to itself."""


@pytest.fixture(scope="module")
def in_time(battery, figure):
    """Return what checks the seconds until a death was told; the longest of all are a figure."""
    found = []

    def check(seconds):
        found.append(seconds)
        assert seconds < (SECONDS_ALONE if battery else SECONDS)

    yield check
    if found:
        figure(13, "loader death", f"{len(found)} times, the cause named within {max(found):.1f} s")


@pytest.fixture(autouse=True)
def _end_what_is_left():
    """Kill what a failed test leaves, which would be waited for at the end."""
    yield
    for child in multiprocessing.active_children():
        child.kill()
        child.join()


class Numbers(Dataset):
    """0, 1, 2, ...; what happens at one of them, subclasses say."""

    def __init__(self, count=40, at=6):
        self.count, self.at = count, at

    def __len__(self):
        return self.count

    def __getitem__(self, index):
        if index == self.at:
            self.happen()
        return index

    def happen(self):
        pass


class Killed(Numbers):
    number = signal.SIGKILL

    def happen(self):
        os.kill(os.getpid(), self.number)


class Terminated(Killed):
    def happen(self):
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        os.kill(os.getpid(), signal.SIGTERM)


class BusError(Killed):
    number = signal.SIGBUS


class RealTime(Killed):
    number = signal.SIGRTMIN + 3


class Exiting(Numbers):
    def happen(self):
        os._exit(3)


class Raising(Numbers):
    def happen(self):
        raise LookupError("the shelf is empty")


def items(dataset, workers=2):
    return single_items(dataset.__getitem__, range(len(dataset)), workers=workers)


def none_left(seconds=2):
    """Whether this process has no children, perhaps after a moment."""
    end = time.monotonic() + seconds
    while multiprocessing.active_children() and time.monotonic() < end:
        time.sleep(0.05)
    return not multiprocessing.active_children()


def death(dataset, in_time):
    """The message of the error that a death is told by, after everything that came before it."""
    found, started = [], time.monotonic()
    try:
        for item in items(dataset):
            found.append(item)
            time.sleep(0.1)  # a step; meanwhile the worker dies
    except WorkerDiedError as error:
        seconds, message = time.monotonic() - started, str(error)
    else:
        pytest.fail("no death was told")
    assert found == list(range(len(found)))
    assert len(found) <= dataset.at
    print(f"{message}: after {seconds:.1f} s")
    in_time(seconds)
    return message


@pytest.mark.parametrize(
    ("dataset", "message"),
    [
        (Killed, r"was killed by SIGKILL \(the system does that when memory runs out: use fewer --workers\)"),
        (BusError, r"was killed by SIGBUS \(shared memory is full: use --workers 0, or a larger /dev/shm .*\)"),
        (Terminated, r"was killed by SIGTERM$"),
        (RealTime, rf"was killed by signal {signal.SIGRTMIN + 3}$"),
        (Exiting, r"ended with exit status 3$"),
    ],
)
def test_a_death_is_told_with_its_cause(dataset, message, in_time):
    assert re.search(rf"^loader worker \d+ {message}", death(dataset(), in_time))
    assert none_left()


def kill(pid):
    os.kill(pid, signal.SIGKILL)
    time.sleep(0.2)


def kill_soon(pid):
    threading.Timer(0.1, os.kill, (pid, signal.SIGKILL)).start()
    raise ConnectionResetError(104, "Connection reset by peer")


class Fatal:
    """Kills the process that it comes from as soon as it has arrived in another."""

    def __init__(self, way):
        self.way = way

    def __reduce__(self):
        return self.way, (os.getpid(),)


class KilledBehind(Numbers):
    """The item was whole when it was sent; what stands behind the `Fatal` must be fetched from the worker."""

    way = staticmethod(kill)

    def __getitem__(self, index):
        return (Fatal(self.way), torch.zeros(99)) if index == self.at else super().__getitem__(index)


class DyingBehind(KilledBehind):
    """The sockets of a process that dies are closed a moment before it is dead."""

    way = staticmethod(kill_soon)


@pytest.mark.parametrize("dataset", [KilledBehind, DyingBehind])
def test_a_death_is_told_where_an_item_is_lost_by_it(dataset):
    """PyTorch sends a tensor as the address of a socket in the worker, and then asks there."""
    found = []
    with pytest.raises(WorkerDiedError, match="killed by SIGKILL"):
        found.extend(items(dataset(), workers=1))  # of two the item may overtake the one before it
    assert found == list(range(6))
    assert none_left()


def test_a_death_is_told_to_one_who_waits(in_time):
    """The worker dies while the main process waits for its item: nothing but the clock can tell then."""
    started = time.monotonic()
    with pytest.raises(WorkerDiedError, match="SIGKILL"):
        list(items(Killed(at=0)))
    in_time(time.monotonic() - started)
    assert none_left()


def noise_source(count=24, classes=("dark", "light"), kind=Source):
    rng = np.random.default_rng(0)
    samples = []
    for index in range(count):
        buffer = io.BytesIO()
        Image.fromarray(rng.integers(0, 200, (34, 40, 3), dtype=np.uint8)).save(buffer, "PNG")
        samples.append(Sample(buffer.getvalue(), index % 2, f"{index}.png"))
    return kind(**vars(memory_source(classes=classes, samples=tuple(samples))))


class KilledOnce(Source):
    """A worker process that reads image 13 is killed if `fatal` says so; the main process is spared."""

    fatal = True

    def __getitem__(self, index):
        if index == 13 and self.fatal and multiprocessing.parent_process() is not None:
            os.kill(os.getpid(), signal.SIGKILL)
        return super().__getitem__(index)


def test_training_batches_tell_a_death_too(in_time):
    view = TrainingView(crop=32, scale=(34, 34), flip=True, colour_sd=0.1, colour_components=np.eye(3))
    started = time.monotonic()
    batches = training_batches(noise_source(kind=KilledOnce), view, batch=4, epochs=2, seed=0, workers=2)
    with pytest.raises(WorkerDiedError, match="killed by SIGKILL"):
        any(time.sleep(0.1) for _ in batches)
    in_time(time.monotonic() - started)
    assert none_left()


def test_a_training_saves_what_was_done_before_it_tells_of_a_death(tmp_path, monkeypatch):
    recipe = Recipe(crop=32, width=0.05, batch=4, epochs=2, learning_rate=1e-3)
    images, val = noise_source(kind=KilledOnce), noise_source(6)
    splits = Splits(name="noise", sources={"train": images, "val": val})
    monkeypatch.setattr(KilledOnce, "fatal", False)
    whole = train(splits, network="A", out=tmp_path / "whole", recipe=recipe)  # makes its colours known, too
    monkeypatch.setattr(KilledOnce, "fatal", True)
    with pytest.raises(WorkerDiedError, match=r"killed by SIGKILL .* saved in .*run"):
        train(splits, network="A", out=tmp_path / "run", recipe=recipe, runtime=Runtime(workers=2))
    assert none_left()
    assert (tmp_path / "run" / "checkpoints").is_dir()
    run = train(splits, network="A", out=tmp_path / "run", recipe=recipe, resume=True)
    a, b = load(run).state_dict(), load(whole).state_dict()
    assert all(torch.equal(a[name], b[name]) for name in b)


@pytest.mark.parametrize("workers", [0, 2])
def test_an_exception_in_the_data_set_reaches_the_caller(workers):
    found = []
    with pytest.raises(LookupError, match="the shelf is empty"):
        found.extend(items(Raising(), workers))
    assert found == list(range(6))
    assert none_left()


@pytest.mark.parametrize("workers", [0, 1, 2])
def test_items_come_in_order_and_nothing_stays(workers):
    assert list(items(Numbers(), workers)) == list(range(40))
    assert none_left()


def test_items_that_nobody_wants_any_more_leave_no_process():
    some = items(Numbers())
    assert [next(some), next(some)] == [0, 1]
    assert len(multiprocessing.active_children()) == 2
    some.close()
    del some
    assert none_left()


def test_a_refused_training_leaves_no_process(tmp_path):
    good = noise_source()
    splits = Splits(name="noise", sources={"train": good, "val": noise_source(6)})
    recipe = Recipe(crop=32, width=0.05, batch=4, epochs=2)
    train(splits, network="A", out=tmp_path / "a", recipe=recipe)  # makes its colours known

    bad = memory_source(classes=good.classes, samples=(*tuple(good)[:-1], Sample(b"bad", 0, "bad.png")))
    bad = replace(bad, fingerprint_of=lambda _: good.fingerprint)
    splits = Splits(name="noise", sources={"train": bad, "val": noise_source(6)})
    with pytest.raises(TooManyBadImagesError):
        train(
            splits,
            network="A",
            out=tmp_path / "b",
            recipe=recipe,
            runtime=Runtime(workers=2),
            tolerance=Tolerance(max_bad=0),
        )
    gc.collect()  # the error had frames, and those the batches
    assert none_left()


COMMAND = "import sys; from verydeep.cli import main; main(sys.argv[1:])"


def seconds_to_end(child):
    """How long a program runs; it may fail, but not hang."""
    started = time.monotonic()
    error = child.ended(SECONDS).stderr
    return time.monotonic() - started, error


def test_a_program_ends_whatever_its_data_set_raises(python):
    """Workers ignore SIGTERM, by which PyTorch and Python end those that are left."""
    script = """
import torch
from torch.utils.data import Dataset
from verydeep.images.workers import single_items

class Raising(Dataset):
    def __len__(self):
        return 40
    def __getitem__(self, index):
        if index == 6:
            raise LookupError("the shelf is empty")
        return torch.zeros(9)

for item in single_items(Raising().__getitem__, range(40), workers=2):
    pass
"""
    seconds, error = seconds_to_end(python(script))
    assert "the shelf is empty" in error
    print(f"{seconds:.1f} s")
    assert seconds < SECONDS


def test_a_program_ends_though_its_error_is_kept(python, tmp_path):
    """Python keeps an error that nobody catches, its frames and all that is in them until it has ended."""
    options = ["--network", "A", "--crop", "32", "--width", "0.1", "--batch", "16", "--learning-rate", "1e6"]
    command = ["train", *options, "--out", tmp_path / "run", "--workers", 2, "--debug"]
    seconds, error = seconds_to_end(python(COMMAND, *command))
    assert error.splitlines()[-1].startswith("verydeep.training.step.DivergedError")
    print(f"{seconds:.1f} s")
    assert seconds < SECONDS


def test_a_thread_may_ask_for_items_too():
    found = []
    thread = threading.Thread(target=lambda: found.extend(items(Numbers(8))))
    thread.start()
    thread.join(30)
    assert found == list(range(8))


def test_what_the_process_does_when_a_child_ends_is_as_before(python):
    """In a process of its own: PyTorch sets its handler once only."""
    script = """
import signal
from torch.utils.data import TensorDataset
import torch
from verydeep.images.workers import single_items

def mine(number, frame):
    calls.append(number)

calls = []
def items():
    return list(single_items(TensorDataset(torch.arange(6)).__getitem__, range(6), workers=2))
assert len(items()) == 6
assert signal.getsignal(signal.SIGCHLD) == signal.SIG_DFL, signal.getsignal(signal.SIGCHLD)
signal.signal(signal.SIGCHLD, mine)
some = single_items(TensorDataset(torch.arange(6)).__getitem__, range(6), workers=2)
next(some)
assert signal.getsignal(signal.SIGCHLD) is mine
list(some)
assert signal.getsignal(signal.SIGCHLD) is mine
"""
    done = python(script).ended()
    assert done.returncode == 0, done.stderr


# the command line


def children(pid):
    """Child processes, the oldest first."""
    found = {}
    for folder in Path("/proc").iterdir():
        if folder.name.isdecimal():
            try:
                fields = (folder / "stat").read_text().rpartition(")")[2].split()
            except OSError:
                continue  # it has ended meanwhile
            if int(fields[1]) == pid:
                found[int(folder.name)] = int(fields[19])
    return sorted(found, key=found.get)


def alive(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="asks Linux for the processes")
def test_a_killed_loader_worker_ends_a_training_that_can_be_resumed(python, tmp_path, in_time):
    size = ["--network", "A", "--crop", "32", "--width", "0.05"]
    options = [*size, "--batch", "32", "--epochs", "2", "--learning-rate", "1e-3"]
    command = [COMMAND, "train", "digits", *options, "--out", tmp_path / "run"]
    process = python(*command, "--workers", 2)
    until = time.monotonic() + 60
    while "epoch 1/" not in process.errors and time.monotonic() < until:
        time.sleep(0.02)
    workers = children(process.pid)[:2]
    os.kill(workers[0], signal.SIGKILL)
    killed = time.monotonic()
    status, rest = process.wait(), process.errors
    seconds = time.monotonic() - killed
    print(f"exit status {status} {seconds:.1f} s after the kill")
    assert status == 1
    in_time(seconds)
    assert "Traceback" not in rest
    last = rest.splitlines()[-1]
    assert last.startswith(f"verydeep: loader worker {workers[0]} was killed by SIGKILL")
    assert f"what was done is saved in {tmp_path / 'run'}" in last
    assert "resume" in last
    assert rest.count("verydeep: ") == 1
    end = time.monotonic() + 5
    while any(map(alive, workers)) and time.monotonic() < end:
        time.sleep(0.05)
    assert not any(map(alive, workers))
    resumed = python(*command, "--resume").ended()
    assert resumed.returncode == 0, resumed.stderr
    assert "resumed at step" in resumed.stderr
    recipe = Recipe(crop=32, width=0.05, batch=32, epochs=2, learning_rate=1e-3)
    undisturbed = load(train("digits", network="A", out=tmp_path / "whole", recipe=recipe)).state_dict()
    after = load(tmp_path / "run").state_dict()
    assert all(torch.equal(after[name], undisturbed[name]) for name in undisturbed)
