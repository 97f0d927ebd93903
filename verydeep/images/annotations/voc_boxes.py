"""Boxes of Pascal VOC's XML files, which ILSVRC has too."""

from collections.abc import Iterator
from pathlib import Path
from xml.etree import ElementTree

from verydeep.images.annotations.annotation import Annotation, Listed, four_numbers, stated_size

_SIDES = ("xmin", "ymin", "xmax", "ymax")


def voc_boxes(path: Path) -> Iterator[Annotation | Listed]:
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
