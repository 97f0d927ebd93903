"""What the plain scripts of other libraries share: the images of a folder, and when a training is in vain."""

import math
from pathlib import Path

SUFFIXES = {".jpg", ".jpeg", ".png"}
PATIENCE, NEAR_CHANCE = 1 / 2, 0.01
"""After this part of the time, a loss within this part of chance's (the logarithm of the classes) ends a training."""


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
    """Return whether a training is still at chance after half of its time; `passed`: part of the time, 0 to 1.

    A loss that is not finite is taken for chance. One that is well above chance may be on its way down from the first
    steps, and is not.
    """
    chance = math.log(classes)
    near = abs(loss - chance) <= NEAR_CHANCE * chance
    return passed >= PATIENCE and (near or not math.isfinite(loss))
