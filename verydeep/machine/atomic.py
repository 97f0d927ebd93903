"""Files and folders that appear whole or not at all, whenever the process or the machine stops."""

import errno
import glob
import os
import re
import shutil
import stat
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from io import FileIO
from pathlib import Path
from typing import Any

from verydeep.machine.documents import json_text
from verydeep.machine.errors import reason
from verydeep.machine.home import home_folder
from verydeep.machine.regular_files import kind_of
from verydeep.numbers import counted

_ABANDONED_SECONDS = 3600
"""Age of a file that a process was writing, and that nobody writes any more. Its number tells nothing of a process in
another container or on another host that shares the folder."""

_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
"""Errors of a place that holds no more; the system names no file with them."""

_NOT_SYNCED = (errno.EACCES, errno.EPERM, errno.EINVAL, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS)
"""Errors that say that a folder cannot be synced at all, not that something in it was lost."""


def write_bytes(path: Path, data: bytes, *, one_of_many: bool = False) -> None:
    """Write a file beside its path, sync it, and rename it to its path; on failure the old file stays.

    Of a link, the file that it leads to is replaced. A device or a pipe (`/dev/stdout`) is never replaced: the bytes go
    into it.

    Args:
        path: the file.
        data: its contents.
        one_of_many: whether to leave what killed processes have left of this file. To look for it, the folder is
            listed, which among 100,000 files takes longer than to write a small one.

    Raises:
        OSError: it cannot be written; the message names path and bytes.
    """
    try:
        if _is_stream(path):
            _write_into(path, data)
            return
        place = followed(path)
        if not one_of_many:
            _clear_away(place, "partial")
        aside = _aside(place, "partial")
        try:
            with aside.open("wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            aside.replace(place)
        finally:
            aside.unlink(missing_ok=True)
        _sync(place.parent)
    except BrokenPipeError:  # its reader has enough
        raise
    except OSError as error:
        raise OSError(f"cannot write {path} ({counted(len(data), 'byte')}): {reason(error)}") from error


def write_text(path: Path, text: str) -> None:
    """Write text in UTF-8 by `write_bytes`; bytes of a file's name that are not text are escaped."""
    write_bytes(path, text.encode(errors="backslashreplace"))


def write_json(path: Path, value: Any) -> None:
    """Write a value as indented JSON by `write_text`."""
    write_text(path, json_text(value, indent=2) + "\n")


def append_json(path: Path, value: Any) -> None:
    """Add a line of JSON to a file, on a line of its own even if a crash tore the last one.

    Raises:
        OSError: there is something other than a file, or it cannot be written; the message names the path.
    """
    if path.exists() and (kind := kind_of(path.stat())):
        raise OSError(f"cannot add to {path}: it is {kind}, not a file")
    with path.open("ab+", buffering=0) as file:
        data = json_text(value).encode(errors="backslashreplace") + b"\n"
        if file.tell():
            file.seek(-1, os.SEEK_END)
            if file.read(1) != b"\n":
                data = b"\n" + data
        try:
            write_all(file, data)
        except OSError as error:
            raise OSError(f"cannot add {counted(len(data), 'byte')} to {path}: {reason(error)}") from error


def check_new_folder(path: Path) -> None:
    """Check, before any work, that `new_folder` can make a folder at a path, and replaces nothing that it must not.

    Raises:
        OSError: `path` is a file or a folder of the system, or nothing can be written in the folder that it is in.
    """
    place = followed(path)
    _refuse_to_replace(place)
    above = next(folder for folder in place.parents if folder.exists())
    if not above.is_dir():
        raise NotADirectoryError(f"{above} is a file, in which {path} cannot be made: name another folder")
    if not os.access(above, os.W_OK | os.X_OK):
        raise OSError(f"nothing can be written in {above}, where {path} would be made anew: name another folder")


@contextmanager
def new_folder(path: Path) -> Iterator[Path]:
    """Yield an empty folder to fill; when the block ends without an error, sync it and rename it to `path`.

    A folder at `path` is replaced; of a link, the folder that it leads to. On failure that one stays, and nothing else
    is left behind.

    Raises:
        OSError: `path` is a file or a folder of the system, or nothing can be written there.
    """
    path = followed(path)
    _refuse_to_replace(path)
    put_back(path)
    _clear_away(path, "partial", "old")
    aside = _aside(path, "partial")
    aside.mkdir(parents=True)
    try:
        yield aside
        for file in aside.rglob("*"):
            _share(file, like=aside)
            _sync(file)
        _sync(aside)
        if path.exists():
            old = _aside(path, "old")
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
    """Yield where to write the file `path`, in an empty folder beside it, which may receive other files too.

    When the block ends without an error, sync the files and rename them to `path` and then to its neighbours. On
    failure the old files stay, and nothing else is left behind; only a process that is killed between two renames
    leaves files of both, which their readers have to notice. Links, devices and pipes are treated as by `write_bytes`.

    Raises:
        OSError: nothing can be written there.
    """
    if _is_stream(path):
        with tempfile.TemporaryDirectory() as folder:
            yield Path(folder) / path.name
            for file in sorted(Path(folder).iterdir()):
                write_bytes(path.with_name(file.name), file.read_bytes())
        return
    place = followed(path)
    _clear_away(place, "partial")
    aside = _aside(place, "partial")
    try:
        aside.mkdir()
    except OSError as error:
        raise OSError(f"cannot write {path}: {reason(error)}") from error
    try:
        yield aside / path.name
        for file in sorted(aside.iterdir()):
            _share(file, like=aside)
            _sync(file)
        for file in sorted(aside.iterdir(), key=lambda file: (file.name != path.name, file.name)):
            file.replace(followed(path.with_name(file.name)))
    except OSError as error:
        if error.errno not in _FULL or (error.filename and aside not in Path(os.fsdecode(error.filename)).parents):
            raise
        raise OSError(f"cannot write {path}: {reason(error)}") from error
    finally:
        shutil.rmtree(aside, ignore_errors=True)
    _sync(place.parent)


def _share(file: Path, *, like: Path) -> None:
    """Let those read and write a new file who may a new folder, as umask has it: some libraries write for one user."""
    if file.is_file():
        with suppress(OSError):  # a file system without modes
            file.chmod(stat.S_IMODE(like.stat().st_mode) & 0o666)


def _is_stream(path: Path) -> bool:
    """Return whether there is a device, a pipe or a socket, or the file that standard output goes to.

    Raises:
        IsADirectoryError: there is a folder.
    """
    try:
        status = os.stat(path)
    except FileNotFoundError:
        return False
    if stat.S_ISDIR(status.st_mode):
        raise IsADirectoryError(errno.EISDIR, "it is a folder", str(path))
    return kind_of(status) is not None or _standard_stream(status) is not None


def _standard_stream(status: os.stat_result) -> int | None:
    """Return the descriptor of standard output or standard error if it goes there."""
    for descriptor in (1, 2):
        with suppress(OSError):  # closed
            if os.path.samestat(os.fstat(descriptor), status):
                return descriptor
    return None


def _write_into(path: Path, data: bytes) -> None:
    """Write to a stream as a program does that prints; a socket can be reached only if it is open already."""
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    opened = _standard_stream(os.stat(path))
    descriptor = os.dup(opened) if opened is not None else os.open(path, os.O_WRONLY)
    with open(descriptor, "wb", buffering=0) as stream:
        write_all(stream, data)


def write_all(stream: FileIO, data: bytes) -> None:
    """Write all bytes to an unbuffered stream, which may take only some at once, as a disk that is nearly full does."""
    view = memoryview(data)
    while view:
        view = view[stream.write(view) or 0 :]


def _refuse_to_replace(folder: Path) -> None:
    """Refuse to replace a folder of the system, the user's own folder, or anything but a folder.

    Raises:
        OSError: it is one of these.
    """
    if not folder.exists():
        return
    if not folder.is_dir():
        raise NotADirectoryError(errno.ENOTDIR, "it is a file, not a folder", str(folder))
    home = home_folder()
    of_user = home is not None and folder == followed(home)
    if folder.parent in (folder, Path(folder.anchor)) or of_user or os.path.ismount(folder):
        raise OSError(f"{folder} is a folder of the system and would be replaced: name a folder inside it")


def locate(path: Path) -> Path:
    """Return where a folder is: at its path or, if a process ended while it was replacing the folder, beside it."""
    return path if path.exists() else next(iter(_leftovers(followed(path), "old")), path)


def put_back(path: Path) -> None:
    """Rename a folder back to its path if a process ended while it was replacing the folder."""
    place = locate(path)
    if place != path:
        place.rename(followed(path))


def followed(path: Path) -> Path:
    """Follow links; the result has a name and a parent even if `path` is `.`."""
    return Path(os.path.realpath(path))


def _aside(path: Path, kind: str) -> Path:
    return path.with_name(f".{path.name}.{os.getpid()}.{kind}")


def _leftovers(path: Path, *kinds: str) -> list[Path]:
    """Return names by `_aside` of processes that were killed; for `vgg16`, not those for `vgg16.old`."""
    named = re.compile(rf"\.{re.escape(path.name)}\.\d+\.({'|'.join(kinds)})")
    return sorted(left for left in path.parent.glob(f".{glob.escape(path.name)}.*") if named.fullmatch(left.name))


def _clear_away(path: Path, *kinds: str) -> None:
    """Remove what killed processes have left or replaced; one of this host that still runs may be writing for hours."""
    for left in _leftovers(path, *kinds):
        process = int(left.name.split(".")[-2])
        if left.suffix == ".old" or process == os.getpid() or not is_running(process):
            if left.is_dir():
                shutil.rmtree(left, ignore_errors=True)
                continue
            with suppress(OSError):  # it is another user's, or gone
                if time.time() - left.stat().st_mtime > _ABANDONED_SECONDS:
                    left.unlink()


def is_running(process: int) -> bool:
    """Return whether there is a process of this number, on this host."""
    try:
        os.kill(process, 0)
    except PermissionError:
        return True
    except (ProcessLookupError, OverflowError):
        return False
    return True


def _sync(path: Path) -> None:
    """Sync a file, or the names in a folder: not every file system can, nor may everybody who may write in a folder."""
    try:
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
    except OSError as error:
        if error.errno not in _NOT_SYNCED or not os.path.isdir(path):
            raise
