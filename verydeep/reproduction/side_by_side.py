"""Trainings side by side: each in a process of its own, with its part of the cores or a device of its own."""

import multiprocessing
import os
import signal
import sys
from collections.abc import Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import suppress
from dataclasses import dataclass, field
from io import TextIOBase
from multiprocessing.queues import Queue
from pathlib import Path
from queue import Empty

import torch

from verydeep.images.sources.splits import Splits
from verydeep.images.tolerance import Tolerance
from verydeep.machine.processes import LostProcessError
from verydeep.machine.runtime import Execution, Runtime, Stopped, StopRequest, stop_request
from verydeep.presentation.terminal import Reporter, reporting
from verydeep.runs.record import is_finished, read_metrics
from verydeep.training.loop import train
from verydeep.training.recipe import Recipe

_SECONDS_BETWEEN_LOOKS = 0.5


@dataclass(frozen=True, kw_only=True)
class Task:
    """A training to be done."""

    name: str
    splits: Splits
    network: str
    out: Path
    recipe: Recipe
    runtime: Runtime
    execution: Execution | None
    tolerance: Tolerance

    @property
    def ready(self) -> bool:
        """Whether the run that it starts from is there."""
        return self.recipe.start is None or is_finished(self.recipe.start)


def jobs_here(device: torch.device) -> int:
    """Return how many trainings are fastest side by side: one for each core, or CUDA device, that may be used.

    Small steps gain little from a second thread. D, quarter width, crop 64, batch 32, on two cores of an Intel Xeon
    (Sapphire Rapids): 135 ms on two threads and 167 on one; in bfloat16 80 and 82.
    """
    if device.type == "cuda":
        return torch.cuda.device_count()
    return usable_cores() if device.type == "cpu" else 1


def usable_cores() -> int:
    """Return the cores that this process may use, by its affinity and the limits of its control group."""
    import joblib

    return int(joblib.cpu_count())


def train_side_by_side(tasks: Sequence[Task], *, jobs: int, device: torch.device) -> None:
    """Do trainings, up to `jobs` at once, each as soon as the run that it starts from is there.

    Raises:
        Stopped: SIGINT or SIGTERM; every training saved a checkpoint first.
        LostProcessError: a process ended without a word; every other training saved a checkpoint first.
        Exception: what ended a training, as `train` raises it; the others saved a checkpoint first.
    """
    context = multiprocessing.get_context("spawn")
    lines: Queue[str] = context.Queue()
    devices: Queue[int] = context.Queue()
    for number in range(jobs):
        devices.put(number)
    threads = max(1, usable_cores() // jobs)
    with (
        stop_request() as stop,
        reporting("train", sum(task.recipe.epochs for task in tasks)) as report,
        ProcessPoolExecutor(
            jobs, mp_context=context, initializer=_begin, initargs=(threads, device.type, devices, lines)
        ) as pool,
    ):
        _do(_Work(tasks=list(tasks), jobs=jobs, pool=pool, stop=stop, report=report, lines=lines))


@dataclass(kw_only=True)
class _Work:
    """Trainings that wait and trainings that are being done."""

    tasks: list[Task]
    jobs: int
    pool: ProcessPoolExecutor
    stop: StopRequest
    report: Reporter
    lines: "Queue[str]"
    running: dict[Future[None], Task] = field(default_factory=dict)
    finished: int = 0
    epochs: int = 0
    """Epochs that are shown as done."""


def _do(work: _Work) -> None:
    waiting, total = list(work.tasks), len(work.tasks)
    try:
        while waiting or work.running:
            for task in [task for task in waiting if task.ready][: work.jobs - len(work.running)]:
                waiting.remove(task)
                work.running[work.pool.submit(_train, task)] = task
            done, _ = wait(work.running, timeout=_SECONDS_BETWEEN_LOOKS, return_when=FIRST_COMPLETED)
            _show(work, total)
            for future in done:
                task = work.running.pop(future)
                future.result()
                work.finished += 1
            if work.stop.signal is not None:
                raise Stopped(work.stop.signal, "stopped, and saved: the same command goes on")
    except BrokenProcessPool:
        raise LostProcessError(
            "a process that trains ended without a word (if memory ran out, use fewer --jobs): what was done is saved, "
            "the same command goes on"
        ) from None
    finally:
        _stop_all(work)
        _show(work, total)


def _stop_all(work: _Work) -> None:
    """Ask all processes to save and end, until they have."""
    processes = list((work.pool._processes or {}).values())
    while any(not future.done() for future in work.running):
        for process in processes:
            with suppress(ProcessLookupError, ValueError):
                process.terminate()
        wait(work.running, timeout=_SECONDS_BETWEEN_LOOKS)
    work.pool.shutdown(cancel_futures=True)


def _show(work: _Work, total: int) -> None:
    """Print what the trainings say, and how many epochs of all trainings are done."""
    with suppress(Empty):
        while True:
            work.report.say(work.lines.get_nowait())
    done = {task.name: len(read_metrics(task.out)) for task in work.tasks}
    epochs = sum(task.recipe.epochs if is_finished(task.out) else done[task.name] for task in work.tasks)
    now = ", ".join(f"{task.name} {done[task.name]}/{task.recipe.epochs}" for task in work.running.values())
    work.report.advance(epochs - work.epochs, figures={"done": f"{work.finished}/{total}", "now": now})
    work.epochs = epochs


class _Lines(TextIOBase):
    """A standard error whose lines go to another process."""

    def __init__(self, lines: "Queue[str]") -> None:
        self.name, self._lines, self._begun = "", lines, ""

    def write(self, text: str) -> int:
        *whole, self._begun = (self._begun + text).split("\n")
        for line in whole:
            self._lines.put(f"[{self.name}] {line}" if self.name else line)
        return len(text)


def _begin(threads: int, device: str, devices: "Queue[int]", lines: "Queue[str]") -> None:
    """Prepare a process: its threads, its device, and that what it says goes to the first process.

    Ctrl-C reaches the whole process group; the first process asks the others to stop.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    lines.cancel_join_thread()
    sys.stderr = _Lines(lines)  # type: ignore[assignment]
    torch.set_num_threads(threads)
    if device == "cuda":
        visible = os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",")
        number = devices.get()
        os.environ["CUDA_VISIBLE_DEVICES"] = visible[number] if any(visible) else str(number)


def _train(task: Task) -> None:
    if isinstance(sys.stderr, _Lines):
        sys.stderr.name = task.name
    train(
        task.splits,
        network=task.network,
        out=task.out,
        recipe=task.recipe,
        runtime=task.runtime,
        execution=task.execution,
        tolerance=task.tolerance,
        resume=True,
    )


