"""Processes of this machine that train and test, each with its part of the cores or a device of its own."""

import multiprocessing
import os
import signal
import sys
from collections.abc import Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from io import TextIOBase
from multiprocessing.queues import Queue
from queue import Empty

import torch

from verydeep.machine.orphans import end_with_parent
from verydeep.machine.processes import LostProcessError
from verydeep.machine.threads import threads_each
from verydeep.reproduction.task import Task, run_task


def refuse_to_begin_again() -> None:
    """End a process that runs the script of its parent once more, and so would begin the experiment that it is for.

    Python does that in every new process (spawn), before the process can work, with what stands in a script outside of
    functions.

    Raises:
        SystemExit: this is such a process; its message says how to write the script.
    """
    if getattr(multiprocessing.current_process(), "_inheriting", False):  # so multiprocessing itself asks
        raise SystemExit(
            "verydeep.reproduce trains in processes of their own, which run the script that calls it once more: put "
            "the call below if __name__ == '__main__': (or pass jobs=1)"
        )


@contextmanager
def process_pool(jobs: int, device: torch.device) -> Iterator["ProcessPool"]:
    """Start processes as they are needed, and end them after the block."""
    context = multiprocessing.get_context("spawn")
    lines: Queue[str] = context.Queue()
    devices: Queue[int] = context.Queue()
    for number in range(jobs):
        devices.put(number)
    prepared = (jobs, threads_each(jobs), device.type, devices, lines)
    with ProcessPoolExecutor(jobs, mp_context=context, initializer=_begin, initargs=prepared) as executor:
        try:
            yield ProcessPool(executor=executor, lines=lines)
        finally:
            executor.shutdown(cancel_futures=True)


@dataclass(frozen=True, kw_only=True)
class ProcessPool:
    """Processes that train and test: a `TaskPool`."""

    executor: ProcessPoolExecutor
    lines: "Queue[str]"

    def submit(self, task: Task) -> Future[None]:
        """Begin a task when a process is free.

        Raises:
            LostProcessError: a process died.
        """
        with _lost_in_words():
            return self.executor.submit(_run, task)

    def result(self, future: Future[None]) -> None:
        """Wait for a task.

        Raises:
            LostProcessError: a process died.
            Exception: what ended the task.
        """
        with _lost_in_words():
            future.result()

    def said(self) -> Iterator[str]:
        """Yield the lines that tasks have said since the last time."""
        with suppress(Empty):
            while True:
                yield self.lines.get_nowait()

    def ask_to_stop(self) -> bool:
        """Ask all processes to save and end; return whether any of them is still there.

        One that has nothing to do dies at once, and may hold the lock of the queue of tasks. Then all tasks count as
        lost while others still save; these wait for that lock afterwards, until they are asked again.
        """
        there = [process for process in list((self.executor._processes or {}).values()) if process.is_alive()]
        for process in there:
            with suppress(ProcessLookupError, ValueError):
                process.terminate()
        return bool(there)


@contextmanager
def _lost_in_words() -> Iterator[None]:
    try:
        yield
    except BrokenProcessPool:
        raise LostProcessError(
            "a process of --jobs died (if it said nothing, memory may have run out: use fewer): what was done is "
            "saved; repeat the command to continue"
        ) from None


class _Lines(TextIOBase):
    """A standard error whose lines go to another process."""

    def __init__(self, lines: "Queue[str]") -> None:
        self.name, self._lines, self._begun = "", lines, ""

    def write(self, text: str) -> int:
        *whole, self._begun = (self._begun + text).split("\n")
        for line in whole:
            self._lines.put(f"[{self.name}] {line}" if self.name else line)
        return len(text)


def _begin(jobs: int, threads: int, device: str, devices: "Queue[int]", lines: "Queue[str]") -> None:
    """Prepare a process: its threads, its device, and the way of its lines to the first process.

    Ctrl-C reaches the whole process group; the first process asks the others to stop. If that one is killed, they stop
    by themselves.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    end_with_parent()
    lines.cancel_join_thread()
    sys.stderr = _Lines(lines)
    torch.set_num_threads(threads)
    os.environ["LOCAL_WORLD_SIZE"] = str(jobs)  # by which each divides the memory
    if device == "cuda":
        visible = os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",")
        number = devices.get()
        os.environ["CUDA_VISIBLE_DEVICES"] = visible[number] if any(visible) else str(number)


def _run(task: Task) -> None:
    if isinstance(sys.stderr, _Lines):
        sys.stderr.name = task.name
    run_task(task)
