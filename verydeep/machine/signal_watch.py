"""A thread that sees signals at once, while the main thread computes and cannot run handlers of Python's."""

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

_END = b"\0"
"""Written to end the thread; no signal has that number."""

_LONGEST_ACT = 1.0
"""Seconds to wait for the thread: its callback may print to a terminal that hangs."""


@contextmanager
def signals_seen_by(act: Callable[[int], None]) -> Iterator[None]:
    """Call `act(number)` in a thread of its own for each signal that Python handles while the block runs.

    Blocks can be nested: the outer one sees the signals too. Outside the main thread, where Python allows no
    handlers, nothing is seen.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    seen, written = os.pipe()
    os.set_blocking(written, False)
    outer = signal.set_wakeup_fd(written, warn_on_full_buffer=False)
    watch = threading.Thread(target=_watch, args=(seen, outer, act), daemon=True, name="signals")
    watch.start()
    try:
        yield
    finally:
        signal.set_wakeup_fd(outer, warn_on_full_buffer=False)
        os.write(written, _END)  # a process that was forked may hold the pipe open
        os.close(written)
        watch.join(_LONGEST_ACT)  # it writes to the outer pipe, whose number another file may have later


def _watch(seen: int, outer: int, act: Callable[[int], None]) -> None:
    while (number := os.read(seen, 1)) not in (_END, b""):
        if outer >= 0:
            with suppress(OSError):  # full, or closed meanwhile
                os.write(outer, number)
        with suppress(OSError):  # nobody reads what it prints: the next signal is still seen
            act(number[0])
    os.close(seen)
