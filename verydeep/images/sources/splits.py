"""The splits of a source, before and after classes have numbers, and images held out for validation."""

import sys
from collections import Counter
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np

from verydeep.box_regression import Regression
from verydeep.images.sources.inventory import Inventory
from verydeep.images.sources.source import Source, all_of, subset
from verydeep.numbers import trimmed

_NAMES_OF_SPLITS = {"train": ("train",), "val": ("val", "validation"), "test": ("test",)}
"""Our name of each split, and the names that sources give it."""

SPLIT_NAMES = frozenset(name for names in _NAMES_OF_SPLITS.values() for name in names)

_VALIDATION_SHARE = 0.2
"""Share of each class that is held out where a source brings no validation images."""

STEERING_SHARE = 0.125
"""Share of each class's training images held out to steer the learning rate where validation images test."""

_MOST_DIGITS = sys.int_info.default_max_str_digits
"""Digits of the longest text that Python converts to a number."""

_HOLD_OUT_SEED = 0
"""Fixed, so that a held-out image is held out in every run on the same source."""


@dataclass(frozen=True, kw_only=True)
class Splits:
    """The splits of a source: `train`, `val`, and `test` where the source has one; `all` where it has none."""

    name: str
    sources: dict[str, Source]
    """The images of each split."""
    regression: Regression | None = None
    """Kind of boxes that a training learns; the images of every split then have boxes. None for other trainings."""
    inventory: Inventory = Inventory()
    """Inventory of the source, files used or not."""
    whole_train: str | None = None
    """Fingerprint of all training images, where some are left out: those without a usable box, or held out to steer."""
    held_out: float | None = None
    """Share of each class's training images that steers the learning rate in place of the validation images."""

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the training classes."""
        return self.sources["train"].classes

    @property
    def testing(self) -> str:
        """The split for final figures: `test`, or `val` where that is all there is, as in the paper."""
        return "test" if "test" in self.sources else "val"

    def source(self, split: str) -> Source:
        """Return the images of a split, or of `all` together.

        Raises:
            ValueError: this source has no such split.
        """
        if split == "all" and split not in self.sources:
            return all_of(self.sources)
        if split not in self.sources:
            names = ", ".join(dict.fromkeys([*self.sources, "all"]))
            raise ValueError(f"{self.name} has no split {split!r}: choose one of {names}")
        return self.sources[split]


@dataclass(frozen=True, kw_only=True)
class UnnumberedSplit:
    """The images of one split, before it is settled which number each class has."""

    where: str
    """For messages: a folder, shards, a split of a hub data set."""
    names: tuple[str, ...]
    """Classes that have images here, in the source's own order and in normal form."""
    numbered: Callable[[tuple[str, ...]], Source]
    """Makes the source, given all classes in the order of their numbers; `names` are among them."""


class FoundSplits(NamedTuple):
    """The splits of a SOURCE, and its inventory."""

    splits: dict[str, UnnumberedSplit]
    """`all` alone where it has none."""
    inventory: Inventory = Inventory()


@dataclass(frozen=True, kw_only=True)
class SourceKind:
    """A kind of SOURCE: how it is recognised and opened."""

    described: str
    """Its description in the message that no kind fits."""
    fits: Callable[[str], bool]
    """Whether SOURCE is of this kind."""
    splits: Callable[[str], FoundSplits]
    """Finds the splits of SOURCE, or raises ValueError."""


def stratified_split(labels: Sequence[int], share: float) -> tuple[list[int], list[int]]:
    """Divide indices in two, the second with `share` of each class (at least one image, never all), each ascending.

    The choice is fixed: the same labels always give the same division.

    Raises:
        ValueError: a class has a single image, which cannot be on both sides.
    """
    generator = np.random.Generator(np.random.PCG64(_HOLD_OUT_SEED))
    by_label: dict[int, list[int]] = {}
    for index, label in enumerate(labels):
        by_label.setdefault(label, []).append(index)
    taken: list[int] = []
    for _, members in sorted(by_label.items()):
        if len(members) < 2:
            raise ValueError(
                "a class with a single image cannot be split into training and validation images: add more"
            )
        count = min(max(1, round(share * len(members))), len(members) - 1)
        taken += [members[i] for i in generator.permutation(len(members))[:count]]
    held_out = set(taken)
    return [index for index in range(len(labels)) if index not in held_out], sorted(taken)


def hold_out(source: Source, labels: Sequence[int]) -> dict[str, Source]:
    """Divide a source into `train` and `val`, a fifth of each class, always the same images.

    `labels` number the source's own classes in their own order, since the choice of held-out images must not depend
    on the classes that a network knows.

    Raises:
        ValueError: a class has a single image.
    """
    for label, count in Counter(source.labels).items():
        if count < 2:
            raise ValueError(
                f"class {source.classes[label]} has a single image, which cannot be used for both training and "
                "validation: add more images, or a val folder"
            )
    train, val = stratified_split(labels, _VALIDATION_SHARE)
    return {"train": subset(source, train), "val": subset(source, val)}


def with_steering_images(splits: Splits, share: float = STEERING_SHARE) -> Splits:
    """Hold a share of each class's training images out to steer the learning rate, so that validation images test.

    The held-out images become `val`, always the same ones, and the source's validation images become `test`.

    Raises:
        ValueError: no such share, the source has test images already, or a class has a single training image.
    """
    if not 0 < share < 1:
        raise ValueError(f"held_out is a share above 0 and below 1, not {trimmed(share)}")
    if "test" in splits.sources:
        raise ValueError(f"{splits.name} has test images, so that its validation images can steer")
    train = splits.source("train")
    for label, count in Counter(train.labels).items():
        if count < 2:
            raise ValueError(
                f"class {splits.classes[label]} of {splits.name} has a single training image, so none can be held out "
                "to steer the learning rate: add more, or let the validation images steer (--steer validation)"
            )
    kept, steering = stratified_split(train.labels, share)
    sources = {**splits.sources, "train": subset(train, kept), "val": subset(train, steering)}
    sources["test"] = splits.source("val")
    return replace(splits, sources=sources, whole_train=train.fingerprint, held_out=share)


def whole_number(text: str) -> int | None:
    """Return the number that is written in digits; None for any other text, and for more digits than Python reads."""
    return int(text) if text.isdecimal() and len(text) <= _MOST_DIGITS else None


def natural_order(name: str) -> tuple[bool, int, str]:
    """Return the key to sort class names by: numbers by value, before names."""
    number = whole_number(name)
    return (number is None, number or 0, name)


def names_of_present_splits(present: Collection[str], where: str) -> dict[str, str]:
    """Map our names of the splits to those that a source uses, for the splits that are present.

    Raises:
        ValueError: the source has both `val` and `validation`.
    """
    names = {split: [name for name in theirs if name in present] for split, theirs in _NAMES_OF_SPLITS.items()}
    for both in names.values():
        if len(both) > 1:
            raise ValueError(f"{where} has both {' and '.join(both)}: keep one of them")
    return {split: theirs[0] for split, theirs in names.items() if theirs}


def folder_names(folder: str) -> tuple[str, ...]:
    """Return the names that a folder goes by, its own first: the folder of a split may have two."""
    if not folder:
        return ()
    names = next((names for names in _NAMES_OF_SPLITS.values() if folder in names), (folder,))
    return (folder, *(name for name in names if name != folder))
