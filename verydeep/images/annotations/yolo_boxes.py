"""YOLO's labels: a folder of .txt files, one for each image, with a line `class x y width height` for each object."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from verydeep.images.annotations.annotation import Annotation, Listed, four_numbers, quoted
from verydeep.images.sources.inventory import is_hidden
from verydeep.images.sources.splits import whole_number
from verydeep.machine.libraries import library
from verydeep.machine.text_files import read_text
from verydeep.numbers import counted, plural

_NAME_FILES = ("classes.txt", "obj.names")
"""Files with one class name per line, in the folder or up to two above; or `names:` in a .yaml there."""

_LABELS = "labels"
"""Folder in which data sets have these files, beside that of the images."""

_MOST_YAML_BYTES = 2**20


def yolo_files(folder: Path) -> list[Path]:
    """List the .txt files in a folder and below that may be labels: not lists of names, READMEs or hidden files."""
    return sorted(
        file
        for file in folder.rglob("*.txt")
        if file.name not in _NAME_FILES
        and not file.name.lower().startswith("readme")
        and not is_hidden(file.relative_to(folder))
    )


def yolo_boxes(folder: Path, files: Sequence[Path]) -> Iterator[Annotation | Listed]:
    """Read each image that has a file, and its boxes, whose edges are shares of the image's sides.

    A class is called by its number, or by its name where there is a file of names.

    Raises:
        ValueError: a line is something else, or its class has no name though there is a file of names.
    """
    names = _names(folder)
    for file in files:
        parts = [part for part in file.relative_to(folder).with_suffix("").parts if part != _LABELS]
        image = "/".join(parts)
        yield Listed(image, str(file))
        for number, line in enumerate(read_text(file).splitlines(), 1):
            if cells := line.split():
                yield _box(cells, image, f"{file} line {number}", names)


def _box(cells: Sequence[str], image: str, where: str, names: Sequence[str]) -> Annotation:
    if len(cells) != 5 or (label := whole_number(cells[0])) is None:
        raise ValueError(f"{where}: YOLO's lines are class x y width height, the class a number, not {quoted(cells)}")
    x, y, width, height = four_numbers(cells[1:], where)
    if not (0 <= x <= 1 and 0 <= y <= 1 and 0 <= width <= 1 and 0 <= height <= 1):
        raise ValueError(f"{where}: x, y, width and height are shares of the image's sides, 0..1, not {quoted(cells)}")
    if names and label >= len(names):
        only = f"{plural('is', len(names), 'are')} only {counted(len(names), 'name')}"
        raise ValueError(f"{where}: class {label} has no name: there {only}, from 0 on")
    box = (x - width / 2, y - height / 2, x + width / 2, y + height / 2)
    return Annotation(image, box, names[label] if names else cells[0], where, relative=True)


def _names(folder: Path) -> list[str]:
    """Return the class names from a file in a folder of labels or just above; an empty list where there is none."""
    for place in (folder, *folder.absolute().parents[:2]):
        for name in _NAME_FILES:
            if (place / name).is_file():
                return [line.strip() for line in read_text(place / name, strict=True).splitlines() if line.strip()]
        for file in sorted([*place.glob("*.yaml"), *place.glob("*.yml")]):
            if names := _names_of_yaml(file):
                return names
    return []


def _names_of_yaml(file: Path) -> list[str]:
    """Return the classes that a data set's .yaml names, as a list or by number from 0; an empty list if it names none.

    Raises:
        ValueError: it cannot be read, or its names are something else.
    """
    if file.stat().st_size > _MOST_YAML_BYTES:
        return []
    yaml = library("yaml", needed_by=str(file), alternative=f"write the names into {_NAME_FILES[0]}, a line each")
    try:
        # All as text: to YAML, classes called `no` and `007` would be false and 7.
        table: Any = yaml.load(read_text(file), Loader=yaml.BaseLoader)
    except (yaml.YAMLError, RecursionError) as error:
        raise ValueError(f"{file} is not YAML: {' '.join(str(error).split())}") from error
    names = table.get("names") if isinstance(table, dict) else None
    if not names:
        return []
    if isinstance(names, dict):
        names = [names.get(str(number)) for number in range(len(names))]
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise ValueError(f"{file}: names are a list, or a name for each number from 0")
    return names
