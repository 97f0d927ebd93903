"""Texts that users put into bug reports, without names of users, computers and folders."""

import getpass
import os
import platform
import re
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from verydeep.machine.home import home_folder

_FOLDERS = re.compile(
    r"""(?P<quote>['"])(?:file://)?[~.]?/[^'"]*/(?=[^'"/]*(?P=quote))|(?<![\w/.~])(?:file://)?[~.]?/(?:[^\s/'":;,()]+/)*(?=[^\s/])"""
)
"""All of a path but its last part; within quotes it may hold blanks."""

_CACHES = (".cache", "Library/Caches")
"""The folder for caches in every user's own, on Linux and on macOS."""


def text_without_names(text: str) -> str:
    """Return a text with only the last part of each absolute path, and without names of this user and computer."""
    for folder, short in sorted(_known_folders(), key=lambda known: -len(known[0])):  # one may be in the other
        text = re.sub(rf"(?<![\w.-]){re.escape(folder)}(?![\w.-])", short, text)
    return _without_who(_FOLDERS.sub(lambda found: found["quote"] or "", text))


def cache_without_names(path: Path) -> str:
    """Return a cache's path from `~` on if it is where every user has one, else its last part; no user, no computer."""
    path = Path(os.path.normpath(path))
    home = _home()
    if home and path.parent in [home / caches for caches in _CACHES]:
        return _without_who(f"~/{path.relative_to(home)}")
    return _without_who(path.name)


def _known_folders() -> Iterator[tuple[str, str]]:
    """Yield folders that are known whole, even with blanks: where the command was started, and the user's home."""
    with suppress(OSError):  # it was removed
        if Path.cwd() != Path("/"):
            yield str(Path.cwd()), "."
    if home := _home():
        yield str(home), "~"


def _home() -> Path | None:
    """Return the user's folder; None if there is none, or if it is the root, as for some services."""
    if found := home_folder():
        home = Path(os.path.normpath(found))
        return home if home != Path(home.anchor) else None
    return None


def _without_who(text: str) -> str:
    for name, kind in _who():
        text = re.sub(rf"(?<!\w){re.escape(name)}(?!\w)", kind, text)
    return text


def _who() -> Iterator[tuple[str, str]]:
    with suppress(OSError, KeyError):  # a number without a name, as in some containers
        yield getpass.getuser(), "(user)"
    if platform.node():
        yield platform.node(), "(computer)"
