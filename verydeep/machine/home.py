"""The user's folder, which not every user has."""

import os
from pathlib import Path


def home_folder() -> Path | None:
    """Return the user's folder; None for a user whom the system does not know, as in some containers."""
    try:
        return Path.home()
    except RuntimeError:
        return None


def expanded(name: str | Path) -> Path:
    """Return a path with the user's folder in place of `~`; as it is for a user without one."""
    return Path(os.path.expanduser(name))
