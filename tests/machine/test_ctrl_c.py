"""Ctrl-C while the main thread computes and no handler of Python's can run."""

import signal
import subprocess
import sys
import time
from queue import SimpleQueue

import pytest

from verydeep.machine.signal_watch import signals_seen_by

COMPUTING = """
import hashlib
from verydeep.machine.runtime import ended_by_signals, stop_request
with ended_by_signals(), stop_request("again to quit"):
    print("ready", flush=True)
    hashlib.pbkdf2_hmac("sha256", b"", b"", 200_000_000)
"""
"""A minute in one call."""


@pytest.fixture
def computing(unignored_signals):
    """A process whose main thread has begun to compute."""
    with subprocess.Popen(
        [sys.executable, "-c", COMPUTING], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout.readline() == "ready\n"
        yield process


def test_the_first_is_answered_at_once_and_the_second_does_not_wait_for_a_computation(computing):
    computing.send_signal(signal.SIGINT)
    assert computing.stderr.readline() == "again to quit\n"
    computing.send_signal(signal.SIGINT)
    assert computing.wait(10) == 130  # a second where the machine has nothing else to do
    assert computing.stderr.read() == "verydeep: stopped\n"


def test_the_second_does_not_wait_either_where_nobody_reads_the_answer_to_the_first(computing):
    """As in `train 2>&1 | tee log`, where the first Ctrl-C ends `tee` as well."""
    computing.stderr.close()
    give_up = time.monotonic() + 10
    while computing.poll() is None and time.monotonic() < give_up:
        computing.send_signal(signal.SIGINT)
        time.sleep(0.1)
    assert computing.poll() == 130


@pytest.mark.usefixtures("unignored_signals")
def test_a_signal_is_seen_after_one_whose_answer_failed():
    seen = SimpleQueue()

    def answer(number):
        seen.put(number)
        raise OSError("the disk is full that standard error is on")

    with signals_seen_by(answer):
        for _ in range(2):
            with pytest.raises(KeyboardInterrupt):
                signal.raise_signal(signal.SIGINT)
            assert seen.get(timeout=10) == signal.SIGINT
