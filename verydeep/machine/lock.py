"""Locks on outputs: of two processes that would write the same file or folder, the second is told of the first."""

import fcntl
import json
import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path

from verydeep.machine.atomic import followed, is_running
from verydeep.machine.documents import parse_json
from verydeep.machine.errors import reason, say

_MOST_BYTES = 4096
"""How much of a lock is read."""

_SAFELY = os.O_NOFOLLOW | os.O_NONBLOCK
"""How a lock is opened, since somebody else may have put a link or a pipe in its place."""

_TIMES = 20
"""How often a lock is read within a second, until it says who holds it."""


class WrittenElsewhereError(OSError):
    """Another process is writing the same output."""


@dataclass(frozen=True, kw_only=True)
class _Holder:
    """Who holds a lock."""

    process: int
    host: str
    since: str

    def __str__(self) -> str:
        return f"process {self.process} on {self.host}, since {self.since}"


@contextmanager
def locked(output: Path | None) -> Iterator[None]:
    """Keep other processes from writing the same output, until the block or this process ends.

    The lock is a file beside it, `.OUTPUT.lock`. The system frees it when its process is gone, however that ended. In a
    folder that several hosts share, it holds for all of them if the file system passes locks on (NFS 4 does). Where
    nothing can be locked, a line says so.

    Raises:
        WrittenElsewhereError: another process holds it.
    """
    if output is None:
        yield
        return
    place = followed(output)
    file = place.with_name(f".{place.name}.lock")
    descriptor = _acquired(file, place)
    try:
        yield
    finally:
        if descriptor is not None:
            with suppress(OSError):
                file.unlink()
            os.close(descriptor)


def _acquired(file: Path, output: Path) -> int | None:
    """Return the descriptor that holds the lock; None where nothing can be locked."""
    while True:
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
            descriptor = os.open(file, os.O_RDWR | os.O_CREAT | _SAFELY, 0o644)
        except OSError as error:
            if isinstance(error, PermissionError):
                _refuse_if_held(file, output)
            _say_unlocked(output, error)
            return None
        try:
            fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except (BlockingIOError, PermissionError):
            refusal = _refusal(descriptor, output)
            os.close(descriptor)
            raise refusal from None
        except OSError as error:
            os.close(descriptor)
            _say_unlocked(output, error)
            return None
        if _is_still_there(descriptor, file):
            _write_holder(descriptor)
            return descriptor
        os.close(descriptor)  # the one who held it has just removed it


def _refuse_if_held(file: Path, output: Path) -> None:
    """Refuse to write what another user holds, whose lock may be read, but not written.

    Raises:
        WrittenElsewhereError: another process holds it.
    """
    try:
        descriptor = os.open(file, os.O_RDONLY | _SAFELY)
    except OSError:  # there is none, or it may not be read either
        return
    try:
        fcntl.lockf(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)  # which only shows whether another process has all of it
    except (BlockingIOError, PermissionError):
        raise _refusal(descriptor, output) from None
    except OSError:  # nothing can be locked here
        return
    finally:
        os.close(descriptor)


def _refusal(descriptor: int, output: Path) -> WrittenElsewhereError:
    holder = _holder(descriptor)
    return WrittenElsewhereError(f"{output} is being written by {holder}: wait for it, or name another")


def _is_still_there(descriptor: int, file: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), file.lstat())
    except FileNotFoundError:
        return False


def _write_holder(descriptor: int) -> None:
    since = datetime.now().astimezone().strftime("%Y-%m-%d %H:%M:%S %Z")
    told = json.dumps(asdict(_Holder(process=os.getpid(), host=socket.gethostname(), since=since))).encode()
    with suppress(OSError):  # a full disk: the lock holds all the same
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, told, 0)


def _holder(descriptor: int) -> str:
    for _ in range(_TIMES):  # the other process may have taken the lock just now, and not yet said who it is
        with suppress(OSError, ValueError):
            holder = parse_json(os.pread(descriptor, _MOST_BYTES, 0), _Holder)
            if not _is_gone(holder):
                return str(holder)
        time.sleep(1 / _TIMES)
    return "another process"


def _is_gone(holder: _Holder) -> bool:
    """Return whether the holder was a process of this host that has ended: a killed one leaves its name in the lock."""
    return holder.host == socket.gethostname() and not is_running(holder.process)


def _say_unlocked(output: Path, error: OSError) -> None:
    say(f"{output} is not locked ({reason(error)}): see that no other process writes it")
