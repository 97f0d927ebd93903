"""Where and how a computation runs: device, workers, signals. Nothing in it changes the science."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    import torch

Device = Literal["auto", "cpu", "cuda", "mps"]


@dataclass(frozen=True, kw_only=True)
class Runtime:
    """Choices that leave results as they are, up to rounding."""

    device: Device = "auto"
    """Where the network runs; `auto` takes CUDA, else MPS, else the CPU."""

    workers: int = 0
    """Processes that decode and crop; 0 does it in the main process."""

    def __post_init__(self) -> None:
        """Raises ValueError where a choice cannot be."""
        if self.workers < 0:
            raise ValueError(f"workers must be 0 or more, not {self.workers}")


def torch_device(device: Device) -> "torch.device":
    """The device to compute on.

    Raises:
        ValueError: the one asked for is not on this machine.
    """
    import torch

    available = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    if device == "auto":
        return torch.device(next(kind for kind, there in available.items() if there))
    if not available[device]:
        raise ValueError(f"no {device} device on this machine: choose cpu, or auto")
    return torch.device(device)


class Stopped(Exception):
    """A signal asked the work to end, and what was done so far has been saved."""

    def __init__(self, number: int, message: str) -> None:
        super().__init__(message)
        self.signal = number

    @property
    def exit_code(self) -> int:
        """By the shell's convention: 130 for SIGINT, 143 for SIGTERM."""
        return 128 + self.signal


@dataclass(kw_only=True)
class StopRequest:
    """Filled in by the first SIGINT or SIGTERM."""

    signal: int | None = None


@contextmanager
def stop_request() -> Iterator[StopRequest]:
    """Notes SIGINT (Ctrl-C) and SIGTERM instead of dying of them, so that the block can save and leave.

    A second one acts as it always does. Outside the main thread, where Python allows no handlers, nothing is noted.
    """
    request = StopRequest()
    previous: dict[int, object] = {}

    def note(number: int, _frame: object) -> None:
        request.signal = number
        _restore(previous)

    try:
        for number in (signal.SIGINT, signal.SIGTERM):
            previous[number] = signal.signal(number, note)
    except ValueError:
        pass
    try:
        yield request
    finally:
        _restore(previous)


def leave_signals_to_the_main_process(_worker: int = 0) -> None:
    """For worker processes: Ctrl-C and a terminated process group reach them too, before the main one has saved."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)


def _restore(handlers: dict[int, object]) -> None:
    while handlers:
        number, handler = handlers.popitem()
        signal.signal(number, handler)  # type: ignore[arg-type]
