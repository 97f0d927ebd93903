"""Memory that this process may use: the machine's, or a container's limit; and the reuse of freed memory."""

import ctypes
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

_OF_THIS_PROCESS = Path("/proc/self/cgroup")
_MOUNTED = Path("/sys/fs/cgroup")

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3
"""Parameters of glibc's `mallopt`: free bytes above which memory goes back to the system, and bytes from which a block
gets pages of its own, which go back when it is freed."""

_LARGEST_MMAP_THRESHOLD = 32 * 2**20
"""More is refused."""

_ALL = 2**31 - 1
"""The largest number that `mallopt` takes."""


@contextmanager
def freed_memory_kept() -> Iterator[None]:
    """Keep memory that is freed within the block for the next allocations, and give it back to the system afterwards.

    By default large blocks go back at once, and the system clears new pages for the next ones: 8,000 a step of D
    (quarter width, crop 64, batch 32, bfloat16, one thread of an Intel Xeon, Sapphire Rapids), a sixth of its time.
    Nothing happens where the C library is not glibc, which has these settings.
    """
    glibc = ctypes.CDLL(None)
    if not hasattr(glibc, "malloc_trim"):
        yield
        return
    glibc.mallopt(_MMAP_THRESHOLD, _LARGEST_MMAP_THRESHOLD)
    glibc.mallopt(_TRIM_THRESHOLD, _ALL)
    try:
        yield
    finally:
        glibc.mallopt(_TRIM_THRESHOLD, 2 * _LARGEST_MMAP_THRESHOLD)  # as it would have come to be by itself
        glibc.malloc_trim(0)


def memory_bytes(of_this_process: Path = _OF_THIS_PROCESS, mounted: Path = _MOUNTED) -> int:
    """Return the bytes of the machine's memory, or of the least limit of Linux' control groups that this process is in.

    Both versions of control groups are asked: `memory.max` of the group and of all above it, and
    `memory.limit_in_bytes`. A container may see its own group as the topmost one, so that is asked too.
    """
    machine = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return min([machine, *_limits(of_this_process, mounted)])


def _limits(of_this_process: Path, mounted: Path) -> Iterator[int]:
    lines = []
    with suppress(OSError):  # there are none but on Linux
        lines = of_this_process.read_text().splitlines()
    for line in lines:
        _, controllers, group = line.split(":", 2)
        if controllers and "memory" not in controllers.split(","):
            continue
        top, name = (mounted / "memory", "memory.limit_in_bytes") if controllers else (mounted, "memory.max")
        place = top / group.strip("/")
        for folder in (place, *place.parents):
            with suppress(OSError, ValueError):  # ValueError: the word max
                yield int((folder / name).read_text())
            if folder == top:
                break
