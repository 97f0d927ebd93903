"""Items of a data set from worker processes, in order; the death of a worker is reported with its cause."""

import atexit
import multiprocessing
import multiprocessing.connection
import multiprocessing.queues
import os
import resource
import signal
import sys
import threading
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache, partial, partialmethod
from itertools import tee
from typing import Any

import torch
from torch.utils.data import DataLoader, Dataset

from verydeep.images.decode import UnusableImageError
from verydeep.machine.errors import one_line, say
from verydeep.machine.runtime import STOPPING, leave_signals_to_the_main_process
from verydeep.numbers import counted

_MORE_SHARED_MEMORY = "use --workers 0, or a larger /dev/shm (docker run --shm-size)"

_HINTS = {
    signal.SIGKILL: "the system does that when memory runs out: use fewer --workers",
    signal.SIGBUS: f"shared memory is full: {_MORE_SHARED_MEMORY}",
}

_OPEN_FILES, _OPEN_FILES_A_WORKER = 32, 16
"""Open files of this process: its own and, for each worker, two batches of six tensors on their way and its pipes."""

_SHARED_BYTES = 2**20
"""Shared memory without which workers are not started."""

_NO_MORE_PROCESSES = "the system allows no more processes or threads"
_MORE_PROCESSES = "use --workers 0, or raise ulimit -u"


class WorkerDiedError(RuntimeError):
    """A worker process ended unexpectedly."""


@dataclass(frozen=True)
class _Items(Dataset[Any]):
    """Adapts a function to the DataLoader."""

    make: Callable[[Any], Any]

    def __getitem__(self, index: Any) -> Any:
        try:
            return self.make(index)
        except UnusableImageError as refusal:
            return refusal


def from_workers(make: Callable[[Any], Any], *, workers: int, **options: Any) -> Generator[Any]:
    """Yield the items of `make(index)` by a DataLoader, in pinned memory on CUDA machines.

    Without workers this process makes the items; it also does where the system has no room for workers, and says so in
    a line. The refusal of an image that cannot be used is an item of its own.

    Close it where an error may keep it alive (`contextlib.closing`): until then its processes wait.

    Raises:
        WorkerDiedError: between two items, at most a few seconds after the death.
    """
    loader = partial(
        DataLoader,
        _Items(make),
        pin_memory=torch.cuda.is_available(),
        worker_init_fn=_begin_worker,
        **options,
    )
    others = set(multiprocessing.active_children())
    with _keeping_sigchld(), _holding_signals():
        items = _started(loader, _possible(workers), others)
    mine = [process for process in multiprocessing.active_children() if process not in others]
    end, unregister = partial(_end, mine), atexit.unregister  # this module may be gone before an iterator left alone
    atexit.register(end)  # before multiprocessing would terminate them, which they ignore, and wait for it
    try:
        while True:
            try:
                _check(mine)
                item = next(items)
            except StopIteration:
                return
            except (RuntimeError, OSError, EOFError):
                # Data that a dead worker has half sent fails in many ways, even before the worker counts as dead.
                closed = multiprocessing.connection.wait([worker.sentinel for worker in mine], timeout=1)
                for worker in mine:
                    if worker.sentinel in closed:
                        worker.join()
                _check(mine)
                raise
            yield item
    finally:
        unregister(end)
        end()


def _started(loader: partial[Any], workers: int, others: set[Any]) -> Iterator[Any]:
    """Start so many workers, or none where the system allows no more processes or threads, and return the items."""
    twice = {name: tee(samples) for name, samples in loader.keywords.items() if name == "batch_sampler"}
    first, again = ({name: both[which] for name, both in twice.items()} for which in range(2))
    hook, sys.unraisablehook = sys.unraisablehook, lambda _: None  # PyTorch cannot end what it has half started
    try:
        return iter(loader(num_workers=workers, **first))
    except (BlockingIOError, RuntimeError) as error:
        if not workers or not (isinstance(error, BlockingIOError) or "new thread" in str(error)):
            raise
        _end([process for process in multiprocessing.active_children() if process not in others])
        _say_once(f"{_NO_MORE_PROCESSES}, so there are no workers: {_MORE_PROCESSES} ({one_line(error)})")
    finally:
        sys.unraisablehook = hook
    return iter(loader(num_workers=0, **again))  # also the items that the workers were to make first


def _begin_worker(number: int) -> None:
    """Prepare a worker: it ignores signals, and dies where it cannot send an item, which Python would drop."""
    leave_signals_to_the_main_process(number)
    queue: Any = multiprocessing.queues.Queue
    queue._on_queue_feeder_error = staticmethod(_unsent)
    queue._start_thread = partialmethod(_start_sending, start=queue._start_thread)


def _start_sending(queue: Any, *, start: Callable[[Any], None]) -> None:
    """Start the thread that sends a worker's items, or die with a line where the system gives none."""
    try:
        start(queue)
    except RuntimeError as error:
        say(f"{_NO_MORE_PROCESSES}: {_MORE_PROCESSES} ({one_line(error)})")
        os._exit(1)


def _unsent(error: Exception, _item: Any) -> None:
    """Exit: with the signal of full shared memory if that is the cause, so that the main process can explain it."""
    if "shared memory" in str(error):
        signal.pthread_kill(threading.get_ident(), signal.SIGBUS)
    say(one_line(error))
    os._exit(1)


def _possible(workers: int) -> int:
    """Return the number of workers, or 0 where they could not send items, which makes PyTorch fail in many ways."""
    if not workers:
        return 0
    most, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if 0 <= most < _OPEN_FILES + workers * _OPEN_FILES_A_WORKER:
        _say_once(
            f"{counted(most, 'open file')} are too few for {counted(workers, 'worker')}, so there are no workers: use "
            "--workers 0, or raise ulimit -n"
        )
        return 0
    try:
        torch.empty(_SHARED_BYTES, dtype=torch.uint8).share_memory_()
    except (RuntimeError, OSError) as error:
        _say_once(f"shared memory is full, so there are no workers: {_MORE_SHARED_MEMORY} ({one_line(error)})")
        return 0
    return workers


@cache
def _say_once(line: str) -> None:
    """Say it in this process once, not at every start of workers."""
    say(line)


def single_items(make: Callable[[int], Any], indices: Sequence[int], *, workers: int) -> Generator[Any]:
    """Yield `make(index)` for each index, in order (`from_workers`)."""
    return from_workers(make, workers=workers, sampler=indices, batch_size=None, collate_fn=_same)


def _same(item: Any) -> Any:
    """Return the item unchanged (a lambda could not be sent to a worker)."""
    return item


@contextmanager
def _holding_signals() -> Iterator[None]:
    """Hold signals to the whole process group: a worker would die of one while it starts, before it ignores them.

    Workers inherit the mask; in this process signals arrive when the block has ended.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, STOPPING)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@contextmanager
def _keeping_sigchld() -> Iterator[None]:
    """Keep PyTorch from handling SIGCHLD: on a worker's death it would raise anywhere, even in the middle of a step.

    Without its handler it notices a death within five seconds of waiting for data, when the weights are whole.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    previous = signal.getsignal(signal.SIGCHLD)
    try:
        yield
    finally:
        signal.signal(signal.SIGCHLD, previous)


def _end(workers: list[Any]) -> None:
    """Kill the workers that are still there: they hold nothing, but may wait for a lock whose holder has died."""
    while workers:
        worker = workers.pop()
        if worker.exitcode is None:
            worker.kill()


def _check(workers: list[Any]) -> None:
    """Raise WorkerDiedError if a worker has ended by accident."""
    dead = next((worker for worker in workers if worker.exitcode), None)
    if dead is None:
        return
    if dead.exitcode > 0:
        raise WorkerDiedError(f"loader worker {dead.pid} ended with exit status {dead.exitcode}")
    number = -dead.exitcode
    name = signal.Signals(number).name if number in set(signal.Signals) else f"signal {number}"
    hint = _HINTS.get(signal.Signals(number)) if number in set(signal.Signals) else None
    raise WorkerDiedError(f"loader worker {dead.pid} was killed by {name}" + (f" ({hint})" if hint else ""))
