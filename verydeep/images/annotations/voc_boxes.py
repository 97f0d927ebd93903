"""Pascal VOC's XML files, of ILSVRC's kind too, to boxes."""

from collections.abc import Iterator
from pathlib import Path
from xml.etree import ElementTree

from verydeep.images.annotations.annotation import Annotation, Listed, four_numbers, stated_size

SIDES = ("xmin", "ymin", "xmax", "ymax")


def voc_boxes(path: Path) -> Iterator[Annotation | Listed]:
    """The image of a file, and its boxes.

    Pixels are counted from 1 there, and the last one is part of the box; here that is turned into edges.

    Raises:
        ValueError: it is damaged.
    """
    root = _root(path)
    image = (root.findtext("filename") or "").strip() or path.stem
    size = stated_size(root.findtext("size/width"), root.findtext("size/height"), str(path))
    yield Listed(image, str(path))
    for number, found in enumerate(root.iter("object"), 1):
        where = f"{path} object {number}"
        sides = {side: (found.findtext(f"bndbox/{side}") or "").strip() for side in SIDES}
        if missing := [side for side, text in sides.items() if not text]:
            raise ValueError(f"{where} has no {', '.join(missing)} in its bndbox")
        x0, y0, x1, y1 = four_numbers([*sides.values()], where)
        name, difficult = ((found.findtext(tag) or "").strip() for tag in ("name", "difficult"))
        yield Annotation(image, (x0 - 1, y0 - 1, x1, y1), name or None, where, difficult not in ("", "0"), size)


def _root(path: Path) -> ElementTree.Element:
    """Of a file's elements, their names without namespaces."""
    try:
        root = ElementTree.parse(path).getroot()
    except (ElementTree.ParseError, LookupError, ValueError) as error:  # the latter two: an encoding it cannot read
        raise ValueError(f"{path} is not XML that can be read: {error}") from error
    for element in root.iter():
        element.tag = element.tag.rpartition("}")[2]
    return root
