"""The verb `doctor`."""

import os
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from typing import TYPE_CHECKING

from verydeep.commands.options import JsonFile
from verydeep.machine.libraries import how_to_install
from verydeep.numbers import billions, counted, decimal, millions
from verydeep.presentation.terminal import show

if TYPE_CHECKING:
    from verydeep.commands.self_test import Check
    from verydeep.machine.inspection import Inspection


_PLACES = {"here": "here", "cache": "for the cache"}
"""Places whose disk space is told, in words."""


def doctor(*, self_test: bool = True, json_file: JsonFile = None) -> None:
    """Tell what this computer has, and test in a minute that training and export work: text for a bug report.

    It holds no names of users, computers or folders. The exit status is 1 if something that is needed is broken.

    Args:
        self_test: Train a small network on digits, export it to every format whose libraries are installed, and
            compare.
        json_file: Write the figures to this file as well (- for standard output instead of the text).
    """
    from verydeep.machine.inspection import inspect_computer

    with _temporary_folder_named():
        found = inspect_computer()
    checks: list[Check] = []
    if self_test and not found.missing:
        from verydeep.commands.self_test import self_test as run_self_test

        checks = run_self_test()
    figures = {**found.to_dict(), "self_test": [asdict(check) for check in checks]}
    show(figures, json_file, "\n".join([*_lines(found), *map(_check_line, checks)]))
    broken = [f"{name} is missing" for name in found.missing] + [one.name for one in checks if one.ok is False]
    if broken:
        raise RuntimeError(f"broken: {', '.join(broken)}")


@contextmanager
def _temporary_folder_named() -> Iterator[None]:
    """Give the temporary folder a name where there is none: what PyTorch imports may ask for it, and put nothing there.

    The self-test, which needs one, finds that it is missing.
    """
    try:
        tempfile.gettempdir()
    except FileNotFoundError:
        tempfile.tempdir = os.sep
    try:
        yield
    finally:
        if tempfile.tempdir == os.sep:
            tempfile.tempdir = None


def _lines(found: "Inspection") -> Iterator[str]:
    """Yield the findings, a line for each subject."""
    subjects = {
        "versions": ", ".join(f"{name} {version}" for name, version in found.versions.items()),
        "processor": f"{found.processor}, {counted(found.cores, 'core')} for this process",
        "computes": f"{counted(found.threads, 'thread')}, {', '.join(found.instruction_sets)}",
        "devices": ", ".join(found.devices),
        "memory": f"{billions(found.free_memory_bytes)} of {billions(found.memory_bytes)} GB free",
        "disk": ", ".join(f"{billions(free)} GB free {_PLACES[name]}" for name, free in found.free_disk_bytes.items()),
        "cache": "nothing is kept: this user has no folder, and VERYDEEP_CACHE names none"
        if found.cache is None
        else f"{found.cache}: {counted(found.cache_files, 'file')}, {millions(found.cache_bytes)} MB",
        "variables": ", ".join(f"{name}={value}" for name, value in found.environment.items()) or "none",
        "needed": _versions(found.packages),
    }
    for subject, text in subjects.items():
        yield f"{subject:<10} {text}"
    for extra, packages in found.extras.items():
        install = "" if all(packages.values()) else f": {how_to_install(extra)}"
        yield f"{'extra':<10} {extra}: {_versions(packages)}{install}"


def _versions(packages: Mapping[str, str | None]) -> str:
    return ", ".join(f"{name} {version or 'missing'}" for name, version in packages.items())


def _check_line(check: "Check") -> str:
    result = {True: "ok", False: "BROKEN", None: "not tested"}[check.ok]
    return f"{'self-test':<10} {check.name}: {result}, {check.detail} ({decimal(check.seconds, 1)} s)"
