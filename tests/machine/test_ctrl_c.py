"""Ctrl-C while the main thread computes and no handler of Python's can run."""

import signal
import subprocess
import sys

import pytest

COMPUTING = """
import hashlib
from verydeep.machine.runtime import ended_by_signals, stop_request
with ended_by_signals(), stop_request("again to quit"):
    print("ready", flush=True)
    hashlib.pbkdf2_hmac("sha256", b"", b"", 200_000_000)
"""
"""A minute in one call."""


@pytest.mark.usefixtures("unignored_signals")
def test_the_first_is_answered_at_once_and_the_second_does_not_wait_for_a_computation():
    with subprocess.Popen(
        [sys.executable, "-c", COMPUTING], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout.readline() == "ready\n"
        process.send_signal(signal.SIGINT)
        assert process.stderr.readline() == "again to quit\n"
        process.send_signal(signal.SIGINT)
        assert process.wait(10) == 130  # a second where the machine has nothing else to do
        assert process.stderr.read() == "verydeep: stopped\n"
