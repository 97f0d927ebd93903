"""Folders that are looked through for images: links are followed, and each file is recognised by its kind."""

import os
from collections import deque
from collections.abc import Iterator
from pathlib import Path

from verydeep.images.image_kinds import has_image_suffix, holds_image, is_worth_opening
from verydeep.images.sources.inventory import FoundFile, is_leftover

_Identity = tuple[int, int]
"""Device and inode of a folder, whatever it is called."""


def subfolders(root: Path) -> list[Path]:
    """List the folders in `root` by name, linked ones too; those that are hidden or left by programs are not.

    Raises:
        OSError: it cannot be read.
    """
    above = _around(root)
    return sorted(
        root / entry.name
        for entry in os.scandir(root)
        if not is_leftover(entry.name) and _is_folder(entry) and _identity(entry.path) not in above
    )


def files_beside_folders(root: Path) -> Iterator[FoundFile]:
    """Yield the entries of `root` beside the folders that `subfolders` lists.

    Raises:
        OSError: it cannot be read.
    """
    folders = {folder.name for folder in subfolders(root)}
    for entry in sorted(os.scandir(root), key=lambda entry: entry.name):
        if entry.name in folders:
            continue
        if is_leftover(entry.name):
            yield from _hidden(entry, "")
        elif _is_folder(entry):
            yield FoundFile("repeated", entry.name)
        else:
            yield entry_of(entry.path)._replace(path=entry.name)


def files_below(root: Path) -> Iterator[FoundFile]:
    """Yield the files in `root` and in the folders below, by paths relative to it, in no particular order.

    Links to folders are followed after all folders that are here without a link, and each folder is looked through
    once: so a file has its path without links, if there is one, and a link that leads back is not followed again.
    """
    seen = _around(root)
    folders, links = deque([""]), deque[str]()
    while folders or links:
        folder = folders.popleft() if folders else links.popleft()
        try:
            identity = _identity(root / folder)
            if folder and identity in seen:
                yield FoundFile("repeated", folder)
                continue
            seen.add(identity)
            entries = sorted(os.scandir(root / folder), key=lambda entry: entry.name)
        except OSError:
            yield FoundFile("unreadable", folder)
            continue
        for entry in entries:
            path = os.path.join(folder, entry.name)
            if is_leftover(entry.name):
                yield from _hidden(entry, folder)
            elif _is_folder(entry):
                (links if entry.is_symlink() else folders).append(path)
            else:
                yield entry_of(entry.path)._replace(path=path)


def _is_folder(entry: os.DirEntry[str]) -> bool:
    """Return whether this is a folder or a link to one; for a link to itself `entry.is_dir` would raise."""
    return os.path.isdir(entry.path) if entry.is_symlink() else entry.is_dir()


def _identity(folder: str | Path) -> _Identity:
    status = os.stat(folder)
    return status.st_dev, status.st_ino


def _around(root: Path) -> set[_Identity]:
    """Return `root` and all folders that it is in."""
    real = Path(os.path.realpath(root))
    return {_identity(folder) for folder in (real, *real.parents)}


def _hidden(entry: os.DirEntry[str], folder: str) -> Iterator[FoundFile]:
    """Yield the files of a hidden folder and below, where no link is followed; a file stands for itself."""
    if not entry.is_dir(follow_symlinks=False):
        yield FoundFile("hidden", os.path.join(folder, entry.name))
        return
    for inner, folders, files in os.walk(entry.path):
        links = [name for name in folders if os.path.islink(os.path.join(inner, name))]
        yield from (FoundFile("hidden", os.path.join(folder, entry.name, name)) for name in (*files, *links))


def entry_of(file: str) -> FoundFile:
    """Tell the kind of a file, or of a link's target."""
    if os.path.isfile(file):
        return FoundFile("image" if is_image_file(file) else "other", file)
    return FoundFile("special" if os.path.exists(file) else "dangling", file)


def is_image_file(path: str | Path) -> bool:
    """Return whether a file is taken for an image: by its ending, else by its first bytes."""
    name = os.path.basename(path)
    if not is_worth_opening(name):
        return has_image_suffix(name)
    try:
        with open(path, "rb") as file:
            return holds_image(file)
    except OSError:
        return False
