"""What images show, by the classes of their source or by a file, and which of them are for testing if that is given."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Int

from verydeep.images.annotations.image_names import read_image_list
from verydeep.images.annotations.label_files import several_labels
from verydeep.images.open import open_given
from verydeep.images.sources.source import Source

Labels = Int[np.ndarray, " N"] | Int[np.ndarray, "N K"]
"""int64 [N], each image's class; or int8 [N, classes] where it may show several: 1 for classes that it shows, -1 for
others, 0 where it does not count."""


@dataclass(frozen=True, kw_only=True)
class Labelled:
    """What images show, and which are for testing if that is given."""

    classes: tuple[str, ...]
    labels: Labels
    for_testing: Bool[np.ndarray, " N"] | None = None

    @property
    def multilabel(self) -> bool:
        """Whether an image may show several classes."""
        return self.labels.ndim == 2

    def subset(self, rows: Sequence[int]) -> "Labelled":
        """Return the labels of some of the images."""
        for_testing = None if self.for_testing is None else self.for_testing[rows]
        return replace(self, labels=self.labels[rows], for_testing=for_testing)

    def images_per_class(self, rows: Int[np.ndarray, " N"]) -> Int[np.ndarray, " K"]:
        """Count how many of these images show each class."""
        if self.multilabel:
            return (self.labels[rows] > 0).sum(axis=0)
        return np.bincount(self.labels[rows], minlength=len(self.classes))

    def images_without_class(self, rows: Int[np.ndarray, " N"]) -> Int[np.ndarray, " K"]:
        """Count how many of these images are known not to show each class."""
        if self.multilabel:
            return (self.labels[rows] < 0).sum(axis=0)
        return len(rows) - self.images_per_class(rows)


def images_with_labels(data: str | Path | Source, file: str | Path) -> tuple[Source, Labelled]:
    """Open a folder of images, including those in folders in it, and read from a file what they show.

    Raises:
        ValueError: something other than a folder, no images in it, or unusable labels.
    """
    if isinstance(data, str | Path):
        if not Path(data).is_dir():
            raise ValueError(f"{data} is not a folder: with --labels SOURCE is a folder of images, without classes")
        data = open_given(data)
    read = several_labels(file, data)
    return data, Labelled(classes=read.classes, labels=read.labels)


def images_of_classes(source: Source, name: object) -> Labelled:
    """Return what the images of a source with classes show.

    Raises:
        ValueError: it has fewer than two classes.
    """
    if len(source.classes) < 2:
        how = "" if source.classes else ", or say with --labels what each image shows"
        raise ValueError(f"{name} has fewer than two classes: give a folder with a folder of images per class{how}")
    return Labelled(classes=source.classes, labels=np.asarray(source.labels, dtype=np.int64))


def with_test_images(labelled: Labelled, file: str | Path, source: Source) -> Labelled:
    """Return the labels with the test images that a file names.

    Raises:
        ValueError: unusable file.
    """
    for_testing = np.zeros(len(source), bool)
    for_testing[read_image_list(file, source)] = True
    return replace(labelled, for_testing=for_testing)
