"""Files that say which classes each image shows: CSV, Pascal VOC and COCO, to an array of labels."""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from verydeep.images.annotations.annotation import Annotation, quoted
from verydeep.images.annotations.box_files import read_annotations
from verydeep.images.annotations.csv_boxes import COLUMNS as BOX_COLUMNS
from verydeep.images.annotations.csv_boxes import FILE_NAMES, annotation_of, csv_lines, named_columns, plain
from verydeep.images.annotations.image_names import ImageNames
from verydeep.images.sources.source import natural_order, some
from verydeep.presentation.numbers import plural

COLUMNS = ("file", "class")
"""Of a CSV file of labels; one of boxes will do as well."""

SHOWN, NOT_SHOWN, NOT_COUNTED = 1, -1, 0
"""What an image is for a class."""


class Label(NamedTuple):
    """What a file says of an image."""

    image: str
    class_name: str | None
    """None: that it is there, with or without other labels."""
    difficult: bool
    of_box: bool
    """Then an image may have several of a class."""
    where: str
    """`labels.csv line 118`, say."""


@dataclass(frozen=True, kw_only=True)
class SeveralLabels:
    """Which classes each image of a source shows."""

    classes: tuple[str, ...]
    shown: NDArray[np.int8]
    """[N, classes]: `SHOWN`, `NOT_SHOWN`, or `NOT_COUNTED` where all its objects of the class are difficult."""


def several_labels(file: str | Path, ids: Sequence[str]) -> SeveralLabels:
    """What a file says that the images of a source show.

    CSV: `file,class`, a line for each label, with or without a first line that names the columns; `file,` is an image
    that shows none of the classes. CSV of boxes, COCO and VOC: the classes of an image's boxes. An image whose objects
    of a class are all difficult counts neither as showing it nor as not showing it, as in VOC's own evaluation. What
    image a name means, `ImageNames.fitting` says.

    Args:
        file: a .csv, .json (COCO) or .xml file, or a folder of .xml files.
        ids: names of all images, as the source has them.

    Raises:
        ValueError: unusable file, a name that fits no image or several, an image that the file does not name, a label
            that stands there twice, or fewer than two classes; the message says where.
    """
    names, labels = ImageNames(ids=ids), list(_read(Path(file)))
    of_images: dict[int, list[Label]] = defaultdict(list)
    unknown: list[str] = []
    for label in labels:
        if fitting := names.fitting(label.image):
            of_images[names.only(fitting, label.image, label.where)].append(label)
        else:
            unknown.append(f"{label.where} ({label.image})")
    if unknown:
        raise ValueError(f"labels of images that are not there: {some(unknown, 3)}; images are {some(ids, 2)}")
    if missing := [name for index, name in enumerate(ids) if index not in of_images]:
        how = ": a line `name,` is for an image that shows none of the classes" if Path(file).suffix == ".csv" else ""
        raise ValueError(f"{file} does not say what {some(missing, 3)} {plural('shows', len(missing), 'show')}{how}")
    for its in of_images.values():
        _check(its)
    classes = sorted({label.class_name for label in labels if label.class_name is not None}, key=natural_order)
    if len(classes) < 2:
        raise ValueError(f"{file} has fewer than two classes: {some(classes) or 'none'}")
    places = {name: place for place, name in enumerate(classes)}
    shown = np.full((len(ids), len(classes)), NOT_SHOWN, np.int8)
    for index, its in of_images.items():
        for label in sorted(its, key=lambda label: not label.difficult):  # one that is not difficult decides
            if label.class_name is not None:
                shown[index, places[label.class_name]] = NOT_COUNTED if label.difficult else SHOWN
    return SeveralLabels(classes=tuple(classes), shown=shown)


def _read(path: Path) -> Iterator[Label]:
    if path.suffix.lower() == ".csv" and path.is_file():
        yield from _csv(path)
        return
    for found in read_annotations(path, "labels"):
        if isinstance(found, Annotation):
            yield _of_box(found)
        else:
            yield Label(found.image, None, False, True, found.where)


def _csv(path: Path) -> Iterator[Label]:
    columns: Sequence[str] = BOX_COLUMNS
    for place, (number, cells) in enumerate(csv_lines(path)):
        where, of_labels = f"{path} line {number}", len(cells) == len(COLUMNS)
        if place == 0 and (named := _named(cells, where)):
            columns = named
        elif of_labels and cells[0]:
            yield Label(cells[0], cells[1] or None, False, False, where)
        elif of_labels or len(cells) < len(BOX_COLUMNS) - 1:
            raise ValueError(f"{where}: a line is {','.join(COLUMNS)}, one for each label, not {quoted(cells)}")
        else:
            yield _of_box(annotation_of(cells, where, columns))


def _named(cells: Sequence[str], where: str) -> Sequence[str] | None:
    """What a first line calls the columns of boxes, if it names any."""
    if len(cells) != len(COLUMNS):
        return named_columns(cells, where)
    return BOX_COLUMNS if plain(cells[0]) in {*FILE_NAMES, "name"} else None


def _of_box(found: Annotation) -> Label:
    if found.class_name is None:
        raise ValueError(f"{found.where}: a box without a class says nothing of what {found.image} shows")
    return Label(found.image, found.class_name, found.difficult, True, found.where)


def _check(its: Sequence[Label]) -> None:
    """Refuses what a file of labels says twice of one image, and what contradicts itself."""
    before: dict[str | None, Label] = {}
    for label in its:
        if label.of_box:
            continue
        if (other := before.get(label.class_name)) is not None:
            raise ValueError(
                f"{label.where}: {label.image},{label.class_name or ''} stands there already, in {other.where}"
            )
        before[label.class_name] = label
    if None in before and len(its) > 1:
        other = next(label for label in its if label.class_name is not None)
        raise ValueError(
            f"{before[None].where}: {before[None].image} shows none of the classes, but {other.class_name} by "
            f"{other.where}"
        )
