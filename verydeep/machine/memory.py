"""Memory that this process may use: the machine's, or less where it runs in a container with a limit."""

import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

_OF_THIS_PROCESS = Path("/proc/self/cgroup")
_MOUNTED = Path("/sys/fs/cgroup")


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
