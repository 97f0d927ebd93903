"""Files of boxes: CSV, Pascal VOC (a folder of XML files) and COCO (JSON), to boxes that know where they stand."""

import csv
import json
import math
from collections.abc import Iterator
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


def read_boxes(path: str | Path) -> list[Annotation]:
    """All boxes of a CSV file, a COCO file (.json), an XML file or a folder of XML files (Pascal VOC).

    CSV: `file,x0,y0,x1,y1,class`, with or without a first line that names the columns. VOC counts pixels from 1 and
    includes the last one; here that is turned into edges.

    Raises:
        ValueError: no such file, another kind, or one that is damaged; the message says where.
    """
    path = Path(path)
    if path.is_dir():
        files = sorted(path.glob("*.xml"))
        if not files:
            raise ValueError(
                f"no XML files in {path}: boxes are a CSV file, a COCO file or a folder of VOC's XML files"
            )
        return [annotation for file in files for annotation in _voc(file)]
    readers = {".csv": _csv, ".xml": _voc, ".json": _coco}
    if path.suffix.lower() not in readers:
        raise ValueError(f"boxes are a .csv, .xml or .json file, or a folder of .xml files, not {path}")
    if not path.is_file():
        raise ValueError(f"no file {str(path)!r}")
    return list(readers[path.suffix.lower()](path))


def _csv(path: Path) -> Iterator[Annotation]:
    with path.open(newline="", encoding="utf-8-sig", errors="surrogateescape") as file:
        reader = csv.reader(file)
        try:
            for row in reader:
                where, cells = f"{path} line {reader.line_num}", [cell.strip() for cell in row]
                if not any(cells) or (reader.line_num == 1 and not any(map(_is_number, cells[1:5]))):
                    continue  # empty, or names of columns
                if len(cells) not in (len(COLUMNS), len(COLUMNS) - 1) or not cells[0]:
                    raise ValueError(f"{where}: a line is {','.join(COLUMNS)}, not {','.join(row)}")
                yield Annotation(cells[0], _numbers(cells[1:5], where), "".join(cells[5:]) or None, where)
        except csv.Error as error:
            raise ValueError(f"{path} line {reader.line_num}: {error}") from error


def _voc(path: Path) -> Iterator[Annotation]:
    try:
        root = ElementTree.parse(path).getroot()
    except ElementTree.ParseError as error:
        raise ValueError(f"{path} is not XML: {error}") from error
    image = (root.findtext("filename") or "").strip() or path.stem
    for number, found in enumerate(root.iter("object"), 1):
        where = f"{path} object {number}"
        sides = [found.findtext(f"bndbox/{side}") for side in ("xmin", "ymin", "xmax", "ymax")]
        x0, y0, x1, y1 = _numbers(sides, where)
        yield Annotation(image, (x0 - 1, y0 - 1, x1, y1), (found.findtext("name") or "").strip() or None, where)


def _coco(path: Path) -> Iterator[Annotation]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        images = {image["id"]: str(image["file_name"]) for image in found["images"]}
        names = {category["id"]: str(category["name"]) for category in found.get("categories", [])}
        annotations = list(found["annotations"])
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        raise ValueError(f"{path} is not in COCO's format: {type(error).__name__} {error}") from error
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
