"""Device, workers and signals: where and how a computation runs. Nothing here changes the science."""

import os
import re
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal, get_args

from verydeep.machine.errors import say
from verydeep.machine.signal_watch import signals_seen_by
from verydeep.machine.torchrun import rank_here, under_torchrun
from verydeep.numbers import number

if TYPE_CHECKING:
    import torch

Device = Literal["auto", "cpu", "cuda", "mps"]
Precision = Literal["auto", "fp32", "bf16"]
TestPrecision = Literal["fp32", "bf16"]
"""Precision of a network that is tested or exported; what is faster is not chosen for it, since its scores differ."""

FULL_PRECISION: TestPrecision = "fp32"
PRECISION_NAMES = {"fp32": "float32", "bf16": "bfloat16", "int8": "INT8"}
"""Precisions as sentences call them."""


_MOST_WORKERS = 1024
"""Each is a process with a PyTorch of its own, so more would exhaust the memory."""

_ENDING = (signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT)
"""Signals that ask a process to end: those of batch systems, of a lost terminal, and of Ctrl-\\."""

STOPPING = frozenset({signal.SIGINT, *_ENDING})
"""All signals after which work is saved."""

_SHOW_CURSOR = "\x1b[?25h"
"""Terminal code for the cursor, which a bar hides."""

_SECONDS_TO_LEAVE = 0.5
"""How long the process may take to clean up after a second Ctrl-C."""


@dataclass(frozen=True, kw_only=True)
class Runtime:
    """Choices that leave results as they are, up to rounding."""

    device: Device = "auto"
    """Device of the network; `auto` takes CUDA, else MPS, else the CPU."""

    workers: int = 0
    """Processes that decode and crop; 0 does it in the main process."""

    threads: int | None = None
    """Threads that compute on a CPU, by default one for each core that may be used; a training takes fewer where a
    short measurement shows that they are as fast."""

    def __post_init__(self) -> None:
        """Refuse impossible choices with a ValueError."""
        if self.device not in get_args(Device):
            raise ValueError(f"device is one of {', '.join(get_args(Device))}, not {self.device}")
        if not 0 <= self.workers <= _MOST_WORKERS:
            raise ValueError(f"workers must be from 0 to {number(_MOST_WORKERS)}, not {self.workers}")
        if self.threads is not None and self.threads < 1:
            raise ValueError(f"threads must be 1 or more, not {self.threads}")


@dataclass(frozen=True, kw_only=True)
class Execution:
    """How the steps of a training are computed; results stay as they are, up to rounding."""

    precision: Precision = "auto"
    """`bf16`: products in bfloat16, weights, sums and the loss in float32; `auto` takes that on CUDA devices that have
    it, and on CPUs where a short measurement shows that it is faster."""

    compile: bool = False
    """Compile the network (torch.compile), which takes a while first."""

    micro_batch: int | None = None
    """Images that a process computes at once; a step adds up several of them. By default as many as memory holds."""

    fc_parallel: bool = False
    """Under torchrun: each process keeps a part of fc6, fc7 and fc8, whose gradients are then never exchanged."""

    image_memory: float = 2.0
    """GiB for decoded images, in all processes that load; each process decodes those that fit once, and the rest again
    in every epoch. Workers keep training images alone."""

    save_minutes: float = 15.0
    """Minutes between checkpoints within an epoch; at the end of each epoch there is one anyway."""

    keep_checkpoints: bool = False
    """Keep the checkpoints of a training that has ended, for a look at its momentum; nothing goes on from them."""

    norms_every: int | None = None
    """Record the norms of every layer's activations and gradients in the first step and then once in so many."""

    def __post_init__(self) -> None:
        """Refuse impossible choices with a ValueError."""
        if self.precision not in get_args(Precision):
            raise ValueError(f"precision is one of {', '.join(get_args(Precision))}, not {self.precision}")
        if self.micro_batch is not None and self.micro_batch < 1:
            raise ValueError(f"micro_batch must be 1 or more, not {self.micro_batch}")
        if not 0 <= self.image_memory < float("inf"):
            raise ValueError(f"image_memory must be a number of GiB, 0 or more, not {self.image_memory}")
        if not self.save_minutes > 0:
            raise ValueError(f"save_minutes must be above 0, not {self.save_minutes}")
        if self.norms_every is not None and self.norms_every < 1:
            raise ValueError(f"norms_every must be 1 or more, not {self.norms_every}")
        if self.norms_every is not None and self.fc_parallel:
            raise ValueError("norms are of whole layers: leave out norms_every, or fc_parallel")


def torch_device(device: Device) -> "torch.device":
    """Return the device to compute on; of several CUDA devices under torchrun, this process's own.

    Raises:
        ValueError: this machine has no such device, several processes cannot use it, or there are more processes than
            devices.
    """
    import torch

    available = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    if device == "auto":
        chosen = next(kind for kind, there in available.items() if there)
    elif available[device]:
        chosen = device
    else:
        raise ValueError(f"no {device} device on this machine: choose cpu, or auto")
    if chosen == "mps" and under_torchrun():
        raise ValueError("several processes cannot compute on mps: add --device cpu")
    local_rank = rank_here()
    if chosen != "cuda" or local_rank is None:
        return torch.device(chosen)
    if local_rank >= torch.cuda.device_count():
        most = torch.cuda.device_count()
        raise ValueError(f"process {local_rank} of this machine has no CUDA device: start at most {most} here")
    torch.cuda.set_device(local_rank)
    return torch.device("cuda", local_rank)


def uses_bf16(precision: Precision, device: "torch.device") -> bool:
    """Return whether products are computed in bfloat16 on a device; on a CPU, `auto` means float32."""
    if precision == "auto":
        return device.type == "cuda" and has_bfloat16(device)
    return precision == "bf16"


def has_bfloat16(device: "torch.device") -> bool:
    """Return whether a device multiplies in bfloat16 itself; of MPS it is taken for granted."""
    import torch

    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    return device.type != "cpu" or multiplies_in_bfloat16()


def multiplies_in_bfloat16() -> bool:
    """Return whether this processor multiplies in bfloat16 by oneDNN, without which PyTorch may have been built."""
    import torch

    return torch.backends.mkldnn.is_available() and torch.ops.mkldnn._is_mkldnn_bf16_supported()


def _processor_flags() -> str:
    """Return the processor's own list of what it can do, by which products below float32 differ; `` if unknown."""
    with suppress(OSError):
        found = re.search(r"^(?:flags|Features)\s*: (.+)$", Path("/proc/cpuinfo").read_text(errors="replace"), re.M)
        return found[1] if found else ""
    return ""


def reduced_precision(precision: str, device: "torch.device") -> tuple[str, ...]:
    """Return what results depend on that are below float32: precision and, on a CPU, what it can do; else nothing."""
    if precision == FULL_PRECISION:
        return ()
    return (precision, _processor_flags()) if device.type == "cpu" else (precision,)


def autocast(device: "torch.device", *, bf16: bool) -> AbstractContextManager[object]:
    """Compute products in bfloat16 within the block if `bf16`, else as they come."""
    import torch

    return torch.autocast(device.type, torch.bfloat16) if bf16 else nullcontext()


@contextmanager
def in_float32() -> Iterator[None]:
    """Compute in all digits of float32: CUDA devices otherwise drop three of them in convolutions."""
    import torch

    with kernels_kept():
        torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
        yield


@contextmanager
def kernels_kept() -> Iterator[None]:
    """Compute with the same choice of CUDA's kernels after the block as before it."""
    import torch

    matmul, cudnn = torch.backends.cuda.matmul, torch.backends.cudnn
    before = matmul.allow_tf32, cudnn.allow_tf32, cudnn.benchmark
    try:
        yield
    finally:
        matmul.allow_tf32, cudnn.allow_tf32, cudnn.benchmark = before


class Stopped(Exception):
    """A signal asked the work to end; the work done so far has been saved."""

    def __init__(self, number: int, message: str) -> None:
        super().__init__(number, message)  # both, so that it can be sent to another process
        self.signal = number

    def __str__(self) -> str:
        return str(self.args[1])

    @property
    def exit_code(self) -> int:
        """The shell's status: 130 for SIGINT, 143 for SIGTERM, 129 for SIGHUP, 131 for SIGQUIT."""
        return 128 + self.signal


@dataclass(kw_only=True)
class StopRequest:
    """A request to stop, filled in by the first signal."""

    signal: int | None = None


@contextmanager
def stop_request(answer: str | None = None) -> Iterator[StopRequest]:
    """Note SIGINT (Ctrl-C), SIGTERM, SIGHUP and SIGQUIT instead of dying of them, so that the block can save and leave.

    A signal that is ignored already stays so: SIGHUP under `nohup`, SIGINT in a job that a script runs in the
    background. If there is an `answer`, the first Ctrl-C prints it at once, whatever is computed. A second Ctrl-C acts
    as always; batch systems repeat SIGTERM, which changes nothing. Outside the main thread, where Python allows no
    handlers, nothing is noted.
    """
    request = StopRequest()
    previous: dict[int, object] = {}

    def note(number: int, _frame: object) -> None:
        request.signal = request.signal or number
        if number == signal.SIGINT and number in previous:
            signal.signal(number, previous.pop(number))  # type: ignore[arg-type]

    answers = [] if answer is None else [answer]

    def reply(number: int) -> None:
        if number == signal.SIGINT and answers:
            say(answers.pop())

    watch = signals_seen_by(reply) if answers else nullcontext()
    with _handled_by(note, _unignored(signal.SIGINT, *_ENDING), previous), watch:
        yield request


@contextmanager
def ended_by_signals() -> Iterator[None]:
    """Let SIGTERM, SIGHUP and SIGQUIT end the block as an exit does, so that its files and processes are cleaned up.

    The status is 128 and the signal's number: 143 for SIGTERM. They and Ctrl-C do so even where a library turns a
    handler's exception into an error of its own, or swallows it. A second Ctrl-C ends the process within a second, even
    if the main thread computes something long: files appear whole or not at all, so nothing is torn by that.
    """
    received: list[int] = []
    seen: list[int] = []
    left = threading.Event()

    def end_at_the_second(number: int) -> None:
        seen.append(number)
        if seen.count(signal.SIGINT) > 1 and not left.wait(_SECONDS_TO_LEAVE):
            _end_now()

    def leave(number: int, _frame: object) -> None:
        received.append(number)
        raise KeyboardInterrupt if number == signal.SIGINT else SystemExit(128 + number)

    with signals_seen_by(end_at_the_second), _handled_by(leave, _unignored(signal.SIGINT, *_ENDING), {}):
        try:
            yield
        except Exception:
            if not received:
                raise
        finally:
            left.set()
    if received:
        raise KeyboardInterrupt if received[0] == signal.SIGINT else SystemExit(128 + received[0])


def _end_now() -> None:
    """End this process and those that it started by multiprocessing, without cleaning up."""
    import multiprocessing

    try:
        for child in multiprocessing.active_children():
            child.kill()
        if sys.stderr.isatty():
            sys.stderr.write(_SHOW_CURSOR)
        say("verydeep: stopped")
    finally:
        os._exit(128 + signal.SIGINT)


def _unignored(*numbers: signal.Signals) -> tuple[signal.Signals, ...]:
    """Return the signals that ask to end; not those that `nohup` or a shell has told this process to ignore."""
    return tuple(number for number in numbers if signal.getsignal(number) is not signal.SIG_IGN)


@contextmanager
def _handled_by(
    handler: Callable[[int, object], None], numbers: Sequence[int], previous: dict[int, object]
) -> Iterator[None]:
    """Let `handler` handle signals within the block; `previous` holds the handlers to restore after it."""
    with suppress(ValueError):  # outside the main thread
        for number in numbers:
            previous[number] = signal.signal(number, handler)
    try:
        yield
    finally:
        while previous:
            number, before = previous.popitem()
            if before is not None:  # else no handler of Python's, which cannot be restored
                signal.signal(number, before)  # type: ignore[arg-type]


def leave_signals_to_the_main_process(_worker: int = 0) -> None:
    """Ignore signals to stop in a worker, since they reach the whole group before the main process has saved."""
    for stopping in STOPPING:
        signal.signal(stopping, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, STOPPING)
