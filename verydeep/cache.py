"""Figures that take long to compute and follow from what they are filed under; deleting them loses nothing but time."""

import hashlib
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import platformdirs

from verydeep import atomic


def folder() -> Path:
    """VERYDEEP_CACHE of the environment, or the user's folder for caches."""
    chosen = os.environ.get("VERYDEEP_CACHE")
    return Path(chosen) if chosen else platformdirs.user_cache_path("verydeep")


def remembered(kind: str, key: object, compute: Callable[[], Any]) -> Any:
    """What `compute` gives, as JSON keeps it; from its file if it was computed before for this `kind` and `key`."""
    file = folder() / kind / f"{hashlib.sha256(repr(key).encode()).hexdigest()}.json"
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        value = json.loads(json.dumps(compute()))
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        atomic.write_bytes(file, json.dumps(value).encode())
    except OSError:
        pass  # a home that cannot be written to: it is computed again next time
    return value
