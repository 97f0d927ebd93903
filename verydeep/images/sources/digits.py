"""The handwritten digits that come with scikit-learn: a real data set that needs no download."""

import io
from functools import cache

import numpy as np
from PIL import Image

from verydeep.images.sources.source import MemorySource, Sample, Splits, Subset, stratified_split

DIGITS_TEST_SHARE, DIGITS_VALIDATION_SHARE = 0.2, 0.125
"""A fifth of the 1,797 digits (359) is for testing; an eighth of the rest (179) for the learning-rate schedule."""


@cache
def digits() -> Splits:
    """The 1,797 handwritten digits (8 x 8 pixels, 10 classes) that come with scikit-learn, as PNG files in memory.

    They are a real data set, the test part of the UCI set 'Optical Recognition of Handwritten Digits'.
    """
    from sklearn.datasets import load_digits  # 1 s to import

    images, labels = load_digits(return_X_y=True)
    grey = np.round(images.reshape(-1, 8, 8) * (255 / 16)).astype(np.uint8)
    samples = tuple(
        Sample(_png(image), int(label), f"digit-{index:04d}")
        for index, (image, label) in enumerate(zip(grey, labels, strict=True))
    )
    whole = MemorySource(classes=tuple("0123456789"), samples=samples)
    rest, test = stratified_split(whole.labels, DIGITS_TEST_SHARE)
    train, val = stratified_split([whole.labels[index] for index in rest], DIGITS_VALIDATION_SHARE)
    parts = {"train": [rest[i] for i in train], "val": [rest[i] for i in val], "test": test}
    return Splits(
        name="digits",
        parts={split: Subset(source=whole, indices=tuple(indices)) for split, indices in parts.items()},
    )


def _png(grey: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(grey).save(buffer, "PNG")
    return buffer.getvalue()
