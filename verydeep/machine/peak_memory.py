"""The most memory that one piece of work took: of a CUDA device, otherwise of this process."""

import gc
import resource
import sys
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

_CLEAR, _STATUS = Path("/proc/self/clear_refs"), Path("/proc/self/status")
_PEAK = "5"
"""What lowers the process's peak to what it holds now, since Linux 4.0 (proc(5))."""


@dataclass(kw_only=True)
class _Peak:
    """Whose peak the process's is."""

    begun: bool = False
    """Whether any work has begun here."""
    of_one: bool = True
    """Whether it is of the last piece of work alone."""


_peak = _Peak()


def begin_peak(device: "torch.device") -> None:
    """Begin to look for the most memory, without what earlier work in this process took and gave back."""
    gc.collect()
    if device.type == "cuda":
        import torch

        if torch.cuda.is_initialized():
            torch.cuda.reset_peak_memory_stats(device)
        return
    try:
        _CLEAR.write_text(_PEAK)
        _peak.of_one = True
    except OSError:  # no Linux, or an old one
        _peak.of_one = not _peak.begun
    _peak.begun = True


def peak_memory(device: "torch.device") -> int | None:
    """Return the most bytes used since `begin_peak`: of a CUDA device, otherwise of the process itself.

    None where the process did other work before, and the system does not tell the two apart.
    """
    if device.type == "cuda":
        import torch

        return torch.cuda.max_memory_allocated(device)
    return _of_process() if _peak.of_one else None


def _of_process() -> int:
    # `ru_maxrss` also counts what the process held before it became this program
    with suppress(OSError):
        for line in _STATUS.read_text().splitlines():
            if line.startswith("VmHWM:"):
                return 1024 * int(line.split()[1])
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
