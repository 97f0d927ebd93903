"""What images show, and which are for training and which for testing: drawn at random, or given."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from verydeep.images.annotations.image_names import read_image_list
from verydeep.images.annotations.label_files import several_labels
from verydeep.images.open import open_given
from verydeep.images.sources.source import Source
from verydeep.presentation.messages import first_few
from verydeep.transfer_learning.linear_svm import Labels, several_split
from verydeep.transfer_learning.options import LEAST_TRAINING_IMAGES, TransferOptions

Split = tuple[NDArray[np.int64], NDArray[np.int64]]
"""Indices of training and of test images."""


@dataclass(frozen=True, kw_only=True)
class Labelled:
    """What the images of a source show, and which are for testing if that is given."""

    classes: tuple[str, ...]
    labels: Labels
    for_testing: NDArray[np.bool_] | None = None
    """[N]"""

    @property
    def several(self) -> bool:
        """Whether an image may show several classes."""
        return self.labels.ndim == 2

    def of(self, rows: Sequence[int]) -> "Labelled":
        """The same of some of the images."""
        for_testing = None if self.for_testing is None else self.for_testing[rows]
        return replace(self, labels=self.labels[rows], for_testing=for_testing)

    def images_of_each(self, rows: NDArray[np.int64]) -> NDArray[np.int64]:
        """[classes], how many of these images show each class."""
        if self.several:
            return (self.labels[rows] > 0).sum(axis=0)
        return np.bincount(self.labels[rows], minlength=len(self.classes))

    def others_of_each(self, rows: NDArray[np.int64]) -> NDArray[np.int64]:
        """[classes], how many of these images are known not to show each class."""
        if self.several:
            return (self.labels[rows] < 0).sum(axis=0)
        return len(rows) - self.images_of_each(rows)


def images_with_labels(data: str | Path | Source, file: str | Path) -> tuple[Source, Labelled]:
    """A folder of images, folders in it too, and what a file says that they show.

    Raises:
        ValueError: something else than a folder, no images in it, or unusable labels.
    """
    if isinstance(data, str | Path):
        if not Path(data).is_dir():
            raise ValueError(f"{data} is no folder: with --labels SOURCE is a folder of images, without classes")
        data = open_given(data)
    found = several_labels(file, data)
    return data, Labelled(classes=found.classes, labels=found.labels)


def images_of_classes(source: Source, name: object) -> Labelled:
    """What the images of a source with classes show.

    Raises:
        ValueError: it has fewer than two.
    """
    if len(source.classes) < 2:
        how = "" if source.classes else ", or say with --labels what each image shows"
        raise ValueError(f"{name} has fewer than two classes: give a folder with a folder of images per class{how}")
    return Labelled(classes=source.classes, labels=np.asarray(source.labels, dtype=np.int64))


def with_test_images(labelled: Labelled, file: str | Path, source: Source) -> Labelled:
    """The same, with the images for testing that a file names.

    Raises:
        ValueError: unusable file.
    """
    for_testing = np.zeros(len(source), bool)
    for_testing[read_image_list(file, source)] = True
    return replace(labelled, for_testing=for_testing)


def transfer_splits(labelled: Labelled, options: TransferOptions) -> list[Split]:
    """The division that is given, or random draws: the same ones for the same labels and seed.

    With several labels an image, classes are gone through from the rarest to the most common one. Of each, images are
    drawn until as many as wanted are for training; those that were drawn for other classes count. Images that show none
    of the classes are drawn in the end as if that were one more class. Then the same for testing, among the rest.

    Raises:
        ValueError: a class with too few images to train or to test on, in one of the splits.
    """
    if labelled.for_testing is not None:
        found = [(np.flatnonzero(~labelled.for_testing), np.flatnonzero(labelled.for_testing))]
        advice = "take other test images"
    else:
        _check_images(labelled, options)
        one_draw = _draw_of_several if labelled.several else _draw_of_one
        found = [one_draw(labelled, options, number) for number in range(options.splits)]
        advice = "change --train"
    for split in found:
        _check_split(labelled, split, advice)
    if labelled.several:
        for rows in (*(train for train, _ in found), np.arange(len(labelled.labels))):
            _check_choosing(labelled, rows, advice)
    return found


def _check_images(labelled: Labelled, options: TransferOptions) -> None:
    each = labelled.images_of_each(np.arange(len(labelled.labels)))
    few = [f"{name} {its:,}" for name, its in zip(labelled.classes, each, strict=True) if its <= options.train]
    if few:
        raise ValueError(
            f"--train {options.train} needs {options.train + 1} images of each class or more, some to test on; "
            f"usable are {first_few(few)}: lower --train"
        )


def _draw_of_one(labelled: Labelled, options: TransferOptions, number: int) -> Split:
    members = [np.flatnonzero(labelled.labels == label) for label in range(len(labelled.classes))]
    rng = np.random.Generator(np.random.PCG64([options.seed, number]))
    orders = [its[rng.permutation(len(its))] for its in members]
    end = options.train + options.test
    return (
        np.concatenate([order[: options.train] for order in orders]),
        np.concatenate([order[options.train : end] for order in orders]),
    )


def _draw_of_several(labelled: Labelled, options: TransferOptions, number: int) -> Split:
    positive = labelled.labels > 0
    order = np.random.Generator(np.random.PCG64([options.seed, number])).permutation(len(positive))
    rarest_first = positive[:, np.argsort(positive.sum(axis=0), kind="stable")]
    groups = np.column_stack([rarest_first, ~positive.any(axis=1)])
    free = np.ones(len(positive), bool)
    parts = []
    for wanted in (options.train, options.test):
        taken = np.zeros(len(positive), bool)
        for its in groups.T:
            candidates = order[(its & free & ~taken)[order]]
            taken[candidates[: max(0, wanted - int((its & taken).sum()))]] = True
        parts.append(np.flatnonzero(taken))
        free &= ~taken
    return parts[0], parts[1]


def _check_split(labelled: Labelled, split: Split, advice: str) -> None:
    """Refuses a division by which a class could not be learned or tested."""
    for rows, what, least in zip(split, ("training", "test"), (LEAST_TRAINING_IMAGES, 1), strict=True):
        each, others = labelled.images_of_each(rows), labelled.others_of_each(rows)
        few = [f"{name} {its:,}" for name, its in zip(labelled.classes, each, strict=True) if its < least]
        if few:
            raise ValueError(
                f"each class needs {least} or more of the {len(rows):,} {what} images, but there are of "
                f"{first_few(few)}: {advice}"
            )
        everywhere = [name for name, its in zip(labelled.classes, others, strict=True) if its < 1]
        if everywhere:
            raise ValueError(
                f"all {len(rows):,} {what} images show {first_few(everywhere)}: some without it are needed; "
                f"{advice}, or leave the class out"
            )


def _check_choosing(labelled: Labelled, rows: NDArray[np.int64], advice: str) -> None:
    """Refuses training images that show classes in such company that they cannot be divided."""
    _, choosing = several_split(labelled.labels[rows])
    each = labelled.images_of_each(rows[choosing])
    lacking = [name for name, its in zip(labelled.classes, each, strict=True) if its < 1]
    if lacking:
        raise ValueError(
            f"too few training images show {first_few(lacking)} without other rare classes: a fifth of them is to "
            f"choose C, and the rest must show all classes; {advice}"
        )
