"""Images by their paths, as files of boxes, of labels and of test images name them."""

import os
import re
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

from verydeep.images.sources.source import IMAGE_SUFFIXES, SPLIT_NAMES, some

HUB_ID = re.compile(r"(?P<split>.+)/(?P<number>\d+) \((?P<file>.+)\)")
"""`train/0 (cat.jpg)`: images of hub data are called by their place in a split and their file, if they have one."""

SHARD_ID = re.compile(r"(?:.*/)?(?P<shard>[^/]+\.tar)/(?P<path>.+)")


class _Path(NamedTuple):
    """One of the ways to name an image."""

    path: str
    folders: tuple[str, ...] = ()
    """That may stand before the path, where others of the source may not."""

    def folded(self, fold: Callable[[str], str]) -> "_Path":
        return self if fold is str else _Path(fold(self.path), tuple(map(fold, self.folders)))


@dataclass(frozen=True, kw_only=True)
class ImageNames:
    """Images of one source that other files name, with as much of their paths as they like, or with more."""

    ids: Sequence[str]
    folders: Sequence[str] = ()
    """The folder that each id begins in, where there are several: of a split, say."""

    @cached_property
    def _paths(self) -> list[list[_Path]]:
        folders = self.folders or [""] * len(self.ids)
        return [_paths(name.replace("\\", "/"), folder) for name, folder in zip(self.ids, folders, strict=True)]

    @cached_property
    def _known(self) -> frozenset[str]:
        """Folders that only some of the images are in: where one is that of a split, those of all splits."""
        known = frozenset(folder for paths in self._paths for path in paths for folder in path.folders)
        splits = frozenset(folder for folders in SPLIT_NAMES.values() for folder in folders)
        return known | splits if known & splits else known

    @cached_property
    def _known_folded(self) -> frozenset[str]:
        return frozenset(map(str.casefold, self._known))

    @cached_property
    def _by_file(self) -> dict[str, list[int]]:
        found: dict[str, list[int]] = defaultdict(list)
        for index, paths in enumerate(self._paths):
            for key in {_file(path.path) for path in paths}:
                found[key].append(index)
        return found

    def fitting(self, name: str) -> list[int]:
        r"""Indices of the images that a name may mean: of the two paths, the longer one ends with the shorter.

        Whole folder names count, `\` is `/`, and the folder of another split than the image's does not fit. Of several
        images those count of whose paths the name has most, and before others those that are called just so. A name
        without ending fits any; where nothing fits otherwise, capitals do not count.
        """
        wanted = re.sub(r"^(\./|/)+", "", name.replace("\\", "/"))
        its = self._by_file.get(_file(wanted), [])
        ways: list[Callable[[str], str]] = [str, without_ending] if without_ending(wanted) == wanted else [str]
        for fold in [*ways, str.casefold]:
            end, known = fold(wanted), self._known_folded if fold is str.casefold else self._known
            fits = {index: max(_fit(end, path.folded(fold), known) for path in self._paths[index]) for index in its}
            if (best := max(fits.values(), default=NOT_AT_ALL)) != NOT_AT_ALL:
                return [index for index, fit in fits.items() if fit == best]
        return []

    def shown(self, index: int) -> str:
        """What an image is called in messages: with its folder, where there are several."""
        return f"{self.folders[index]}/{self.ids[index]}" if self._several_folders else self.ids[index]

    @cached_property
    def _several_folders(self) -> bool:
        return len(set(self.folders)) > 1

    def only(self, fitting: Sequence[int], name: str, where: str) -> int:
        """The one image that fits.

        Raises:
            ValueError: none does, or several; the message says `where` they are named.
        """
        if not fitting:
            raise ValueError(f"{where}: no image is called {name}")
        if len(fitting) > 1:
            raise ValueError(
                f"{where}: {name} may be {self.shown(fitting[0])} or {self.shown(fitting[1])}: write more of its path"
            )
        return fitting[0]


def read_image_list(file: str | Path, ids: Sequence[str]) -> list[int]:
    """Indices of the images that a file names, one a line, with or without ending and path, as VOC's `test.txt` does.

    Raises:
        ValueError: no such file, no names in it, one that fits no image or several, or an image that is named twice.
    """
    path = Path(file)
    if not path.is_file():
        raise ValueError(f"no file {str(file)!r}")
    names = ImageNames(ids=ids)
    lines: dict[int, int] = {}
    unknown = []
    for number, line in enumerate(path.read_text(encoding="utf-8-sig", errors="surrogateescape").splitlines(), 1):
        if not (name := line.strip()):
            continue
        if not (fitting := names.fitting(name)):
            unknown.append(f"line {number} ({name})")
            continue
        index = names.only(fitting, name, f"{file} line {number}")
        if index in lines:
            raise ValueError(f"{file} line {number}: {name} stands there already, in line {lines[index]}")
        lines[index] = number
    if unknown:
        raise ValueError(f"{file} names images that are not there: {some(unknown)}; others are {some(ids, 2)}")
    if not lines:
        raise ValueError(f"{file} names no images")
    return sorted(lines)


NOT_AT_ALL = (0, False)


def _fit(wanted: str, image: _Path, known: frozenset[str]) -> tuple[int, bool]:
    """How many folders and files a name has in common with an image's path, and whether they are the same."""
    path = image.path
    if f"/{path}".endswith(f"/{wanted}"):
        return wanted.count("/") + 1, path == wanted
    if not wanted.endswith(f"/{path}"):
        return NOT_AT_ALL
    folder = wanted.removesuffix(f"/{path}").rsplit("/", 1)[-1]
    return (path.count("/") + 1, False) if folder in image.folders or folder not in known else NOT_AT_ALL


def _paths(name: str, folder: str) -> list[_Path]:
    """How an image may be named."""
    folders = _names(folder) if folder else ()
    if name.endswith(")") and (of_hub := HUB_ID.fullmatch(name)):
        split, number, file = of_hub.groups()
        return [_Path(name), _Path(f"{split}/{number}"), _Path(file, _names(split))]
    if ".tar/" in name and (of_shard := SHARD_ID.fullmatch(name)):
        return [_Path(name, folders), _Path(of_shard["path"], (of_shard["shard"], *folders))]
    return [_Path(name, folders)]


def _names(folder: str) -> tuple[str, ...]:
    """Of a folder: that of a split may have two."""
    return next((names for names in SPLIT_NAMES.values() if folder in names), (folder,))


def _file(name: str) -> str:
    """What `ImageNames` looks up: the file without folders, ending and capitals."""
    return without_ending(name.rsplit("/", 1)[-1]).casefold()


def without_ending(name: str) -> str:
    """Without `.jpg` or another ending of images."""
    bare, ending = os.path.splitext(name)
    return bare if ending.lower() in IMAGE_SUFFIXES else name
