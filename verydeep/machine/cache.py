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
from verydeep.machine.documents import parse_json, read_json
from verydeep.machine.errors import say

T = TypeVar("T")

_MOST_BYTES = 2**30
"""Of a file; the index of a shard has a line for each image."""


def folder() -> Path:
    """Return VERYDEEP_CACHE of the environment, or the user's folder for caches."""
    chosen = os.environ.get("VERYDEEP_CACHE")
    return Path(chosen) if chosen else platformdirs.user_cache_path("verydeep")


def remembered(kind: str, key: object, compute: Callable[[], Any], stored_as: type[T]) -> T:
    """Return the computed value after a way through JSON, as the type that it is `stored_as`.

    It is computed once for this `kind` and `key`, and again if its file is gone or damaged; the latter is said.
    """
    file = folder() / kind / f"{hashlib.sha256(repr(key).encode(errors='surrogateescape')).hexdigest()}.json"
    if file.exists():
        try:
            return read_json(file, stored_as, most=_MOST_BYTES)
        except ValueError as error:
            say_computed_again(error)
    stored = json.dumps(compute())
    with suppress(OSError):  # a home that is read-only: the value is computed again next time
        file.parent.mkdir(parents=True, exist_ok=True)
        atomic.write_bytes(file, stored.encode())
    return parse_json(stored, stored_as)


def say_computed_again(damage: Exception | str) -> None:
    """Say on standard error that a file of the cache is damaged, and that what it held is computed again."""
    say(f"kept figures are damaged, so they are computed again: {damage}")
