"""Files of boxes: CSV, Pascal VOC (a folder of XML files) and COCO (JSON), to boxes that know where they stand."""

from collections.abc import Callable, Iterator
from pathlib import Path

from verydeep.images.annotations.annotation import Annotation, Listed
from verydeep.images.annotations.coco_boxes import coco_boxes
from verydeep.images.annotations.csv_boxes import csv_boxes
from verydeep.images.annotations.voc_boxes import voc_boxes

READERS: dict[str, Callable[[Path], Iterator[Annotation | Listed]]] = {
    ".csv": csv_boxes,
    ".xml": voc_boxes,
    ".json": coco_boxes,
}


def read_boxes(path: str | Path) -> list[Annotation]:
    """All boxes of a CSV file, a COCO file (.json), an XML file, or of the XML files in a folder and below (VOC).

    CSV: `file,x0,y0,x1,y1,class`, or in the order that a first line of names says.

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
    if path.is_dir():
        files = sorted(file for file in path.rglob("[!.]*") if file.suffix.lower() == ".xml")
        if not files:
            raise ValueError(
                f"no XML files in {path}: {what} are a CSV file, a COCO file or a folder of VOC's XML files"
            )
    else:
        files = [path]
        if path.suffix.lower() not in READERS:
            raise ValueError(f"{what} are a .csv, .xml or .json file, or a folder of .xml files, not {path}")
        if not path.is_file():
            raise ValueError(f"no file {str(path)!r}")
    for file in files:
        yield from READERS[file.suffix.lower()](file)
