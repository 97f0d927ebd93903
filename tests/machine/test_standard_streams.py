"""Standard streams that are closed, and streams whose reader has gone."""

import json
import os
import subprocess
import sys

import pytest

from verydeep.machine.errors import say
from verydeep.presentation.terminal import reporting

DESCRIBED = ["describe", "A", "--json", "described.json"]


@pytest.mark.parametrize(
    ("closed", "words", "status", "said"),
    [
        ("2>&-", ["describe", "Z"], 2, ""),
        (">&-", DESCRIBED, 0, ""),
        ("<&- >&- 2>&-", DESCRIBED, 0, ""),
        (">&-", ["describe", "Z"], 2, "verydeep: unknown network 'Z': choose one of A, A-LRN, B, B-5x5, C, D, E\n"),
    ],
)
def test_what_would_go_into_a_closed_stream_goes_nowhere_else(tmp_path, closed, words, status, said):
    command = ["bash", "-c", f'exec "$@" {closed}', "bash", sys.executable, "-m", "verydeep", *words]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, cwd=tmp_path, env=environment)
    assert (done.returncode, done.stdout, done.stderr) == (status, "", said)
    for file in tmp_path.iterdir():
        assert json.loads(file.read_text())["networks"][0]["network"] == "A"


def test_work_goes_on_when_nobody_reads_its_progress(monkeypatch):
    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(writer, "w") as stderr:  # closing it flushes it, as the end of Python does
        monkeypatch.setattr(sys, "stderr", stderr)
        with reporting("train A", total=2) as report:
            for _ in range(2):
                report.advance(tell=True)
        say("wrote runs/a")
