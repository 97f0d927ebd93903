"""The user's folder, which not every user has."""

from pathlib import Path


def home_folder() -> Path | None:
    """Return the user's folder; None for a user whom the system does not know, as in some containers."""
    try:
        return Path.home()
    except RuntimeError:
        return None
