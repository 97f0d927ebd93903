"""Standard streams that are closed, or whose reader has gone: the null device takes their place."""

import os
import sys
from typing import IO


def open_closed_streams() -> None:
    """Open the null device where standard input, output or error is closed (`>&-`); a file would get its descriptor."""
    for descriptor, (name, mode) in enumerate({"stdin": "r", "stdout": "w", "stderr": "w"}.items()):
        try:
            os.fstat(descriptor)
        except OSError:
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)  # opened as the lowest number that is free
        if getattr(sys, name) is None:
            setattr(sys, name, os.fdopen(descriptor, mode, encoding="utf-8", closefd=False))


def silence(stream: IO[str]) -> None:
    """Let a stream whose reader has gone lead to the null device: Python flushes it once more in the end."""
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, stream.fileno())
    os.close(null)
