"""The most memory of one piece of work, against the system's own count and the sizes of what was allocated."""

import os
import resource

import numpy as np
import pytest
import torch

from verydeep.machine import peak_memory as measured
from verydeep.machine.peak_memory import begin_peak, peak_memory

CPU = torch.device("cpu")
MANY, SOME = 400_000_000, 100_000_000


def held():
    """Return the bytes that the process has now."""
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def use(size):
    np.ones(size, np.uint8)


@pytest.fixture
def fresh(monkeypatch):
    """As in a process that has done no work."""
    monkeypatch.setattr(measured, "_peak", measured._Peak())


def test_work_before_is_not_in_it(fresh):
    begin_peak(CPU)
    use(MANY)
    assert peak_memory(CPU) > MANY
    begin_peak(CPU)
    before = held()
    use(SOME)
    assert peak_memory(CPU) == pytest.approx(before + SOME, abs=50_000_000)


def test_it_is_the_peak_that_the_system_names():
    begin_peak(CPU)
    with open("/proc/self/status") as status:
        kilobytes = next(int(line.split()[1]) for line in status if line.startswith("VmHWM"))
    assert peak_memory(CPU) == pytest.approx(1024 * kilobytes, rel=0.01)


def test_where_it_cannot_be_told_apart_only_the_first_work_has_one(fresh, monkeypatch, tmp_path):
    for name in ("_CLEAR", "_STATUS"):
        monkeypatch.setattr(measured, name, tmp_path / "no folder" / "no file")
    begin_peak(CPU)
    use(MANY)
    assert MANY < peak_memory(CPU) == 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    begin_peak(CPU)
    assert peak_memory(CPU) is None
