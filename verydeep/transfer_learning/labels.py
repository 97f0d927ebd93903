"""Labels of images, by their source or a file, and the split into training and test images: sampled, or given."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Int
from numpy.typing import NDArray

from verydeep.images.annotations.image_names import read_image_list
from verydeep.images.annotations.label_files import several_labels
from verydeep.images.open import open_one_split
from verydeep.images.sources.given import given_images
from verydeep.images.sources.source import Source
from verydeep.numbers import counted, first_few, number
from verydeep.transfer_learning.linear_svm import multilabel_split
from verydeep.transfer_learning.measures import Labels
from verydeep.transfer_learning.options import LEAST_TRAINING_IMAGES, TransferOptions

Split = tuple[NDArray[np.int64], NDArray[np.int64]]
"""Rows of the training and of the test images."""


@dataclass(frozen=True, kw_only=True)
class Labelled:
    """Images with their labels, and the test images if they are given."""

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


def labelled_images(data: str | Path | Source, split: str | None, options: TransferOptions) -> tuple[Source, Labelled]:
    """Open images, and return their labels, by a file or by their source, and the test images if they are given.

    Raises:
        ValueError: unusable source or labels, or fewer than two classes.
    """
    if options.labels is None:
        source = open_one_split(data, split)
        if len(source.classes) < 2:
            how = "" if source.classes else ", or say with --labels what each image shows"
            name = name_of_source(data)
            raise ValueError(f"{name} has fewer than two classes: give a folder with a folder of images per class{how}")
        labelled = Labelled(classes=source.classes, labels=np.asarray(source.labels, dtype=np.int64))
    else:
        if isinstance(data, str | Path) and not Path(data).is_dir():
            raise ValueError(f"{data} is not a folder: with --labels SOURCE is a folder of images, without classes")
        source = open_one_split(given_images(data) if isinstance(data, str | Path) else data, split)
        read = several_labels(options.labels, source, separator=options.label_separator)
        labelled = Labelled(classes=read.classes, labels=read.labels)
    if options.test_images is not None:
        for_testing = np.zeros(len(source), bool)
        for_testing[read_image_list(options.test_images, source)] = True
        labelled = replace(labelled, for_testing=for_testing)
    return source, labelled


def name_of_source(data: str | Path | Source) -> str:
    """Name SOURCE for messages and results: its name, or `the source` where it is open already."""
    return str(data) if isinstance(data, str | Path) else "the source"


def transfer_splits(labelled: Labelled, options: TransferOptions) -> list[Split]:
    """Return the split that is given, or random ones: the same ones for the same labels and seed.

    With several labels per image, classes are gone through from the rarest to the most common one. Images that show a
    class are sampled until as many as wanted are for training; those sampled for other classes count. Images that show
    no class are sampled last, as if that were one more class. Test images are sampled in the same way from the rest.

    Raises:
        ValueError: a class with too few images to train or to test on, in one of the splits.
    """
    if labelled.for_testing is not None:
        splits = [(np.flatnonzero(~labelled.for_testing), np.flatnonzero(labelled.for_testing))]
        advice = "take other test images"
    else:
        _check_images(labelled, options)
        sampled = _sampled_multilabel if labelled.multilabel else _sampled_per_class
        splits = [sampled(labelled, options, which) for which in range(options.splits)]
        advice = "change --train"
    for split in splits:
        _check_split(labelled, split, advice)
    if labelled.multilabel:
        for rows in (*(train for train, _ in splits), np.arange(len(labelled.labels))):
            _check_choosing(labelled, rows, advice)
    return splits


def _check_images(labelled: Labelled, options: TransferOptions) -> None:
    """Refuse classes with too few images to sample from."""
    each = labelled.images_per_class(np.arange(len(labelled.labels)))
    few = _counts(labelled.classes, each, most=options.train)
    if few:
        raise ValueError(
            f"--train {options.train} needs {options.train + 1} images of each class or more, some to test on, but "
            f"only {first_few(few)} can be used: lower --train"
        )


def _counts(classes: Sequence[str], each: NDArray[np.int64], *, most: int) -> list[str]:
    """Return the classes with `most` images or fewer, `3 of cat`."""
    return [f"{number(count)} of {name}" for name, count in zip(classes, each, strict=True) if count <= most]


def _sampled_per_class(labelled: Labelled, options: TransferOptions, which: int) -> Split:
    members = [np.flatnonzero(labelled.labels == label) for label in range(len(labelled.classes))]
    rng = np.random.Generator(np.random.PCG64([options.seed, which]))
    orders = [rows[rng.permutation(len(rows))] for rows in members]
    end = options.train + options.test
    return (
        np.concatenate([order[: options.train] for order in orders]),
        np.concatenate([order[options.train : end] for order in orders]),
    )


def _sampled_multilabel(labelled: Labelled, options: TransferOptions, which: int) -> Split:
    positive = labelled.labels > 0
    order = np.random.Generator(np.random.PCG64([options.seed, which])).permutation(len(positive))
    rarest_first = positive[:, np.argsort(positive.sum(axis=0), kind="stable")]
    groups = np.column_stack([rarest_first, ~positive.any(axis=1)])
    free = np.ones(len(positive), bool)
    parts = []
    for wanted in (options.train, options.test):
        taken = np.zeros(len(positive), bool)
        for group in groups.T:
            candidates = order[(group & free & ~taken)[order]]
            taken[candidates[: max(0, wanted - int((group & taken).sum()))]] = True
        parts.append(np.flatnonzero(taken))
        free &= ~taken
    return parts[0], parts[1]


def _check_split(labelled: Labelled, split: Split, advice: str) -> None:
    """Refuse a split in which a class cannot be learned or tested."""
    for rows, purpose, least in zip(split, ("training", "test"), (LEAST_TRAINING_IMAGES, 1), strict=True):
        few = _counts(labelled.classes, labelled.images_per_class(rows), most=least - 1)
        if few:
            raise ValueError(
                f"each class needs {least} or more of the {number(len(rows))} {purpose} images, but there are "
                f"{first_few(few)}: {advice}"
            )
        others = labelled.images_without_class(rows)
        everywhere = [name for name, count in zip(labelled.classes, others, strict=True) if count < 1]
        if everywhere:
            raise ValueError(
                f"each of the {counted(len(rows), f'{purpose} image')} shows {first_few(everywhere)}: some that do not "
                f"are needed; {advice}, or leave the class out"
            )


def _check_choosing(labelled: Labelled, rows: NDArray[np.int64], advice: str) -> None:
    """Refuse training images that cannot be divided, because they show classes only together."""
    _, choosing = multilabel_split(labelled.labels[rows])
    each = labelled.images_per_class(rows[choosing])
    lacking = [name for name, count in zip(labelled.classes, each, strict=True) if count < 1]
    if lacking:
        raise ValueError(
            f"too few training images show {first_few(lacking)} without other rare classes: a fifth of them chooses C, "
            f"and the rest must show all classes; {advice}"
        )
