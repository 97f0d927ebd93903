"""Images by the names that files of boxes, of labels and of test images give them."""

import os
import re
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from verydeep.ilsvrc_classes import normal_form
from verydeep.images.image_kinds import IMAGE_SUFFIXES
from verydeep.images.sources.source import ImagePath, Source
from verydeep.images.sources.splits import SPLIT_NAMES
from verydeep.machine.text_files import read_text
from verydeep.numbers import first_few

_NO_FIT = (0, False)


def paths_of(source: Source) -> list[tuple[ImagePath, ...]]:
    """List the paths that may name each image of a source."""
    return [source.paths(index) for index in range(len(source))]


@dataclass(frozen=True, kw_only=True)
class ImageNames:
    """Images that other files name by the end of their paths, or by longer paths."""

    paths: Sequence[tuple[ImagePath, ...]]
    """Paths of each image; the first one is its id."""

    @cached_property
    def _slashed(self) -> list[list[ImagePath]]:
        return [[ImagePath(_compared(path), folders) for path, folders in paths] for paths in self.paths]

    @cached_property
    def _known(self) -> frozenset[str]:
        """Folders that only some of the images are in: where one is that of a split, those of all splits."""
        known = frozenset(folder for paths in self.paths for path in paths for folder in path.folders)
        return known | SPLIT_NAMES if known & SPLIT_NAMES else known

    @cached_property
    def _known_folded(self) -> frozenset[str]:
        return frozenset(map(str.casefold, self._known))

    @cached_property
    def _by_file(self) -> dict[str, list[int]]:
        by_file: dict[str, list[int]] = defaultdict(list)
        for index, paths in enumerate(self._slashed):
            for key in {_file(path.path) for path in paths}:
                by_file[key].append(index)
        return by_file

    def fitting(self, name: str) -> list[int]:
        r"""Return the indices of the images that a name may mean: of the two paths, the longer ends with the shorter.

        Whole folder names count, `\` is `/`, and the folder of another split than the image's does not fit. Of several
        images those win whose paths have most of the name, and among these one whose path is exactly the name. A name
        without ending fits any ending, and case is ignored where nothing fits otherwise.
        """
        wanted = re.sub(r"^(\./|/)+", "", _compared(name))
        candidates = self._by_file.get(_file(wanted), [])
        ways: list[Callable[[str], str]] = [str, _without_ending] if _without_ending(wanted) == wanted else [str]
        for fold in [*ways, str.casefold]:
            end, known = fold(wanted), self._known_folded if fold is str.casefold else self._known
            fits = {i: max(_fit(end, _folded(path, fold), known) for path in self._slashed[i]) for i in candidates}
            if (best := max(fits.values(), default=_NO_FIT)) != _NO_FIT:
                return [index for index, fit in fits.items() if fit == best]
        return []

    def name(self, index: int) -> str:
        """Name an image for messages: its id, with its folder where there are several."""
        path, folders = self.paths[index][0]
        return "/".join([*folders[:1], path]) if self._several_folders else path

    @cached_property
    def _several_folders(self) -> bool:
        return len({paths[0].folders[:1] for paths in self.paths}) > 1

    def only(self, fitting: Sequence[int], name: str, where: str) -> int:
        """Return the one image that fits.

        Raises:
            ValueError: none does, or several; the message says `where` they are named.
        """
        if not fitting:
            raise ValueError(f"{where}: no image is called {name}")
        if len(fitting) > 1:
            raise ValueError(
                f"{where}: {name} may be {self.name(fitting[0])} or {self.name(fitting[1])}: write more of its path"
            )
        return fitting[0]


def read_image_list(file: str | Path, source: Source) -> list[int]:
    """Return the indices of the images that a file names, one a line, with or without ending and path.

    VOC's `test.txt` is such a file.

    Raises:
        ValueError: no such file, no names in it, one that fits no image or several, or an image that is named twice.
    """
    path = Path(file)
    if not path.is_file():
        raise ValueError(f"no file {str(file)!r}")
    names = ImageNames(paths=paths_of(source))
    lines: dict[int, int] = {}
    unknown = []
    for number, line in enumerate(read_text(path).splitlines(), 1):
        if not (name := line.strip()):
            continue
        if not (fitting := names.fitting(name)):
            unknown.append(f"line {number} ({name})")
            continue
        index = names.only(fitting, name, f"{file} line {number}")
        if index in lines:
            raise ValueError(f"{file} line {number}: {name} is already listed on line {lines[index]}")
        lines[index] = number
    if unknown:
        raise ValueError(
            f"{file} names images that are not there: {first_few(unknown)}; others are {first_few(source.ids, 2)}"
        )
    if not lines:
        raise ValueError(f"{file} names no images")
    return sorted(lines)


def _compared(name: str) -> str:
    return normal_form(name.replace("\\", "/"))


def _fit(wanted: str, image: ImagePath, known: frozenset[str]) -> tuple[int, bool]:
    """Return how many folders and files a name shares with an image's path, and whether the two are the same.

    A name may also be the name of a split, followed by the end of a path in it.
    """
    path = image.path
    if f"/{path}".endswith(f"/{wanted}"):
        return wanted.count("/") + 1, path == wanted
    split, _, rest = wanted.partition("/")
    if rest and split in SPLIT_NAMES and split in image.folders and f"/{path}".endswith(f"/{rest}"):
        return rest.count("/") + 1, False  # `train/1.jpg` for `train/cat/1.jpg`
    if not wanted.endswith(f"/{path}"):
        return _NO_FIT
    folder = wanted.removesuffix(f"/{path}").rsplit("/", 1)[-1]
    return (path.count("/") + 1, False) if folder in image.folders or folder not in known else _NO_FIT


def _folded(path: ImagePath, fold: Callable[[str], str]) -> ImagePath:
    return path if fold is str else ImagePath(fold(path.path), tuple(map(fold, path.folders)))


def _file(name: str) -> str:
    """Return the key by which `ImageNames` looks up: the file without folders, ending and capitals."""
    return _without_ending(name.rsplit("/", 1)[-1]).casefold()


def _without_ending(name: str) -> str:
    """Remove `.jpg` or another ending of images."""
    bare, ending = os.path.splitext(name)
    return bare if ending.lower() in IMAGE_SUFFIXES else name
