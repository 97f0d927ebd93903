"""What the command writes to a terminal, wherever a test reads it: nothing that acts on the terminal but colours."""

import re
import subprocess

import pytest

_COLOURS = re.compile(r"\x1b\[[0-9;]*m")
_ACTING = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069]|\r(?!\n)")


def check_harmless(text):
    """Nothing that the command writes to a terminal acts on it, but for colours of our own."""
    if isinstance(text, bytes):
        text = text.decode(errors="replace")
    # PyTorch's own message about shared memory ends with a NUL, which no terminal acts on.
    acting = _ACTING.search(_COLOURS.sub("", text or "").replace("\0", ""))
    assert acting is None, f"control character {acting[0]!r} in {text[max(0, acting.start() - 200) :][:400]!r}"


@pytest.fixture(autouse=True)
def _harmless_output(monkeypatch):
    """Check what tests read of the command's output, in this process and from those that they start."""
    read, run = pytest.CaptureFixture.readouterr, subprocess.run

    def checked(capture):
        found = read(capture)
        for text in found:
            check_harmless(text)
        return found

    def run_checked(command, *arguments, **options):
        done = run(command, *arguments, **options)
        if any(str(word).rpartition("/")[2] == "verydeep" for word in command):
            check_harmless(done.stderr)
            check_harmless(done.stdout)
        return done

    monkeypatch.setattr(pytest.CaptureFixture, "readouterr", checked)
    monkeypatch.setattr(subprocess, "run", run_checked)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item, call):
    """Check what a test left unread when it ends."""
    report = yield
    if report.passed:
        try:
            check_harmless(report.capstdout + report.capstderr)
        except AssertionError as error:
            report.outcome, report.longrepr = "failed", str(error)
    return report
