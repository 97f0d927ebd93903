"""The handwritten digits that come with scikit-learn: a real data set that needs no download."""

import io
from collections.abc import Sequence
from functools import cache, partial

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from verydeep.images.sources import default
from verydeep.images.sources.inventory import Found, Inventory
from verydeep.images.sources.source import Sample, Source, memory_source, numbered, subset
from verydeep.images.sources.splits import STEERING_SHARE, FoundSplits, SourceKind, UnnumberedSplit, stratified_split

CLASSES = tuple("0123456789")

_DIGITS_TEST_SHARE = 0.2
"""A fifth of the 1,797 digits (359) is for testing; an eighth of the rest (179) steers the learning rate."""


def _digit_splits(name: str) -> FoundSplits:
    """Find `train`, `val` and `test` of the 1,797 digits (8 x 8 pixels, 10 classes), as PNG files in memory.

    They are the test part of the UCI set 'Optical Recognition of Handwritten Digits'.
    """
    rest, test = stratified_split(_digits().labels, _DIGITS_TEST_SHARE)
    train, val = stratified_split([_digits().labels[index] for index in rest], STEERING_SHARE)
    chosen = {"train": [rest[i] for i in train], "val": [rest[i] for i in val], "test": test}
    splits = {
        split: UnnumberedSplit(where=name, names=CLASSES, numbered=partial(_numbered, indices))
        for split, indices in chosen.items()
    }
    return FoundSplits(splits, Inventory(places={name: Found(images=len(_digits()))}))


DIGITS = SourceKind(described="or the word digits", fits=lambda name: name == default.DIGITS, splits=_digit_splits)


def _numbered(indices: Sequence[int], classes: tuple[str, ...]) -> Source:
    return subset(numbered(_digits(), classes), indices)


@cache
def _digits() -> Source:
    from sklearn.datasets import load_digits  # 1 s to import

    images, labels = load_digits(return_X_y=True)
    grey = np.round(images.reshape(-1, 8, 8) * (255 / 16)).astype(np.uint8)
    samples = [
        Sample(_png(image), int(label), f"digit-{index:04d}")
        for index, (image, label) in enumerate(zip(grey, labels, strict=True))
    ]
    return memory_source(classes=CLASSES, samples=samples)


def _png(grey: UInt8[np.ndarray, "8 8"]) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(grey).save(buffer, "PNG")
    return buffer.getvalue()
