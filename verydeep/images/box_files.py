"""Files of boxes: CSV, Pascal VOC (a folder of XML files) and COCO (JSON), to boxes that know where they stand."""

import csv
import json
import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple
from xml.etree import ElementTree

COLUMNS = ("file", "x0", "y0", "x1", "y1", "class")
"""Of a CSV file, in this order; the class may be left out."""


class Annotation(NamedTuple):
    """One box as a file has it."""

    image: str
    """Name of the image file, with as much of its path as the file of boxes says."""
    box: tuple[float, float, float, float]
    """(x0, y0, x1, y1), edges in pixels from the upper left corner."""
    class_name: str | None
    """None where the file does not say."""
    where: str
    """`boxes.csv line 118`, say."""
    difficult: bool = False
    """So VOC calls an object that is hard to recognise: whether its class was found does not count."""


class Listed(NamedTuple):
    """An image that a file knows, with objects or without."""

    image: str
    where: str


def read_boxes(path: str | Path) -> list[Annotation]:
    """All boxes of a CSV file, a COCO file (.json), an XML file or a folder of XML files (Pascal VOC).

    CSV: `file,x0,y0,x1,y1,class`, with or without a first line that names the columns. VOC counts pixels from 1 and
    includes the last one; here that is turned into edges.

    Raises:
        ValueError: no such file, another kind, or one that is damaged; the message says where.
    """
    return [found for found in read_annotations(path, "boxes") if isinstance(found, Annotation)]


def read_annotations(path: str | Path, what: str) -> Iterator[Annotation | Listed]:
    """The same, and before the objects of VOC's and of COCO's images the images themselves.

    `what` the file is to have, for messages.

    Raises:
        ValueError: as `read_boxes`.
    """
    path = Path(path)
    readers = {".csv": _csv, ".xml": _voc, ".json": _coco}
    if path.is_dir():
        files = sorted(path.glob("*.xml"))
        if not files:
            raise ValueError(
                f"no XML files in {path}: {what} are a CSV file, a COCO file or a folder of VOC's XML files"
            )
    else:
        files = [path]
        if path.suffix.lower() not in readers:
            raise ValueError(f"{what} are a .csv, .xml or .json file, or a folder of .xml files, not {path}")
        if not path.is_file():
            raise ValueError(f"no file {str(path)!r}")
    for file in files:
        yield from readers[file.suffix.lower()](file)


def csv_lines(path: Path) -> Iterator[tuple[int, list[str]]]:
    """The number and the cells of every line of a CSV file that is not empty.

    Raises:
        ValueError: it is damaged.
    """
    with path.open(newline="", encoding="utf-8-sig", errors="surrogateescape") as file:
        reader = csv.reader(file)
        try:
            for row in reader:
                if any(cells := [cell.strip() for cell in row]):
                    yield reader.line_num, cells
        except csv.Error as error:
            raise ValueError(f"{path} line {reader.line_num}: {error}") from error


def _csv(path: Path) -> Iterator[Annotation]:
    for number, cells in csv_lines(path):
        if number > 1 or not names_columns(cells):
            yield annotation_of(cells, f"{path} line {number}")


def names_columns(cells: Sequence[str]) -> bool:
    """Whether a first line is names of columns: there are no numbers where a box would be."""
    return not any(map(_is_number, cells[1:5]))


def annotation_of(cells: Sequence[str], where: str) -> Annotation:
    """A box from a line's cells.

    Raises:
        ValueError: they are something else.
    """
    if len(cells) not in (len(COLUMNS), len(COLUMNS) - 1) or not cells[0]:
        raise ValueError(f"{where}: a line is {','.join(COLUMNS)}, not {','.join(cells)}")
    return Annotation(cells[0], _numbers(cells[1:5], where), "".join(cells[5:]) or None, where)


def _voc(path: Path) -> Iterator[Annotation | Listed]:
    try:
        root = ElementTree.parse(path).getroot()
    except ElementTree.ParseError as error:
        raise ValueError(f"{path} is not XML: {error}") from error
    image = (root.findtext("filename") or "").strip() or path.stem
    yield Listed(image, str(path))
    for number, found in enumerate(root.iter("object"), 1):
        where = f"{path} object {number}"
        sides = [found.findtext(f"bndbox/{side}") for side in ("xmin", "ymin", "xmax", "ymax")]
        x0, y0, x1, y1 = _numbers(sides, where)
        name, difficult = ((found.findtext(tag) or "").strip() for tag in ("name", "difficult"))
        yield Annotation(image, (x0 - 1, y0 - 1, x1, y1), name or None, where, difficult not in ("", "0"))


def _coco(path: Path) -> Iterator[Annotation | Listed]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        images = {image["id"]: str(image["file_name"]) for image in found["images"]}
        names = {category["id"]: str(category["name"]) for category in found.get("categories", [])}
        annotations = list(found["annotations"])
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        raise ValueError(f"{path} is not in COCO's format: {type(error).__name__} {error}") from error
    yield from (Listed(image, f"{path} image {number}") for number, image in enumerate(images.values(), 1))
    for number, annotation in enumerate(annotations, 1):
        where = f"{path} annotation {number}"
        try:
            image, box, category = images[annotation["image_id"]], annotation["bbox"], annotation.get("category_id")
        except (LookupError, TypeError, AttributeError) as error:
            raise ValueError(f"{where} has no box of a listed image: {type(error).__name__} {error}") from error
        x, y, width, height = _numbers(box, where)
        yield Annotation(image, (x, y, x + width, y + height), names.get(category), where)


def _numbers(cells: Any, where: str) -> tuple[float, float, float, float]:
    try:
        x0, y0, x1, y1 = (float(cell) for cell in cells)
    except (TypeError, ValueError):
        raise ValueError(f"{where}: a box is four numbers, not {cells!r}") from None
    if not all(map(math.isfinite, (x0, y0, x1, y1))):
        raise ValueError(f"{where}: a box is four finite numbers, not {cells!r}")
    return x0, y0, x1, y1


def _is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return True
