"""Files of boxes: CSV, Pascal VOC (a folder of XML files) and COCO (JSON)."""

from collections.abc import Callable, Iterator
from pathlib import Path

from verydeep.images.annotations.annotation import Annotation, Listed
from verydeep.images.annotations.coco_boxes import coco_boxes
from verydeep.images.annotations.csv_boxes import csv_boxes
from verydeep.images.annotations.voc_boxes import voc_boxes

_READERS: dict[str, Callable[[Path], Iterator[Annotation | Listed]]] = {
    ".csv": csv_boxes,
    ".xml": voc_boxes,
    ".json": coco_boxes,
}


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
