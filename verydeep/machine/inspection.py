"""This computer, as the package sees it: versions, processor, devices, memory, disk, cache and optional libraries."""

import os
import platform
import re
import shutil
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

from verydeep.machine import cache
from verydeep.machine.libraries import EXTRAS
from verydeep.machine.memory import memory_bytes
from verydeep.machine.private_names import cache_without_names
from verydeep.machine.runtime import multiplies_in_bfloat16
from verydeep.version import __version__, code_digest

_VARIABLES = ("CUDA_VISIBLE_DEVICES", "HF_HUB_OFFLINE", "ONEDNN_MAX_CPU_ISA", "ATEN_CPU_CAPABILITY", "OMP_NUM_THREADS")
"""Variables of the environment that change results, or how they are computed."""


@dataclass(frozen=True, kw_only=True)
class Inspection:
    """The findings, without names of users and computers: a path is that of every user's cache, or its last part."""

    versions: dict[str, str]
    """Versions of this package, Python, PyTorch, and the system with its processor's kind."""
    processor: str
    cores: int
    """Cores that this process may use, by affinity and control group."""
    threads: int
    """Threads that PyTorch computes with."""
    instruction_sets: tuple[str, ...]
    """Instruction sets that PyTorch uses: AVX2, say, and bfloat16 where the processor multiplies in it."""
    devices: tuple[str, ...]
    memory_bytes: int | None
    """Memory that this process may use, as trainings count it; None where the system does not tell."""
    free_memory_bytes: int | None
    free_disk_bytes: dict[str, int]
    """Free bytes where the command was started, and where the cache is, if there is one."""
    cache: str | None
    """None for a user without a folder, for whom nothing is kept."""
    cache_files: int
    cache_bytes: int
    environment: dict[str, str]
    """Variables that are set and change results, or how they are computed."""
    packages: dict[str, str | None]
    """Version of every library that is needed; None for a missing one."""
    extras: dict[str, dict[str, str | None]]
    """Version of every optional library, by the extra that installs it; None for a missing one."""

    @property
    def missing(self) -> tuple[str, ...]:
        """The needed libraries that are not installed."""
        return tuple(name for name, version in self.packages.items() if version is None)

    def to_dict(self) -> dict[str, Any]:
        """Return a plain dictionary, ready for JSON."""
        return asdict(self)


def inspect_computer() -> Inspection:
    """Look at this computer; it takes a second, since PyTorch is imported."""
    import joblib
    import torch

    folder = _cache_folder()
    sizes = [] if folder is None else _sizes(folder)
    places = {"here": Path.cwd(), "cache": folder}
    memory, free = _memory()
    return Inspection(
        versions={
            "verydeep": __version__,
            "code": code_digest(),
            "Python": platform.python_version(),
            "PyTorch": torch.__version__,
            "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        },
        processor=processor_name(),
        cores=joblib.cpu_count(),
        threads=torch.get_num_threads(),
        instruction_sets=_instruction_sets(),
        devices=_devices(),
        memory_bytes=memory,
        free_memory_bytes=free,
        free_disk_bytes={name: _free_disk(place) for name, place in places.items() if place is not None},
        cache=None if folder is None else cache_without_names(folder),
        cache_files=len(sizes),
        cache_bytes=sum(sizes),
        environment={name: os.environ[name] for name in _VARIABLES if name in os.environ},
        packages={name: _version(name) for name in _needed()},
        extras=_extras(),
    )


def _instruction_sets() -> tuple[str, ...]:
    import torch

    products = ("bfloat16",) if multiplies_in_bfloat16() else ()
    return (torch.backends.cpu.get_cpu_capability(), *products)


def _devices() -> tuple[str, ...]:
    import torch

    cuda = [f"cuda {torch.cuda.get_device_name(index)}" for index in range(torch.cuda.device_count())]
    return ("cpu", *cuda, *(["mps"] if torch.backends.mps.is_available() else []))


def processor_name() -> str:
    """Return the name of the processor, or its kind where the system does not tell."""
    with suppress(OSError):
        found = re.search(r"^model name\s*: (.+)$", Path("/proc/cpuinfo").read_text(errors="replace"), re.MULTILINE)
        if found:
            return found[1]
    return platform.processor() or platform.machine()


def _memory() -> tuple[int | None, int | None]:
    """Return the bytes of memory that this process may use, and those of them that are free, where the system tells."""
    with suppress(OSError, ValueError):
        memory = memory_bytes()
        available = _available()
        return memory, None if available is None else min(memory, available)
    return None, None


def _available() -> int | None:
    """Return the bytes that are free in the whole computer; None where the system does not tell."""
    with suppress(OSError):
        found = re.search(r"^MemAvailable:\s+(\d+) kB$", Path("/proc/meminfo").read_text(), re.MULTILINE)
        return 1024 * int(found[1]) if found else None
    return None


def _cache_folder() -> Path | None:
    with suppress(OSError):
        return cache.folder()
    return None


def _free_disk(place: Path) -> int:
    return shutil.disk_usage(next(folder for folder in (place, *place.parents) if os.path.exists(folder))).free


def _sizes(folder: Path) -> list[int]:
    """Return the size in bytes of every file in a folder, which need not exist."""
    sizes = []
    for file in folder.rglob("*"):
        with suppress(OSError):  # gone meanwhile
            if file.is_file():
                sizes.append(file.stat().st_size)
    return sizes


def _needed() -> Iterable[str]:
    """Yield the names of the distributions that this package needs; none if it is not installed."""
    with suppress(metadata.PackageNotFoundError):
        for line in metadata.requires("verydeep") or ():
            name = re.match(r"[\w.-]+", line)
            if name and "extra ==" not in line:
                yield name[0]


def _version(distribution: str) -> str | None:
    with suppress(metadata.PackageNotFoundError):
        return metadata.version(distribution)
    return None


def _extras() -> dict[str, dict[str, str | None]]:
    distributions = metadata.packages_distributions()
    extras: dict[str, dict[str, str | None]] = {}
    for package, extra in sorted(EXTRAS.items(), key=lambda item: item[::-1]):
        names = distributions.get(package, [])
        extras.setdefault(extra, {})[package] = _version(names[0]) if names else None
    return extras
