"""Files of boxes: CSV, Pascal VOC (a folder of XML files) and COCO (JSON)."""

import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from verydeep.images.annotations.annotation import Annotation, Listed, finite, four_numbers, stated_size
from verydeep.images.annotations.csv_boxes import csv_boxes
from verydeep.images.decode import Size

_Image = tuple[str, Size | None]
"""Name, and height and width where COCO's file has them."""

_SIDES = ("xmin", "ymin", "xmax", "ymax")


def read_boxes(path: str | Path) -> list[Annotation]:
    """Read all boxes of a CSV file, a COCO file (.json), an XML file, or of the XML files in a folder and below (VOC).

    CSV: `file,x0,y0,x1,y1,class`, or in the order that a first line of names gives.

    Raises:
        ValueError: no such file, another kind, or one that is damaged; the message says where.
    """
    return [entry for entry in read_annotations(path, "boxes") if isinstance(entry, Annotation)]


def read_annotations(path: str | Path, what: str) -> Iterator[Annotation | Listed]:
    """Read the boxes of such files and, before them, the images that VOC's and COCO's files list.

    `what` the file should have is for messages.

    Raises:
        ValueError: as `read_boxes`.
    """
    path = Path(path)
    if path.is_dir():
        files = sorted(file for file in path.rglob("[!.]*") if file.suffix.lower() == ".xml")
        if not files:
            raise ValueError(
                f"no XML files in {path}: {what} are a CSV file, a COCO file or a folder of VOC's XML files"
            )
    else:
        files = [path]
        if path.suffix.lower() not in _READERS:
            raise ValueError(f"{what} are a .csv, .xml or .json file, or a folder of .xml files, not {path}")
        if not path.is_file():
            raise ValueError(f"no file {str(path)!r}")
    for file in files:
        yield from _READERS[file.suffix.lower()](file)


def _voc_boxes(path: Path) -> Iterator[Annotation | Listed]:
    """Read the image of a file, and its boxes.

    The file counts pixels from 1, and the last one is part of the box; boxes have edges instead.

    Raises:
        ValueError: it is damaged.
    """
    root = _root(path)
    image = (root.findtext("filename") or "").strip() or path.stem
    size = stated_size(root.findtext("size/width"), root.findtext("size/height"), str(path))
    yield Listed(image, str(path))
    for number, element in enumerate(root.iter("object"), 1):
        where = f"{path} object {number}"
        sides = {side: (element.findtext(f"bndbox/{side}") or "").strip() for side in _SIDES}
        if missing := [side for side, text in sides.items() if not text]:
            raise ValueError(f"{where} has no {', '.join(missing)} in its bndbox")
        x0, y0, x1, y1 = four_numbers([*sides.values()], where)
        name, difficult = ((element.findtext(tag) or "").strip() for tag in ("name", "difficult"))
        yield Annotation(image, (x0 - 1, y0 - 1, x1, y1), name or None, where, difficult not in ("", "0"), size)


def _root(path: Path) -> ElementTree.Element:
    """Return the root of a file's elements, their names without namespaces."""
    try:
        root = ElementTree.parse(path).getroot()
    except (ElementTree.ParseError, LookupError, ValueError) as error:  # the latter two: an encoding it cannot read
        raise ValueError(f"{path} is not valid XML: {error}") from error
    for element in root.iter():
        element.tag = element.tag.rpartition("}")[2]
    return root


def _coco_boxes(path: Path) -> Iterator[Annotation | Listed]:
    """Read the images of a file, and its boxes.

    Raises:
        ValueError: it is damaged.
    """
    try:
        contents = json.loads(path.read_text(encoding="utf-8-sig"))
        images = _by_id(contents["images"], "image", path)
        categories = _by_id(contents.get("categories") or [], "category", path)
        listed = {key: _image(image, f"{path} image {number}") for number, (key, image) in enumerate(images.items(), 1)}
        names = {key: str(category["name"]) for key, category in categories.items()}
        annotations = list(contents["annotations"])
    except _DamagedError:
        raise
    except LookupError as error:
        raise ValueError(f"{path} is not in COCO's format: it has no {error}") from error
    except (ValueError, TypeError, AttributeError, RecursionError) as error:
        raise ValueError(f"{path} is not in COCO's format: {error}") from error
    yield from (Listed(name, f"{path} image {number}") for number, (name, _) in enumerate(listed.values(), 1))
    for number, annotation in enumerate(annotations, 1):
        yield _annotation(annotation, listed, names, f"{path} annotation {number}")


class _DamagedError(ValueError):
    """A damaged file; the message is complete."""


def _by_id(entries: list[dict[str, Any]], kind: str, path: Path) -> dict[Any, dict[str, Any]]:
    by_id: dict[Any, dict[str, Any]] = {}
    for number, entry in enumerate(entries, 1):
        if entry["id"] in by_id:
            raise _DamagedError(f"{path} {kind} {number}: its id, {entry['id']!r}, is that of another {kind}")
        by_id[entry["id"]] = entry
    return by_id


def _image(image: dict[str, Any], where: str) -> _Image:
    name = image["file_name"]
    if not isinstance(name, str) or not name:
        raise _DamagedError(f"{where}: its file_name is not a name but {name!r}")
    try:
        return name, stated_size(image.get("width"), image.get("height"), where)
    except ValueError as error:
        raise _DamagedError(str(error)) from error


def _annotation(annotation: Any, images: Mapping[Any, _Image], names: Mapping[Any, str], where: str) -> Annotation:
    if not isinstance(annotation, dict):
        raise ValueError(f"{where} is not an annotation")
    image_id, category_id = annotation.get("image_id"), annotation.get("category_id")
    _check_known(image_id, images, "image_id", "image", where)
    if category_id is not None:
        _check_known(category_id, names, "category_id", "category", where)
    sides = annotation.get("bbox")
    if not isinstance(sides, list):
        raise ValueError(f"{where} has no bbox, a list of x, y, width, height")
    x, y, width, height = four_numbers(sides, where)
    box = finite((x, y, x + width, y + height), sides, where)
    name, size = images[image_id]
    class_name, crowd = names.get(category_id), bool(annotation.get("iscrowd"))
    return Annotation(name, box, class_name, where, size=size, crowd=crowd)


def _check_known(key: Any, known: Mapping[Any, object], field: str, kind: str, where: str) -> None:
    if isinstance(key, list | dict) or key not in known:
        raise ValueError(f"{where}: the file has no {kind} with its {field}, {key!r}")


_READERS: dict[str, Callable[[Path], Iterator[Annotation | Listed]]] = {
    ".csv": csv_boxes,
    ".xml": _voc_boxes,
    ".json": _coco_boxes,
}
