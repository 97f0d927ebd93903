"""Trainings and tests side by side, each as soon as the runs that it needs are there."""

import math
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol, TypeVar

import torch

from verydeep.machine.processes import LostProcessError
from verydeep.machine.runtime import Runtime, Stopped, StopRequest, stop_request, torch_device
from verydeep.machine.threads import usable_cores
from verydeep.machine.torchrun import under_torchrun
from verydeep.networks.arithmetic import describe_architecture
from verydeep.numbers import counted
from verydeep.presentation.terminal import Reporter, reporting
from verydeep.reproduction.grid import Jobs
from verydeep.reproduction.process_pool import process_pool
from verydeep.reproduction.ray_pool import ray_jobs, ray_pool
from verydeep.reproduction.task import Task
from verydeep.reproduction.training_task import TrainingTask
from verydeep.training.job import architecture_of

_SECONDS_BETWEEN_LOOKS = 0.5
_SECONDS_UNTIL_SEEN = 60
"""Until a run that another machine wrote is seen in a folder that both share: network file systems remember for a while
that something was not there."""

Key = TypeVar("Key")


class TaskPool(Protocol):
    """Where tasks are done: in processes of this machine, or on a cluster."""

    def submit(self, task: Task) -> Future[None]:
        """Begin a task when there is room; raise LostProcessError if a process was lost."""

    def result(self, future: Future[None]) -> None:
        """Wait for a task, and raise what ended it; LostProcessError if it was lost."""

    def said(self) -> Iterator[str]:
        """Yield the lines that tasks have said since the last time."""

    def ask_to_stop(self) -> bool:
        """Ask all tasks to save and end; return whether any of them has not."""


def jobs_to_use(asked: Jobs, runtime: Runtime) -> int:
    """Return how many trainings to do at once: by default one for each CUDA device, or as many as the cores allow.

    Small steps gain little from a second thread. D, quarter width, crop 64, batch 32, on two cores of an Intel Xeon
    (Sapphire Rapids): 135 ms on two threads and 167 on one; in bfloat16 80 and 82.

    Raises:
        ValueError: below 1, more than 1 under torchrun, more than there are CUDA devices, or more threads together than
            cores that may be used; or there is no Ray cluster.
    """
    if isinstance(asked, int) and asked < 1:
        raise ValueError(f"jobs must be 1 or more, not {asked}")
    if under_torchrun():
        if asked not in (None, 1):
            raise ValueError("--jobs is for one process: under torchrun all processes work on each training")
        return 1
    if asked == "ray":
        return ray_jobs(runtime)
    device = torch_device(runtime.device).type
    cores, threads = usable_cores(), runtime.threads or 1
    if asked and device == "cpu" and asked * threads > max(cores, asked):
        raise ValueError(f"--jobs {asked} of --threads {threads} each are more than the {cores} cores that may be used")
    if asked and device == "cuda" and asked > torch.cuda.device_count():
        there = counted(torch.cuda.device_count(), "CUDA device")
        raise ValueError(f"--jobs {asked} needs a CUDA device for each training, and this machine has {there}")
    return asked or {"cuda": torch.cuda.device_count(), "cpu": max(1, cores // threads)}.get(device, 1)


def longest_way_first(work: Mapping[Key, float], starts: Mapping[Key, Key | None]) -> list[Key]:
    """Return trainings in the order to begin them: first those on which the most work waits, their own included.

    Otherwise a deep network that comes last keeps one core busy while the others have nothing to do. What waits for a
    training is the longest way of trainings that start from it, one after the other. `starts` has the training that
    each one starts from.
    """
    way = dict(work)
    for _ in work:  # a way has at most all trainings
        for key, start in starts.items():
            if start in way:
                way[start] = max(way[start], work[start] + way[key])
    return sorted(work, key=lambda key: -way[key])


def in_order(tasks: Sequence[TrainingTask]) -> list[TrainingTask]:
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
    return describe_architecture(architecture_of(task.network, task.recipe, task.splits)).macs


def side_by_side(what: str, tasks: Sequence[Task], *, jobs: int, device: torch.device, on_ray: bool = False) -> None:
    """Do tasks, up to `jobs` at once, each as soon as the runs that it needs are there.

    Processes of this machine do them or, `on_ray`, the machines of a Ray cluster.

    Args:
        what: the word for it in the line that shows progress.
        tasks: in the order to begin them.
        jobs: tasks at once.
        device: device of all tasks, or kind of the device that each has for itself.
        on_ray: whether a cluster does them.

    Raises:
        Stopped: SIGINT or SIGTERM; every task kept first what it had done.
        LostProcessError: a process died; every other task kept first what it had done.
        Exception: what ended a task; the others kept first what they had done.
    """
    with (
        stop_request() as stop,
        reporting(what, sum(task.size for task in tasks)) as report,
        ray_pool(tasks[0].runtime) if on_ray else process_pool(jobs, device) as pool,
    ):
        _do(_Work(waiting=list(tasks), jobs=jobs, pool=pool, stop=stop, report=report))


@dataclass(kw_only=True)
class _Work:
    """Tasks that wait and tasks that are being done."""

    waiting: list[Task]
    jobs: int
    pool: TaskPool
    stop: StopRequest
    report: Reporter
    running: dict[Future[None], Task] = field(default_factory=dict)
    finished: list[Task] = field(default_factory=list)
    steps: int = 0
    """Steps that are shown as done."""
    last_end: float = -math.inf
    """When the last task ended."""


def _do(work: _Work) -> None:
    try:
        while work.waiting or work.running:
            for task in [task for task in work.waiting if task.waits_for is None][: work.jobs - len(work.running)]:
                work.waiting.remove(task)
                work.running[work.pool.submit(task)] = task
            if not work.running:
                _wait_until_seen(work)
            done, _ = wait(work.running, timeout=_SECONDS_BETWEEN_LOOKS, return_when=FIRST_COMPLETED)
            _show(work)
            for future in done:
                task = work.running.pop(future)
                work.pool.result(future)
                work.finished.append(task)
                work.last_end = time.monotonic()
            if work.stop.signal is not None:
                raise _stopped(work.stop.signal)
    except BaseException as error:
        while work.pool.ask_to_stop():
            time.sleep(_SECONDS_BETWEEN_LOOKS)
            _show(work)
        if isinstance(error, LostProcessError) and work.stop.signal is not None:
            raise _stopped(work.stop.signal) from None
        raise
    finally:
        _show(work)


def _wait_until_seen(work: _Work) -> None:
    """Wait for the files of a task that has ended, where nothing else can be done.

    Raises:
        ValueError: they would have been seen by now.
    """
    if time.monotonic() - work.last_end > _SECONDS_UNTIL_SEEN:
        stuck = work.waiting[0]
        raise ValueError(f"{stuck.name} cannot start: {stuck.waits_for} was not trained")
    time.sleep(_SECONDS_BETWEEN_LOOKS)


def _stopped(number: int) -> Stopped:
    return Stopped(number, "stopped, and saved: repeat the command to continue")


def _show(work: _Work) -> None:
    """Print the lines of the tasks, and how many steps of all tasks are done."""
    for line in work.pool.said():
        work.report.say(line)
    done = {task.name: task.done for task in work.running.values()}
    now = ", ".join(f"{task.name} {done[task.name]}/{task.size}" for task in work.running.values())
    steps = sum(done.values()) + sum(task.size for task in work.finished)
    finished, total = len(work.finished), len(work.waiting) + len(work.running) + len(work.finished)
    work.report.advance(steps - work.steps, figures={"done": f"{finished}/{total}", "now": now})
    work.steps = steps
