"""Processes that compute together under torchrun: their ranks, their messages, and the loss of one of them.

Without torchrun there is one process, which asks nobody.
"""

import atexit
import os
import socket
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import TYPE_CHECKING, Any, TypeVar, cast

from verydeep.machine.errors import say
from verydeep.machine.runtime import stop_request
from verydeep.machine.torchrun import under_torchrun
from verydeep.numbers import decimal

if TYPE_CHECKING:
    import torch

_BEAT = 0.5
"""Seconds between two signs of life."""

LOST_AFTER = 60.0
"""Seconds without a sign of life after which a process counts as lost; it may be busy writing a large file."""

_WATCHED = 8
"""How many processes each one watches; as many watch it."""

_PATIENCE = timedelta(days=1)
"""Longest wait for a message from a living process: the first one may be looking through a large source."""

_Value = TypeVar("_Value")

_kept: list[Any] = []
"""The last process group. If DistributedDataParallel were the last to release it, in the traceback of an error, say,
PyTorch would wait for its threads with the interpreter's lock held, and they for the lock. It is released before Python
ends: a thread that asks for the lock after that takes the process down (SIGABRT)."""
atexit.register(_kept.clear)


class LostProcessError(RuntimeError):
    """Another process ended, or does not answer."""


@dataclass(frozen=True, kw_only=True)
class Processes:
    """This process among all."""

    rank: int = 0
    count: int = 1
    beats: Any = field(default=None, repr=False)
    """Store of the signs of life, a counter for each process."""
    names: Sequence[str] = ()
    """Names of all processes, by rank."""
    ended: threading.Event = field(default_factory=threading.Event, repr=False)
    """Set when this process no longer watches others."""

    @property
    def first(self) -> bool:
        """Whether this is the one that writes and reports."""
        return self.rank == 0

    @property
    def several(self) -> bool:
        """Whether there are others."""
        return self.count > 1

    def gathered(self, values: Sequence[float]) -> "torch.Tensor":
        """Gather numbers, float64 [processes, values]; every process must pass the same number of values."""
        import torch
        import torch.distributed as dist

        mine = torch.tensor(values, dtype=torch.float64)
        if not self.several:
            return mine[None]
        everyone = [torch.empty_like(mine) for _ in range(self.count)]
        dist.all_gather(everyone, mine)
        return torch.stack(everyone)

    def all_of(self, value: _Value) -> list[_Value]:
        """Gather a value from all processes, in the order of ranks."""
        import torch.distributed as dist

        if not self.several:
            return [value]
        everyone: list[Any] = [None] * self.count
        dist.all_gather_object(everyone, value)
        return everyone

    def check_alike(self, what: str, value: Callable[[], object]) -> None:
        """Refuse to start where processes differ in `what`; one process alone does not compute the value.

        Raises:
            ValueError: in all processes; it names the first whose value is not that of process 0.
        """
        everyone = self.all_of(value()) if self.several else []
        for rank, its_value in enumerate(everyone):
            if its_value != everyone[0]:
                raise ValueError(f"process {rank} has other {what} than process 0: all machines must have the same")

    def check_none_failed(self, failure: Exception | None) -> None:
        """Tell all processes whether this one failed, and end where any of them did.

        Raises:
            Exception: this process's `failure`, if it has one.
            LostProcessError: another process failed.
        """
        failed = self.all_of(failure is not None)
        if failure is not None:
            raise failure
        if any(failed):
            raise LostProcessError(f"process {failed.index(True)} failed")

    def to_first(self, value: _Value) -> list[_Value] | None:
        """Gather a value from all processes for the first one, in the order of ranks; return None in the others."""
        import torch.distributed as dist

        if not self.several:
            return [value]
        everyone: list[Any] | None = [None] * self.count if self.first else None
        dist.gather_object(value, everyone, dst=0)
        return everyone

    def from_first(self, compute: Callable[[], _Value]) -> _Value:
        """Return in all processes the result of `compute` in the first one; if it raises there, raise that in all."""
        import torch.distributed as dist

        if not self.several:
            return compute()
        result: list[Any] = [None, None]
        if self.first:
            try:
                result[0] = compute()
            except Exception as error:
                result[1] = error
        dist.broadcast_object_list(result, src=0)
        if result[1] is not None:
            raise result[1]
        return cast(_Value, result[0])

    def lost(self) -> str | None:
        """Name the processes that no longer give signs of life, after a few seconds; None if all do."""
        if not self.several:
            return None
        try:
            before = [_beats(self.beats, rank) for rank in range(self.count)]
            time.sleep(6 * _BEAT)
            silent = [r for r in range(self.count) if r != self.rank and _beats(self.beats, r) == before[r]]
            return _told(self, silent)
        except RuntimeError:
            return _keeper(self)


@contextmanager
def joined(device: "torch.device", *, advice: str, known: tuple[type[Exception], ...] = ()) -> Iterator[Processes]:
    """Yield this process among those that torchrun started, joined to them; without torchrun it is alone.

    While the block lasts each process gives signs of life and watches others. One that is silent for `LOST_AFTER`
    seconds ends this process with a line that names it: collective operations would wait for it forever. Messages that
    a lost process left half sent fail in many ways; such an error is reported as the loss of that process, unless it is
    one of the `known` errors, which name their cause themselves. `advice` ends both lines.

    Raises:
        LostProcessError: a process is lost.
    """
    if not under_torchrun():
        yield Processes()
        return
    with _group(device, advice) as processes:
        try:
            yield processes
        except (RuntimeError, OSError) as error:
            with stop_request():  # torchrun asks those that are left to stop, while they find out who is lost
                lost = None if isinstance(error, (*known, LostProcessError)) else processes.lost()
            if lost is None:
                raise
            raise LostProcessError(f"{lost} ended or does not answer; {advice}") from error


@contextmanager
def _group(device: "torch.device", advice: str) -> Iterator[Processes]:
    """Join the process group of torchrun, watch others, and leave when all have ended the block."""
    import torch.distributed as dist
    from torch._C._distributed_c10d import PrefixStore, TCPStore
    from torch.distributed.rendezvous import rendezvous

    store, rank, count = next(rendezvous("env://", timeout=_PATIENCE))
    meeting = _meeting(store, rank, count)
    store = PrefixStore(f"verydeep/{meeting}", store)
    backend = "cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo"
    dist.init_process_group(backend, store=store, rank=rank, world_size=count, timeout=_PATIENCE)
    _kept[:] = [dist.group.WORLD]
    address, port = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
    # Signs of life have a connection of their own: one that the main thread waits on would hold them up.
    connection = TCPStore(address, port, is_master=False, timeout=timedelta(seconds=LOST_AFTER))
    processes = Processes(rank=rank, count=count, beats=PrefixStore(f"verydeep/beats/{meeting}", connection))
    processes.beats.add(f"beat/{rank}", 1)
    # Once everyone's name is there, everyone has given a first sign.
    names = processes.all_of(f"process {rank} (pid {os.getpid()} on {socket.gethostname()})")
    processes = replace(processes, names=names)
    watching = threading.Thread(target=_watch, args=(processes, advice), daemon=True)
    watching.start()
    try:
        yield processes
        processes.all_of(rank)  # nobody takes the store away from one that still works
    finally:
        processes.ended.set()
        # A thread that is still at the store when Python ends takes the process down with it (SIGABRT).
        watching.join(timeout=LOST_AFTER)
        dist.destroy_process_group()


def _meeting(store: Any, rank: int, count: int) -> str:
    """Return a name that only processes that join now know: torchrun's store keeps names from before a restart."""
    mine = uuid.uuid4().hex
    if rank:
        store.set(f"verydeep/comes/{rank}", mine)
        store.wait([f"verydeep/met/{mine}"], _PATIENCE)
        met = bytes(store.get(f"verydeep/met/{mine}")).decode()
        store.set(f"verydeep/has/{met}/{rank}", "")
        return met
    awaited = set(range(1, count))
    while awaited:
        for other in sorted(awaited):
            if store.check([f"verydeep/has/{mine}/{other}"]):
                awaited.discard(other)
            elif store.check([f"verydeep/comes/{other}"]):  # perhaps before the restart: then nobody reads this
                store.set(f"verydeep/met/{bytes(store.get(f'verydeep/comes/{other}')).decode()}", mine)
        time.sleep(_BEAT / 10)
    return mine


def _watch(processes: Processes, advice: str) -> None:
    ended = processes.ended
    others = [(processes.rank + step) % processes.count for step in range(1, min(_WATCHED + 1, processes.count))]
    heard = {other: (0, time.monotonic()) for other in others}
    while not ended.wait(_BEAT):
        try:
            processes.beats.add(f"beat/{processes.rank}", 1)
            for other in others:
                beats = _beats(processes.beats, other)
                if beats != heard[other][0]:
                    heard[other] = (beats, time.monotonic())
            silent = [other for other in others if time.monotonic() - heard[other][1] > LOST_AFTER]
            names = _told(processes, silent)
        except RuntimeError:  # its host is gone
            if ended.wait(LOST_AFTER):
                return
            names = _keeper(processes)
        if names:
            text = f"verydeep: process {processes.rank}: {names} has not answered for {decimal(LOST_AFTER, 0)} s"
            say(f"{text}; {advice}")
            os._exit(1)


def _told(processes: Processes, silent: Sequence[int]) -> str | None:
    """Name the processes that were lost first, as the first to notice noted: the others would miss each other next."""
    names = ", ".join(processes.names[rank] for rank in silent)
    if not names and not processes.beats.check(["lost"]):
        return None
    told = bytes(processes.beats.compare_set("lost", "", names)).decode()
    processes.ended.set()
    if processes.first:
        time.sleep(4 * _BEAT)  # it may hold the store, and the others have yet to read this
    return told


def _keeper(processes: Processes) -> str:
    """Name the process that holds the store."""
    return "torchrun" if os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True" else processes.names[0]


def _beats(store: Any, rank: int) -> int:
    return int(store.add(f"beat/{rank}", 0))
