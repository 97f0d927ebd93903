"""A process whose parent was killed is asked to save, and ends."""

import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import pytest

import verydeep

SCRIPT = """
import multiprocessing, os, signal, sys, time
from pathlib import Path

from verydeep.machine.orphans import end_with_parent


def work(folder):
    asked = []
    signal.signal(signal.SIGTERM, lambda number, _: asked.append(number))
    end_with_parent()
    (folder / "child").write_text(str(os.getpid()))
    while not asked:
        time.sleep(0.01)
    (folder / "saved").touch()
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    time.sleep(60)  # as for a next task


if __name__ == "__main__":
    folder = Path(sys.argv[1])
    multiprocessing.get_context("spawn").Process(target=work, args=(folder,)).start()
    until = time.monotonic() + 60
    while not (folder / "child").exists() and time.monotonic() < until:
        time.sleep(0.01)
    time.sleep(0.1)
    assert not (folder / "saved").exists()
    os.kill(os.getpid(), signal.SIGKILL)
"""


def runs(process):
    """Return whether a process is there and has not ended, though nobody may have noticed."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(") ")[2][0] not in "ZX"
    except FileNotFoundError:
        return False


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="asks Linux for the processes")
def test_a_process_whose_parent_is_killed_saves_and_ends(tmp_path):
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    environment = {**os.environ, "PYTHONPATH": str(Path(verydeep.__file__).parents[1])}
    parent = subprocess.run([sys.executable, script, tmp_path], env=environment, check=False)
    child, until = int((tmp_path / "child").read_text()), time.monotonic() + 60
    while runs(child) and time.monotonic() < until:
        time.sleep(0.02)
    ended = not runs(child)
    with suppress(ProcessLookupError):
        os.kill(child, signal.SIGKILL)
    assert (parent.returncode, ended, (tmp_path / "saved").exists()) == (-signal.SIGKILL, True, True)
