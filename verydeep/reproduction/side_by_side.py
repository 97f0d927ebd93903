"""Trainings side by side: each in a process of its own, with its part of the cores or a device of its own."""

import multiprocessing
import os
import signal
import sys
from collections.abc import Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from io import TextIOBase
from multiprocessing.queues import Queue
from pathlib import Path
from queue import Empty
from typing import TypeVar

import torch

from verydeep.machine.processes import LostProcessError, under_torchrun
from verydeep.machine.runtime import Runtime, Stopped, StopRequest, stop_request, torch_device
from verydeep.machine.threads import usable_cores
from verydeep.networks.architecture import Architecture
from verydeep.networks.arithmetic import describe_architecture
from verydeep.presentation.terminal import Reporter, reporting
from verydeep.reproduction.training_task import TrainingTask, train_task
from verydeep.runs.record import read_metrics

_SECONDS_BETWEEN_LOOKS = 0.5

Key = TypeVar("Key")


def jobs_to_use(asked: int | None, runtime: Runtime) -> int:
    """Return how many trainings to do at once: by default one for each CUDA device, or as many as the cores allow.

    Small steps gain little from a second thread. D, quarter width, crop 64, batch 32, on two cores of an Intel Xeon
    (Sapphire Rapids): 135 ms on two threads and 167 on one; in bfloat16 80 and 82.

    Raises:
        ValueError: below 1, more than 1 under torchrun, or more threads together than cores that may be used.
    """
    if asked is not None and asked < 1:
        raise ValueError(f"jobs must be 1 or more, not {asked}")
    if under_torchrun():
        if asked not in (None, 1):
            raise ValueError("--jobs is for one process: under torchrun all processes work on each training")
        return 1
    device = torch_device(runtime.device).type
    cores, threads = usable_cores(), runtime.threads or 1
    if device == "cpu" and (asked or 1) * threads > max(cores, asked or 1):
        raise ValueError(f"--jobs {asked} of --threads {threads} each are more than the {cores} cores that may be used")
    return asked or {"cuda": torch.cuda.device_count(), "cpu": cores // threads}.get(device, 1)


def threads_each(jobs: int) -> int:
    """Return the threads of each of several trainings at once: together as many as cores that may be used."""
    return max(1, usable_cores() // jobs)


def longest_way_first(work: Mapping[Key, float], starts: Mapping[Key, Key | None]) -> list[Key]:
    """Return trainings so that those come first on which the most work waits: their own and the longest way from them.

    Otherwise a deep network that comes last keeps one core busy while the others have nothing to do. `starts` tells
    which training each one starts from.
    """
    way = dict(work)
    for _ in work:  # a way is no longer than all trainings
        for key, start in starts.items():
            if start in way:
                way[start] = max(way[start], work[start] + way[key])
    return sorted(work, key=lambda key: -way[key])


def _in_order(tasks: Sequence[TrainingTask]) -> list[TrainingTask]:
    """Return the tasks in the order to begin them: one seed after the other, so that results come seed by seed."""
    by_folder = {task.out: task for task in tasks}
    work = {
        out: _macs(task) * float(task.recipe.epochs * len(task.splits.source("train")))
        for out, task in by_folder.items()
    }
    starts = {out: None if task.recipe.start is None else Path(task.recipe.start) for out, task in by_folder.items()}
    return sorted((by_folder[out] for out in longest_way_first(work, starts)), key=lambda task: task.recipe.seed)


def _macs(task: TrainingTask) -> int:
    """Return the multiply-adds of an image."""
    recipe, classes = asdict(task.recipe), len(task.splits.classes)
    of_boxes = task.splits.regression
    architecture = Architecture.of_recipe(recipe, network=task.network, classes=classes, boxes=of_boxes)
    return describe_architecture(architecture).macs


def train_side_by_side(tasks: Sequence[TrainingTask], *, jobs: int, device: torch.device) -> None:
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
    prepared = (jobs, threads_each(jobs), device.type, devices, lines)
    with (
        stop_request() as stop,
        reporting("train", sum(task.recipe.epochs for task in tasks)) as report,
        ProcessPoolExecutor(jobs, mp_context=context, initializer=_begin, initargs=prepared) as pool,
    ):
        _do(_Work(waiting=_in_order(tasks), jobs=jobs, pool=pool, stop=stop, report=report, lines=lines))


@dataclass(kw_only=True)
class _Work:
    """Trainings that wait and trainings that are being done."""

    waiting: list[TrainingTask]
    jobs: int
    pool: ProcessPoolExecutor
    stop: StopRequest
    report: Reporter
    lines: "Queue[str]"
    running: dict[Future[None], TrainingTask] = field(default_factory=dict)
    finished: list[TrainingTask] = field(default_factory=list)
    epochs: int = 0
    """Epochs that are shown as done."""


def _do(work: _Work) -> None:
    try:
        while work.waiting or work.running:
            for task in [task for task in work.waiting if task.ready][: work.jobs - len(work.running)]:
                work.waiting.remove(task)
                work.running[work.pool.submit(_train, task)] = task
            if not work.running:
                stuck = work.waiting[0]
                raise ValueError(f"{stuck.name} cannot start: {stuck.recipe.start} was not trained")
            done, _ = wait(work.running, timeout=_SECONDS_BETWEEN_LOOKS, return_when=FIRST_COMPLETED)
            _show(work)
            for future in done:
                task = work.running.pop(future)
                future.result()
                work.finished.append(task)
            if work.stop.signal is not None:
                raise _stopped(work.stop.signal)
    except BrokenProcessPool:
        if work.stop.signal is not None:
            raise _stopped(work.stop.signal) from None
        raise LostProcessError(
            "a process that trains ended without a word (if memory ran out, use fewer --jobs): what was done is saved, "
            "the same command goes on"
        ) from None
    finally:
        _stop_all(work)
        _show(work)


def _stopped(number: int) -> Stopped:
    return Stopped(number, "stopped, and saved: the same command goes on")


def _stop_all(work: _Work) -> None:
    """Ask all processes to save and end, until they have."""
    processes = list((work.pool._processes or {}).values())
    while any(not future.done() for future in work.running):
        for process in processes:
            with suppress(ProcessLookupError, ValueError):
                process.terminate()
        wait(work.running, timeout=_SECONDS_BETWEEN_LOOKS)
    work.pool.shutdown(cancel_futures=True)


def _show(work: _Work) -> None:
    """Print what the trainings say, and how many epochs of all trainings are done."""
    with suppress(Empty):
        while True:
            work.report.say(work.lines.get_nowait())
    done = {task.name: len(read_metrics(task.out)) for task in work.running.values()}
    now = ", ".join(f"{task.name} {done[task.name]}/{task.recipe.epochs}" for task in work.running.values())
    epochs = sum(done.values()) + sum(task.recipe.epochs for task in work.finished)
    finished, total = len(work.finished), len(work.waiting) + len(work.running) + len(work.finished)
    work.report.advance(epochs - work.epochs, figures={"done": f"{finished}/{total}", "now": now})
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


def _begin(jobs: int, threads: int, device: str, devices: "Queue[int]", lines: "Queue[str]") -> None:
    """Prepare a process: its threads, its device, and that what it says goes to the first process.

    Ctrl-C reaches the whole process group; the first process asks the others to stop.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    lines.cancel_join_thread()
    sys.stderr = _Lines(lines)
    torch.set_num_threads(threads)
    os.environ["LOCAL_WORLD_SIZE"] = str(jobs)  # by which each divides the memory
    if device == "cuda":
        visible = os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",")
        number = devices.get()
        os.environ["CUDA_VISIBLE_DEVICES"] = visible[number] if any(visible) else str(number)


def _train(task: TrainingTask) -> None:
    if isinstance(sys.stderr, _Lines):
        sys.stderr.name = task.name
    train_task(task)
