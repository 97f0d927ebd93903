"""What the plain scripts of other libraries share: the images of a folder, and when a training is in vain."""

import math
from pathlib import Path

SUFFIXES = {".jpg", ".jpeg", ".png"}
PATIENCE, CHANCE = 1 / 6, 0.99
"""After this part of the time, a loss above this part of chance's (the logarithm of the classes) ends a training."""


def labelled_files(folder: Path) -> tuple[list[str], list[tuple[Path, int]]]:
    """Return the classes of a folder, CLASS/*.jpg, and its images with the numbers of their classes."""
    classes = sorted(path.name for path in folder.iterdir() if path.is_dir())
    images = [
        (path, label)
        for label, name in enumerate(classes)
        for path in sorted((folder / name).iterdir())
        if path.suffix.lower() in SUFFIXES
    ]
    return classes, images


def in_vain(loss: float, *, passed: float, classes: int) -> bool:
    """Return whether a training has had its time to leave chance and has not; `passed`: part of the time, 0 to 1.

    A loss that is not a number has not left it.
    """
    return passed >= PATIENCE and not loss < CHANCE * math.log(classes)
