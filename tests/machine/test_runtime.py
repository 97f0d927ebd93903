"""Devices, precision and signals."""

import os
import signal
from contextlib import suppress

import pytest
import torch

from verydeep import Execution, Runtime
from verydeep.machine.runtime import ended_by_signals, stop_request, torch_device, uses_bf16

CPU = torch.device("cpu")

pytestmark = pytest.mark.usefixtures("unignored_signals")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"precision": "fp8"}, "precision is one of auto, fp32, bf16, not fp8"),
        ({"micro_batch": 0}, "micro_batch must be 1 or more, not 0"),
        ({"image_memory": float("inf")}, "image_memory must be a number of GiB, 0 or more, not inf"),
        ({"save_minutes": 0.0}, "save_minutes must be above 0"),
        ({"save_minutes": float("nan")}, "save_minutes must be above 0"),
    ],
)
def test_values_that_cannot_be_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        Execution(**options)
    with pytest.raises(ValueError, match="workers must be from 0 to 1,024"):
        Runtime(workers=-1)
    with pytest.raises(ValueError, match="device is one of auto, cpu, cuda, mps, not cuda:1"):
        Runtime(device="cuda:1")


def test_bfloat16_is_used_on_request_and_on_cuda():
    assert [uses_bf16(precision, CPU) for precision in ("auto", "fp32", "bf16")] == [False, False, True]


def test_more_processes_than_devices_are_refused(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setenv("WORLD_SIZE", "3")
    monkeypatch.setenv("LOCAL_RANK", "2")
    with pytest.raises(ValueError, match="process 2 of this machine has no CUDA device: start at most 2 here"):
        torch_device("cuda")
    assert torch_device("cpu") == CPU


def test_a_signal_is_noted_and_a_repeated_one_changes_nothing():
    with stop_request() as stop:
        assert stop.signal is None
        for _ in range(3):
            signal.raise_signal(signal.SIGTERM)
        assert stop.signal == signal.SIGTERM


def test_the_second_ctrl_c_interrupts():
    with stop_request() as stop:
        signal.raise_signal(signal.SIGINT)
        assert stop.signal == signal.SIGINT
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_sigterm_ends_what_has_nothing_to_save():
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(SystemExit) as left, ended_by_signals():
        signal.raise_signal(signal.SIGTERM)
    assert left.value.code == 143
    assert signal.getsignal(signal.SIGTERM) is before


class Wrapping:
    """What Python 3.11 does to errors of `__set_name__`, and libraries to those of their callbacks."""

    def __init__(self, number):
        try:
            os.kill(os.getpid(), number)
        except BaseException as error:
            raise RuntimeError("Error calling __set_name__") from error


def swallowing(number):
    with suppress(BaseException):
        os.kill(os.getpid(), number)


@pytest.mark.parametrize("hide", [Wrapping, swallowing])
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_ends_a_block_whatever_a_library_makes_of_it(hide, number):
    before = signal.getsignal(number)
    with pytest.raises((KeyboardInterrupt, SystemExit)) as end, ended_by_signals():
        hide(number)
    assert end.type is KeyboardInterrupt if number == signal.SIGINT else end.value.code == 128 + number
    assert signal.getsignal(number) is before


def test_errors_without_a_signal_are_themselves():
    with pytest.raises(RuntimeError, match="own"), ended_by_signals():
        raise RuntimeError("own")


@pytest.mark.parametrize("block", [stop_request, ended_by_signals])
def test_what_was_ignored_at_the_start_stays_ignored(block):
    """SIGHUP under `nohup`, SIGINT in a job that a script runs in the background."""
    for number in (signal.SIGINT, signal.SIGHUP, signal.SIGQUIT):
        signal.signal(number, signal.SIG_IGN)
    with block() as stop:
        for number in (signal.SIGINT, signal.SIGHUP, signal.SIGQUIT):
            signal.raise_signal(number)
            assert signal.getsignal(number) is signal.SIG_IGN
    assert stop is None or stop.signal is None
