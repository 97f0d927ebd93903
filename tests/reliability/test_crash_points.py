"""A process that ends at any moment of a save leaves the complete old or the complete new.

What it would leave is copied before and after every call that changes files: that is what other processes see, and
what is there after an exit that runs no `finally`. After a power cut, what was not synced is not there either.
"""

import os
import shutil
import sys
from collections import Counter
from itertools import groupby

import pytest
import torch

from verydeep.machine import atomic
from verydeep.networks.architecture import Architecture
from verydeep.networks.vgg import VGG
from verydeep.runs.model import Model, load_model, save_model
from verydeep.runs.record import is_finished
from verydeep.training import checkpoint
from verydeep.training.checkpoint import Checkpoint, Progress

CALLS = {"write", "serialize_file", "fsync", "rename", "replace", "mkdir", "unlink", "rmdir", "open", "close"}
"""Calls that change files, by the names of their functions in C."""


def made(step, seen=0):
    generator = torch.Generator().manual_seed(100 * step + seen)
    weights, momentum = ({name: torch.randn(50, 9, generator=generator) for name in "ab"} for _ in range(2))
    return Checkpoint(weights=weights, momentum=momentum, progress=Progress(step=step, seen=seen))


def model(seed):
    torch.manual_seed(seed)
    net = VGG(Architecture(network="A", classes=2, crop=32, width=0.02))
    return Model(net=net, classes=("dark", f"light {seed}"), scale="256", flip=True)


def save_checkpoints(*checkpoints):
    return lambda folder: [checkpoint.save(folder / "checkpoints", made(*which)) for which in checkpoints]


def saved_model(seed):
    return lambda folder: save_model(model(seed), folder / "model")


def nothing(folder):
    pass


def checkpoint_there(folder, tiny):
    found, passed_over = checkpoint.load_latest(folder / "checkpoints")
    assert passed_over == []
    return None if found is None else tiny.digest(found)


def model_there(folder, tiny):
    if not is_finished(folder):
        return None
    found = load_model(folder)
    return tiny.digest(Checkpoint(weights=found.net.state_dict(), momentum={}, progress=Progress())), found.classes


CASES = {
    "the first checkpoint": (nothing, save_checkpoints((3,)), checkpoint_there),
    "one more checkpoint": (save_checkpoints((1,), (2,)), save_checkpoints((3,)), checkpoint_there),
    "a checkpoint in the place of another": (save_checkpoints((1,), (2,)), save_checkpoints((2, 5)), checkpoint_there),
    "a checkpoint in the place of the only one": (save_checkpoints((2,)), save_checkpoints((2, 5)), checkpoint_there),
    "a model": (nothing, saved_model(1), model_there),
    "a model in the place of another": (saved_model(1), saved_model(2), model_there),
}


def copies(act, folder, into, monkeypatch, *, power_cut):
    """Act, and copy `folder` before and after every call."""
    before = {path.stat().st_ino for path in folder.rglob("*")}
    synced, made = set(), []

    def copy(file, to):
        shutil.copyfile(file, to)
        if power_cut and os.stat(file).st_ino not in before | synced:
            os.truncate(to, os.stat(file).st_size // 2)

    def told(_frame, event, call):
        if event in ("c_call", "c_return") and call.__name__ in CALLS:
            made.append(into / str(len(made)))
            shutil.copytree(folder, made[-1], copy_function=copy)

    def fsync(descriptor):  # the real one takes long and makes no difference here
        synced.add(os.fstat(descriptor).st_ino)

    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", fsync)
        previous = sys.getprofile()
        sys.setprofile(told)
        try:
            act(folder)
        finally:
            sys.setprofile(previous)
    return made


@pytest.fixture(scope="module")
def counted(figure):
    """Count the moments of each kind of end."""
    counts = Counter()
    yield counts
    told = ", ".join(f"{count} {kind}" for kind, count in counts.items())
    figure(3, "crash points", f"{told} in {len(CASES)} kinds of save: the whole old or the whole new")


@pytest.mark.parametrize("power_cut", [False, True])
@pytest.mark.parametrize("case", CASES)
def test_at_any_moment_the_complete_old_or_the_complete_new_is_there(
    tiny, counted, tmp_path, monkeypatch, case, power_cut
):
    begin, act, there = CASES[case]
    run, moments = tmp_path / "run", tmp_path / "moments"
    run.mkdir()
    begin(run)
    old = there(run, tiny)
    left = copies(act, run, moments, monkeypatch, power_cut=power_cut)
    new = there(run, tiny)
    assert old != new
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)
    monkeypatch.setattr(os, "getpid", lambda: 1)  # another process resumes, and that one has ended
    monkeypatch.setattr(atomic, "is_running", lambda process: False)
    kinds = []
    for moment in left:
        found = there(moment, tiny)
        listed = sorted(str(path.relative_to(moment)) for path in moment.rglob("*") if path.is_dir())
        assert found in (old, new), f"neither is there at {moment.name} of {len(left)}: {listed}"
        kinds.append("old" if found == old else "new")
        act(moment)
        assert there(moment, tiny) == new
        assert tiny.strays(moment) == []
    assert [kind for kind, _ in groupby(kinds)] == ["old", "new"]
    assert len(left) >= 20
    counted["power cuts" if power_cut else "exits"] += len(left)
