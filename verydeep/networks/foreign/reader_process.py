"""Arrays of Keras' and MATLAB's files, read by `reader_program` in a process that can be lost."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Literal

from torch import Tensor

from verydeep.networks.foreign import reader_program
from verydeep.networks.foreign.named_arrays import allowed_bytes

PATIENCE = 60.0
"""Seconds that any file may take to be read; large ones may take longer."""

_BYTES_PER_SECOND = 10_000_000
"""Speed of the slowest disk."""


def read_apart(kind: Literal["keras", "matlab", "numpy"], path: Path) -> dict[str, Tensor]:
    """Return the arrays that `reader_program` reads from a file, in the order of their names.

    Raises:
        ValueError: another kind of file, or a damaged one.
    """
    from safetensors.torch import load

    size = path.stat().st_size
    program = [sys.executable, "-P", reader_program.__file__, kind, str(path), str(allowed_bytes(size))]
    try:
        done = subprocess.run(
            program,
            capture_output=True,
            timeout=PATIENCE + size / _BYTES_PER_SECOND,
            env={**os.environ, "OPENBLAS_NUM_THREADS": "1"},
        )
    except subprocess.TimeoutExpired as error:
        raise ValueError("it is damaged: its reader does not finish") from error
    errors = done.stderr.decode(errors="replace")
    if done.returncode == reader_program.REFUSED:
        raise ValueError(errors)
    if done.returncode:
        last = next(iter(reversed(errors.splitlines())), f"status {done.returncode}")
        raise ValueError(f"it is damaged: its reader failed ({last})")
    arrays = load(done.stdout)
    return {name: arrays[name] for name in sorted(arrays)}
