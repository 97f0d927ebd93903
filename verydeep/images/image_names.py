"""Images by the ends of their paths, as files of boxes, of labels and of test images name them."""

import os
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from verydeep.images.sources import IMAGE_SUFFIXES, some


@dataclass(frozen=True, kw_only=True)
class ImageNames:
    """Images of a source that other files name, with as much of their paths as they like."""

    ids: Sequence[str]

    @cached_property
    def _by_file(self) -> dict[str, list[int]]:
        found: dict[str, list[int]] = defaultdict(list)
        for index, name in enumerate(self.ids):
            found[_file(name)].append(index)
        return found

    def fitting(self, name: str) -> list[int]:
        """Indices of the images whose id ends with this name, whole folder names counted."""
        end = f"/{name.removeprefix('./').removeprefix('/')}"
        return [index for index in self._by_file.get(_file(name), []) if f"/{self.ids[index]}".endswith(end)]

    def only(self, fitting: Sequence[int], name: str, where: str) -> int:
        """The one image that fits.

        Raises:
            ValueError: none does, or several; the message says `where` they are named.
        """
        if not fitting:
            raise ValueError(f"{where}: no image is called {name}")
        if len(fitting) > 1:
            raise ValueError(
                f"{where}: {name} may be {self.ids[fitting[0]]} or {self.ids[fitting[1]]}: write more of its path"
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
    whole, bare = ImageNames(ids=ids), ImageNames(ids=[_without_ending(name) for name in ids])
    lines: dict[int, int] = {}
    unknown = []
    for number, line in enumerate(path.read_text(encoding="utf-8-sig", errors="surrogateescape").splitlines(), 1):
        if not (name := line.strip()):
            continue
        names, fitting = (whole, its) if (its := whole.fitting(name)) else (bare, bare.fitting(name))
        if not fitting:
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


def _file(name: str) -> str:
    return name.rsplit("/", 1)[-1]


def _without_ending(name: str) -> str:
    bare, ending = os.path.splitext(name)
    return bare if ending.lower() in IMAGE_SUFFIXES else name
