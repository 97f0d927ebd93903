"""Regular files, opened without waiting: a pipe, a device or a folder in place of a file is refused by its kind."""

import os
import stat
from io import FileIO
from pathlib import Path

from verydeep.numbers import counted, number

_KINDS = {
    stat.S_IFDIR: "a folder",
    stat.S_IFIFO: "a pipe",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
    stat.S_IFSOCK: "a socket",
}


class UnreadableFileError(OSError):
    """A path at which there is no regular file, or one that is too large; the message is a sentence."""


def kind_of(status: os.stat_result) -> str | None:
    """Name the thing in place of a regular file, `a pipe`; None for a regular file."""
    return None if stat.S_ISREG(status.st_mode) else _KINDS.get(stat.S_IFMT(status.st_mode), "something else")


def file_stamp(path: Path) -> tuple[int, ...]:
    """Return what tells a file from one that replaced it, or was written over it; nothing where there is no file."""
    if not path.is_file():
        return ()
    status = path.stat()
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns


def open_file(path: str | Path, *, most: int | None = None) -> FileIO:
    """Open a regular file for reading, unbuffered.

    Raises:
        UnreadableFileError: it is something else, or has more than `most` bytes.
        OSError: there is none, or it may not be read.
    """
    _check(os.stat(path), path, most)  # opening a device may already do something
    descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_CLOEXEC", 0))
    try:
        _check(os.fstat(descriptor), path, most)
    except OSError:
        os.close(descriptor)
        raise
    return FileIO(descriptor)


def read_file(path: str | Path, *, most: int | None = None) -> bytes:
    """Return the contents of a regular file.

    Raises:
        UnreadableFileError: it is something else, or has more than `most` bytes.
        OSError: there is none, or it may not be read.
    """
    with open_file(path, most=most) as file:
        return file.read()


def check_file(path: str | Path) -> None:
    """Check that a library, which opens it by its path, will find a regular file there.

    Raises:
        UnreadableFileError: it is something else.
        OSError: there is none.
    """
    _check(os.stat(path), path, None)


def _check(status: os.stat_result, path: str | Path, most: int | None) -> None:
    kind = kind_of(status)
    if kind is not None:
        raise UnreadableFileError(f"{path} is {kind}, not a file")
    if most is not None and status.st_size > most:
        raise UnreadableFileError(
            f"{path} has {counted(status.st_size, 'byte')}, more than the {number(most)} that are read"
        )
