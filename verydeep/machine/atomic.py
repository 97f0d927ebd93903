"""Files and folders that appear whole or not at all, whenever the process or the machine stops."""

import glob
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any


def write_bytes(path: Path, data: bytes) -> None:
    """Writes a file beside its place, syncs it, and renames it there; on failure the old file stays."""
    aside = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        with aside.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        aside.replace(path)
    except OSError as error:
        raise OSError(f"cannot write {path} ({len(data):,} bytes): {error}") from error
    finally:
        aside.unlink(missing_ok=True)
    _sync(path.parent)


def write_text(path: Path, text: str) -> None:
    """`write_bytes` of text; what is no text in names of files stands there escaped."""
    write_bytes(path, text.encode(errors="backslashreplace"))


def write_json(path: Path, value: Any) -> None:
    """`write_text` of `value` as indented JSON."""
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False) + "\n")


def append_json(path: Path, value: Any) -> None:
    """One more line of JSON; a line that a crash has torn does not tear it too."""
    with path.open("ab+", buffering=0) as file:
        if file.tell():
            file.seek(-1, os.SEEK_END)
            if file.read(1) != b"\n":
                file.write(b"\n")
        data = json.dumps(value, ensure_ascii=False).encode(errors="backslashreplace") + b"\n"
        try:
            file.write(data)
        except OSError as error:
            raise OSError(f"cannot add {len(data):,} bytes to {path}: {error}") from error


@contextmanager
def new_folder(path: Path) -> Iterator[Path]:
    """Gives an empty folder to fill; when the block ends without an error it is synced and renamed to `path`.

    A folder that stands at `path` is replaced, where it is a link the one that it leads to. On failure it stays, and
    nothing else is left behind.
    """
    path = _led_to(path)
    put_back(path)
    for left in [*_beside(path, "partial"), *_beside(path, "old")]:
        shutil.rmtree(left, ignore_errors=True)  # a process was killed
    aside = path.with_name(f".{path.name}.{os.getpid()}.partial")
    aside.mkdir(parents=True)
    try:
        yield aside
        for file in aside.rglob("*"):
            _sync(file)
        _sync(aside)
        if path.exists():
            old = path.with_name(f".{path.name}.{os.getpid()}.old")
            try:
                path.rename(old)
                aside.rename(path)
            finally:
                put_back(path)
            shutil.rmtree(old)
        else:
            aside.rename(path)
    finally:
        shutil.rmtree(aside, ignore_errors=True)
    _sync(path.parent)


@contextmanager
def new_files(path: Path) -> Iterator[Path]:
    """Gives where to write `path`, in an empty folder beside it; other files may be written there too.

    When the block ends without an error they are synced and renamed to `path` and to its side, in the order of their
    names. On failure files that stood there stay, and nothing else is left behind.

    Raises:
        OSError: nothing can be written there.
    """
    for left in _beside(path, "partial"):
        shutil.rmtree(left, ignore_errors=True)  # a process was killed
    aside = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        aside.mkdir()
    except OSError as error:
        raise OSError(f"cannot write {path}: {error}") from error
    try:
        yield aside / path.name
        for file in sorted(aside.iterdir()):
            _sync(file)
        for file in sorted(aside.iterdir()):
            file.replace(path.with_name(file.name))
    finally:
        shutil.rmtree(aside, ignore_errors=True)
    _sync(path.parent)


def standing(path: Path) -> Path:
    """Where a folder is: at its place or, if a process ended just as it was replacing it, beside it."""
    return path if path.exists() else next(iter(_beside(_led_to(path), "old")), path)


def put_back(path: Path) -> None:
    """Renames a folder to its place again that a process was replacing when it ended."""
    found = standing(path)
    if found != path:
        found.rename(_led_to(path))


def _led_to(path: Path) -> Path:
    """Where links lead to; with a name and a parent also where `path` is `.`."""
    return Path(os.path.realpath(path))


def _beside(path: Path, kind: str) -> list[Path]:
    return sorted(path.parent.glob(f".{glob.escape(path.name)}.*.{kind}"))


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
