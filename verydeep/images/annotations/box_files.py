"""Files of boxes: CSV, Pascal VOC (a folder of XML files), COCO (JSON) and YOLO (a folder of .txt files)."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from verydeep.images.annotations.annotation import Annotation, Listed, finite, four_numbers, quoted, stated_size
from verydeep.images.annotations.csv_boxes import TABLE_SUFFIXES, csv_boxes
from verydeep.images.annotations.units import BoxUnits
from verydeep.images.annotations.yolo_boxes import yolo_boxes, yolo_files
from verydeep.images.decode import Size
from verydeep.images.sources.inventory import is_hidden
from verydeep.machine.documents import parse_json
from verydeep.machine.errors import one_line
from verydeep.machine.regular_files import read_file

_Image = tuple[str, Size | None]
"""Name, and height and width where COCO's file has them."""

_Id = int | float | str

_MOST_XML_BYTES = 16 * 2**20
"""Largest XML file that is read; it is of one image."""

_MOST_BYTES = 2 * 2**30
"""Largest COCO file that is read; that of COCO's own 118,000 training images has 0.45 GB."""


@dataclass(frozen=True, kw_only=True)
class _CocoImage:
    id: _Id
    file_name: str
    width: float | str | None = None
    height: float | str | None = None


@dataclass(frozen=True, kw_only=True)
class _CocoCategory:
    id: _Id
    name: str | int | float


@dataclass(frozen=True, kw_only=True)
class _CocoAnnotation:
    image_id: _Id | None = None
    category_id: _Id | None = None
    bbox: list[Any] | None = None
    iscrowd: int | bool | None = None


@dataclass(frozen=True, kw_only=True)
class _Coco:
    """The fields that are read from a COCO file."""

    images: list[_CocoImage]
    annotations: list[_CocoAnnotation]
    categories: list[_CocoCategory] | None = None


_ROUNDING = 0.001
"""How far shares of an image's sides may lie outside 0..1."""

_SIDES = ("xmin", "ymin", "xmax", "ymax")


def read_boxes(path: str | Path, units: BoxUnits | None = None) -> list[Annotation]:
    """Read all boxes of a CSV file, a COCO file (.json), an XML file (VOC), or of a folder of XML or YOLO's .txt files.

    CSV: `file,x0,y0,x1,y1,class`, or in the order that a first line of names gives. `units` are those of the boxes.

    Raises:
        ValueError: a file that is missing, of another kind or damaged, or boxes that are in other units or could be;
            the message says where.
    """
    boxes = [entry for entry in read_annotations(path, "boxes") if isinstance(entry, Annotation)]
    unsaid = [box for box in boxes if not box.relative]
    within = all(_is_within_1(box.box) for box in unsaid)
    if unsaid and within and units is None:
        raise ValueError(
            f"all boxes in {path} lie within 0..1, as shares of an image's width and height do: say --box-units "
            "relative, or --box-units pixels if they are in pixels"
        )
    if units != "relative":
        return boxes
    for box in unsaid:
        if not _is_within_1(box.box):
            raise ValueError(f"{box.where}: with --box-units relative a box lies within 0..1, not {quoted(box.box)}")
    return [box._replace(relative=True) for box in boxes]


def _is_within_1(box: Sequence[float]) -> bool:
    return min(box) >= -_ROUNDING and max(box) <= 1 + _ROUNDING


def read_annotations(path: str | Path, what: str) -> Iterator[Annotation | Listed]:
    """Read the boxes of such files and, before them, the images that VOC's, COCO's and YOLO's files list.

    `what` is the word for the files in messages, `boxes` or `labels`.

    Raises:
        ValueError: as `read_boxes`.
    """
    path = Path(path)
    if path.is_dir():
        files = sorted(
            file for file in path.rglob("*") if file.suffix.lower() == ".xml" and not is_hidden(file.relative_to(path))
        )
        if not files and (of_yolo := yolo_files(path)):
            yield from yolo_boxes(path, of_yolo)
            return
        if not files:
            raise ValueError(
                f"no .xml or .txt files in {path}: {what} are a CSV file, a COCO file, or a folder of VOC's XML "
                "files or of YOLO's .txt files"
            )
    else:
        files = [path]
        if path.suffix.lower() not in _READERS:
            raise ValueError(
                f"{what} are a .csv, .tsv, .xml or .json file, or a folder of .xml or .txt files, not {path}"
            )
        if not path.is_file():
            raise ValueError(f"{path} is not a file" if path.exists() else f"no file {str(path)!r}")
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
        first = 0 if _is_within_1((x0, y0, x1, y1)) and (x0, y0) != (1, 1) else 1  # pixels are counted from 1
        yield Annotation(image, (x0 - first, y0 - first, x1, y1), name or None, where, difficult not in ("", "0"), size)


def _root(path: Path) -> ElementTree.Element:
    """Return the root of a file's elements, their names without namespaces."""
    try:
        root = ElementTree.fromstring(read_file(path, most=_MOST_XML_BYTES))
    except (OSError, ElementTree.ParseError, LookupError, ValueError) as error:  # the last two: an unknown encoding
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
        contents = parse_json(read_file(path, most=_MOST_BYTES), _Coco)
    except (OSError, ValueError) as error:
        raise ValueError(f"{path} is not in COCO's format: {one_line(error)}") from error
    images, names = _images(contents.images, path), _names(contents.categories or [], path)
    yield from (Listed(name, f"{path} image {number}") for number, (name, _) in enumerate(images.values(), 1))
    for number, annotation in enumerate(contents.annotations, 1):
        yield _annotation(annotation, images, names, f"{path} annotation {number}")


def _images(images: Sequence[_CocoImage], path: Path) -> dict[_Id, _Image]:
    _check_ids([image.id for image in images], "image", path)
    return {image.id: _image(image, f"{path} image {number}") for number, image in enumerate(images, 1)}


def _names(categories: Sequence[_CocoCategory], path: Path) -> dict[_Id, str]:
    _check_ids([category.id for category in categories], "category", path)
    return {category.id: str(category.name) for category in categories}


def _check_ids(ids: Sequence[_Id], kind: str, path: Path) -> None:
    seen: set[_Id] = set()
    for number, key in enumerate(ids, 1):
        if key in seen:
            raise ValueError(f"{path} {kind} {number}: its id, {key!r}, is that of another {kind}")
        seen.add(key)


def _image(image: _CocoImage, where: str) -> _Image:
    if not image.file_name:
        raise ValueError(f"{where}: its file_name is not a name but ''")
    return image.file_name, stated_size(image.width, image.height, where)


def _annotation(
    annotation: _CocoAnnotation, images: Mapping[_Id, _Image], names: Mapping[_Id, str], where: str
) -> Annotation:
    image_id, category_id, sides = annotation.image_id, annotation.category_id, annotation.bbox
    if image_id is None or image_id not in images:
        raise ValueError(f"{where}: the file has no image with its image_id, {image_id!r}")
    if category_id is not None and category_id not in names:
        raise ValueError(f"{where}: the file has no category with its category_id, {category_id!r}")
    if sides is None:
        raise ValueError(f"{where} has no bbox, a list of x, y, width, height")
    x, y, width, height = four_numbers(sides, where)
    box = finite((x, y, x + width, y + height), sides, where)
    name, size = images[image_id]
    class_name = None if category_id is None else names[category_id]
    return Annotation(name, box, class_name, where, size=size, crowd=bool(annotation.iscrowd))


_READERS: dict[str, Callable[[Path], Iterator[Annotation | Listed]]] = {
    **dict.fromkeys(TABLE_SUFFIXES, csv_boxes),
    ".xml": _voc_boxes,
    ".json": _coco_boxes,
}
