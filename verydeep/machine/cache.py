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

T = TypeVar("T")


def folder() -> Path:
    """Return VERYDEEP_CACHE of the environment, or the user's folder for caches."""
    chosen = os.environ.get("VERYDEEP_CACHE")
    return Path(chosen) if chosen else platformdirs.user_cache_path("verydeep")


def remembered(kind: str, key: object, compute: Callable[[], Any], read: Callable[[Any], T]) -> T:
    """Return what `read` makes of the computed value, after a way through JSON.

    It is computed once for this `kind` and `key`, and again if its file is gone or makes no sense to `read`.
    """
    file = folder() / kind / f"{hashlib.sha256(repr(key).encode(errors='surrogateescape')).hexdigest()}.json"
    with suppress(OSError, ValueError, TypeError, LookupError):
        return read(json.loads(file.read_text(encoding="utf-8")))
    stored = json.dumps(compute())
    with suppress(OSError):  # a home that is read-only: the value is computed again next time
        file.parent.mkdir(parents=True, exist_ok=True)
        atomic.write_bytes(file, stored.encode())
    return read(json.loads(stored))
