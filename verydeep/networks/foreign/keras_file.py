"""Keras' files: legacy `.h5` of weights or whole models, and Keras 3's `.weights.h5` and `.keras`."""

import os
import subprocess
import sys
from pathlib import Path

from verydeep.machine.libraries import library
from verydeep.networks.foreign import keras_process
from verydeep.networks.foreign.named_arrays import NamedArrays, allowed_bytes

PATIENCE = 60.0
"""Seconds that any file may take to be read, and large ones longer."""

_BYTES_PER_SECOND = 10_000_000
"""That the slowest disk gives."""


def read_keras(path: Path) -> NamedArrays:
    """The arrays of a Keras file, `LAYER.kernel` and `LAYER.bias`, in the order of the layers.

    Raises:
        ValueError: not Keras', damaged, layers with other arrays than a kernel and a bias, or h5py is missing.
    """
    from safetensors.torch import load

    library("h5py", needed_by="it")
    size = path.stat().st_size
    program = [sys.executable, "-P", keras_process.__file__, str(path), str(allowed_bytes(size))]
    try:
        done = subprocess.run(
            program,
            capture_output=True,
            timeout=PATIENCE + size / _BYTES_PER_SECOND,
            env={**os.environ, "OPENBLAS_NUM_THREADS": "1"},
        )
    except subprocess.TimeoutExpired as error:
        raise ValueError("it is damaged: the HDF5 library does not come to an end with it") from error
    told = done.stderr.decode(errors="replace")
    if done.returncode == keras_process.REFUSED:
        raise ValueError(told)
    if done.returncode:
        last = next(iter(reversed(told.splitlines())), f"status {done.returncode}")
        raise ValueError(f"it is damaged: the HDF5 library failed with it ({last})")
    arrays = load(done.stdout)
    return NamedArrays(arrays={name.partition("/")[2]: arrays[name] for name in sorted(arrays)}, layout="keras")
