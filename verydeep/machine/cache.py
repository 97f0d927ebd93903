"""Cache of figures that take long to compute and follow from their key; deleting it loses nothing but time."""

import hashlib
import json
import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar

import platformdirs

from verydeep.machine import atomic
from verydeep.machine.documents import parse_json
from verydeep.machine.errors import one_line, say
from verydeep.machine.regular_files import kind_of, read_file

T = TypeVar("T")

_FORMAT = 2
"""Version of a file's form: the SHA-256 of all that follows, on a line of its own, and JSON."""

_MOST_BYTES = 2**30
"""Size of a file; the index of a shard has a line for each image."""


def folder() -> Path:
    """Return VERYDEEP_CACHE of the environment, or the user's folder for caches.

    Raises:
        OSError: the environment names none, and the user has no folder.
    """
    if chosen := os.environ.get("VERYDEEP_CACHE"):
        return Path(chosen)
    with suppress(RuntimeError):  # the system does not know the user, as in some containers
        place = platformdirs.user_cache_path("verydeep")
        if place.is_absolute():  # other versions of the library leave the `~` then
            return place
    raise OSError("this user has no folder for caches: name one by VERYDEEP_CACHE")


def remembered(kind: str, key: object, compute: Callable[[], Any], stored_as: type[T]) -> T:
    """Compute a value once for this `kind` and `key`, keep it as JSON, and return it as the type it is `stored_as`.

    It is computed again if its file is gone, or damaged, which is said; and every time where nothing can be kept.
    """
    name = hashlib.sha256(repr((_FORMAT, key)).encode(errors="surrogateescape")).hexdigest()
    file: Path | None = None
    with suppress(OSError):
        file = folder() / kind / f"{name}.json"
    if file is not None and os.path.exists(file):  # `Path.exists` raises where it may not look
        try:
            return parse_json(_kept(file), stored_as)
        except (OSError, ValueError) as error:
            say_computed_again(f"{file}: {one_line(error)}")
    stored = json.dumps(compute()).encode()
    if file is not None:
        with suppress(OSError):  # a home that is read-only: the value is computed again next time
            file.parent.mkdir(parents=True, exist_ok=True)
            clear_place(file)
            atomic.write_bytes(file, hashlib.sha256(stored).hexdigest().encode() + b"\n" + stored)
    return parse_json(stored, stored_as)


def clear_place(file: Path) -> None:
    """Remove a pipe, a socket or a device where a file will be kept: writing there would wait for a reader.

    Raises:
        OSError: it cannot be removed.
    """
    if os.path.exists(file) and not os.path.isdir(file) and kind_of(os.stat(file)):
        file.unlink()


def _kept(file: Path) -> bytes:
    digest, _, stored = read_file(file, most=_MOST_BYTES).partition(b"\n")
    if digest != hashlib.sha256(stored).hexdigest().encode():
        raise ValueError("it has changed since it was kept")
    return stored


def say_computed_again(damage: str) -> None:
    """Say on standard error that a file of the cache is damaged, and that its contents are computed again."""
    say(f"kept figures are damaged, so they are computed again: {damage}")
