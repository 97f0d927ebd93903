"""Files that say which classes each image shows: CSV, Pascal VOC, COCO and YOLO."""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Int8

from verydeep.ilsvrc_classes import normal_form
from verydeep.images.annotations.annotation import Annotation
from verydeep.images.annotations.box_files import read_annotations
from verydeep.images.annotations.csv_boxes import TABLE_SUFFIXES
from verydeep.images.annotations.image_names import ImageNames, paths_of
from verydeep.images.annotations.label_tables import csv_labels
from verydeep.images.sources.source import Source
from verydeep.images.sources.splits import natural_order
from verydeep.numbers import first_few, plural

SHOWN, _NOT_SHOWN, _NOT_COUNTED = 1, -1, 0
"""The relation of an image to a class."""


class _Label(NamedTuple):
    """One label of an image in a file."""

    image: str
    class_name: str | None
    """None: the image is there, with or without other labels."""
    difficult: bool
    of_box: bool
    """Whether it is the class of a box: an image may have several of those."""
    where: str
    """`labels.csv line 118`, say."""


@dataclass(frozen=True, kw_only=True)
class SeveralLabels:
    """Which classes each image of a source shows."""

    classes: tuple[str, ...]
    labels: Int8[np.ndarray, "N K"]
    """`SHOWN`, `_NOT_SHOWN`, or `_NOT_COUNTED` where all objects of the class in the image are difficult."""


def several_labels(file: str | Path, source: Source, *, separator: str | None = None) -> SeveralLabels:
    """Read from a file which classes the images of a source show.

    CSV: `file,class`, a line for each label, with or without a first line that names the columns; `file,` is an image
    that shows none of the classes. A cell may hold several labels with a `separator` between them, or each class has a
    column of 0 and 1 (`csv_labels`). CSV of boxes, COCO, VOC and YOLO: the classes of an image's boxes. An image whose
    objects of a class are all difficult counts neither as showing it nor as not showing it, as in VOC's own evaluation.
    `ImageNames.fitting` says which image a name means.

    Args:
        file: a .csv, .tsv, .json (COCO) or .xml file, or a folder of .xml or .txt files.
        source: the images.
        separator: the text between several labels in a cell, or `none`.

    Raises:
        ValueError: unusable file, a separator where there are no cells, a name that fits no image or several, an image
            that the file does not name, a label that is listed twice, or fewer than two classes; the message says
            where.
    """
    if separator is not None and Path(file).suffix.lower() not in TABLE_SUFFIXES:
        kinds = " and ".join(TABLE_SUFFIXES)
        raise ValueError(f"--label-separator is for the cells of tables ({kinds}): leave it out with {file}")
    labels = [_normal(label) for label in _read(Path(file), separator)]
    of_images = _by_image(labels, source)
    if missing := [name for index, name in enumerate(source.ids) if index not in of_images]:
        how = (
            ": a line `name,` is for an image that shows none of the classes"
            if Path(file).suffix.lower() in TABLE_SUFFIXES
            else ""
        )
        raise ValueError(
            f"{file} does not say what {first_few(missing, 3)} {plural('shows', len(missing), 'show')}{how}"
        )
    for its_labels in of_images.values():
        _check(its_labels)
    classes = sorted({label.class_name for label in labels if label.class_name is not None}, key=natural_order)
    if len(classes) < 2:
        raise ValueError(f"{file} has fewer than two classes: {first_few(classes) or 'none'}")
    return SeveralLabels(classes=tuple(classes), labels=_as_array(of_images, classes, len(source)))


def _by_image(labels: Sequence[_Label], source: Source) -> dict[int, list[_Label]]:
    names = ImageNames(paths=paths_of(source))
    of_images: dict[int, list[_Label]] = defaultdict(list)
    unknown: list[str] = []
    for label in labels:
        if fitting := names.fitting(label.image):
            of_images[names.only(fitting, label.image, label.where)].append(label)
        else:
            unknown.append(f"{label.where} ({label.image})")
    if unknown:
        raise ValueError(
            f"labels of images that are not there: {first_few(unknown, 3)}; images are {first_few(source.ids, 2)}"
        )
    return of_images


def _as_array(of_images: dict[int, list[_Label]], classes: Sequence[str], images: int) -> Int8[np.ndarray, "N K"]:
    columns = {name: column for column, name in enumerate(classes)}
    array = np.full((images, len(classes)), _NOT_SHOWN, np.int8)
    for index, its_labels in of_images.items():
        for label in sorted(its_labels, key=lambda label: not label.difficult):  # one that is not difficult decides
            if label.class_name is not None:
                array[index, columns[label.class_name]] = _NOT_COUNTED if label.difficult else SHOWN
    return array


def _read(path: Path, separator: str | None) -> Iterator[_Label]:
    if path.suffix.lower() in TABLE_SUFFIXES and path.is_file():
        for label in csv_labels(path, separator):
            if isinstance(label, Annotation):
                yield _of_box(label)
            else:
                yield _Label(label.image, label.class_name, False, False, label.where)
        return
    for entry in read_annotations(path, "labels"):
        if isinstance(entry, Annotation):
            yield _of_box(entry)
        else:
            yield _Label(entry.image, None, False, True, entry.where)


def _normal(label: _Label) -> _Label:
    return label if label.class_name is None else label._replace(class_name=normal_form(label.class_name))


def _of_box(box: Annotation) -> _Label:
    if box.class_name is None:
        raise ValueError(f"{box.where}: a box without a class does not say what {box.image} shows")
    return _Label(box.image, box.class_name, box.difficult, True, box.where)


def _check(labels: Sequence[_Label]) -> None:
    """Raise ValueError for labels of one image that a file lists twice, or that contradict each other."""
    before: dict[str | None, _Label] = {}
    for label in labels:
        if label.of_box:
            continue
        if (other := before.get(label.class_name)) is not None:
            raise ValueError(
                f"{label.where}: {label.image},{label.class_name or ''} is already listed in {other.where}"
            )
        before[label.class_name] = label
    if None in before and len(labels) > 1:
        other = next(label for label in labels if label.class_name is not None)
        raise ValueError(
            f"{before[None].where}: {before[None].image} shows none of the classes, but {other.class_name} by "
            f"{other.where}"
        )
