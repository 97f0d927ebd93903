"""What the processes of a server take: memory and time of the processor, by /proc of Linux."""

import os
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from glob import glob
from pathlib import Path

LOOKS_EVERY = 0.5
"""Seconds between looks at a server's memory."""


def processes_below(pid: int) -> list[int]:
    """Return a process and all that it has started, by /proc; what ends meanwhile is left out."""
    found = [pid]
    for parent in found:
        for children in glob(f"/proc/{parent}/task/*/children"):
            with suppress(OSError):
                found += map(int, Path(children).read_text().split())
    return found


def memory_now(pid: int) -> float:
    """Return the memory of a server's processes together, in MiB; a page that n processes share is 1 / n of each."""
    total = 0
    for each in processes_below(pid):
        with suppress(OSError):  # it has ended
            share = re.search(r"(?m)^Pss:\s+(\d+) kB", Path(f"/proc/{each}/smaps_rollup").read_text())
            total += int(share[1]) if share else 0
    return total / 1024


@contextmanager
def memory_watched(pid: int) -> Iterator[list[float]]:
    """Look at a server's memory within the block; the list that is yielded gets all that was seen."""
    seen, ended = [memory_now(pid)], threading.Event()

    def watch() -> None:
        while not ended.wait(LOOKS_EVERY):
            seen.append(memory_now(pid))

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        yield seen
    finally:
        ended.set()
        watcher.join()


def processor_seconds(pid: int) -> float:
    """Return the seconds of the processor that a server's processes have used so far."""
    ticks = 0
    for each in processes_below(pid):
        with suppress(OSError):  # it has ended
            numbers = Path(f"/proc/{each}/stat").read_text().rpartition(")")[2].split()
            ticks += int(numbers[11]) + int(numbers[12])  # in user mode, in the kernel
    return ticks / os.sysconf("SC_CLK_TCK")
