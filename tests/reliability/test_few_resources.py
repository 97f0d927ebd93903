"""Where the system has no room for workers, the work goes on without them, and that is said."""

import re

import pytest

from verydeep import train

OPTIONS = "--network A --crop 32 --width 0.05 --batch 4 --learning-rate 1e-3 --scale 256:512 --seed 5 --epochs 2"

FEW_FILES = """
import resource
resource.setrlimit(resource.RLIMIT_NOFILE, (32, 32))
"""
NO_SHARED_MEMORY = """
import torch
def refused(tensor):
    raise RuntimeError("unable to allocate shared memory(shm) for file </torch_1>: No space left on device (28)")
torch.Tensor.share_memory_ = refused
"""
NO_PROCESS = """
import os
fork, forked = os.fork, []
def second_is_refused():
    forked.append(0)
    if len(forked) > 1:
        raise BlockingIOError(11, "Resource temporarily unavailable")
    return fork()
os.fork = second_is_refused
"""
NO_THREAD = """
import threading
import torch
start = threading.Thread.start
def refused(thread):
    if thread.name == "QueueFeederThread":  # after the first batches were chosen
        raise RuntimeError("can't start new thread")
    start(thread)
threading.Thread.start = refused
"""
COMMAND = """
import sys
from verydeep.cli import main
main(sys.argv[1:])
"""
SAID = {
    FEW_FILES: "32 open files are too few for 2 workers, so there are no workers: use --workers 0, or raise ulimit -n",
    NO_PROCESS: "the system allows no more processes or threads, so there are no workers: use --workers 0, or raise",
    NO_THREAD: "the system allows no more processes or threads, so there are no workers: use --workers 0, or raise",
    NO_SHARED_MEMORY: "shared memory is full, so there are no workers: use --workers 0, or a larger /dev/shm",
}
FULL_IN_A_WORKER = """
import torch
share = torch.UntypedStorage._share_fd_cpu_
def refused(storage, *arguments, **options):
    if torch.utils.data.get_worker_info() is not None:
        raise RuntimeError("unable to allocate shared memory(shm) for file </torch_1>: No space left on device (28)")
    return share(storage, *arguments, **options)
torch.UntypedStorage._share_fd_cpu_ = refused
"""


@pytest.fixture(scope="module")
def whole(tiny, source, tmp_path_factory):
    return train(source, network="A", out=tmp_path_factory.mktemp("whole") / "run", recipe=tiny.RECIPE)


@pytest.mark.parametrize(
    "limit", [FEW_FILES, NO_PROCESS, NO_SHARED_MEMORY, pytest.param(NO_THREAD, marks=pytest.mark.battery)]
)
def test_a_training_does_without_workers(python, tmp_path, source, whole, limit):
    out = tmp_path / "run"
    child = python(limit + COMMAND, "train", source, "--out", out, *OPTIONS.split(), "--workers", 2)
    assert child.wait() == 0, child.errors
    assert child.errors.count(SAID[limit]) == 1
    assert "Traceback" not in child.errors
    for model in ("model", "best"):
        assert (out / model / "model.safetensors").read_bytes() == (whole / model / "model.safetensors").read_bytes()


def test_shared_memory_that_ends_in_an_epoch_is_one_line(python, tmp_path, source):
    """Python would drop the item that a worker cannot send, and the training would wait for it for ever."""
    child = python(
        FULL_IN_A_WORKER + COMMAND, "train", source, "--out", tmp_path / "run", *OPTIONS.split(), "--workers", 2
    )
    assert child.wait() == 1, child.errors
    assert "SIGBUS (shared memory is full: use --workers 0, or a larger /dev/shm" in child.errors.splitlines()[-1]
    assert "Traceback" not in child.errors


NO_THREAD_IN_A_WORKER = NO_THREAD.replace('":', '" and torch.utils.data.get_worker_info() is not None:')


@pytest.mark.battery
def test_a_worker_that_gets_no_thread_says_so_without_a_traceback(python, tmp_path, source):
    out = tmp_path / "run"
    child = python(NO_THREAD_IN_A_WORKER + COMMAND, "train", source, "--out", out, *OPTIONS.split(), "--workers", 2)
    assert child.wait() == 1
    assert "the system allows no more processes or threads: use --workers 0, or raise ulimit -u" in child.errors
    assert "Traceback" not in child.errors
    assert re.search(r"verydeep: loader worker \d+ ended with exit status 1", child.errors)
