"""How many images each class has, and whether they are so unequal that an error over all images hides it."""

from collections import Counter
from collections.abc import Mapping

from verydeep.images.sources.source import Source
from verydeep.numbers import counted, number

_UNEQUAL = 2
"""Classes are called unequal if the largest has at least this many times as many images as the smallest."""


def images_per_class(source: Source) -> dict[str, int]:
    """Return the images of each class, unusable ones included; 0 for classes without any."""
    counts = Counter(source.labels)
    return {name: counts[label] for label, name in enumerate(source.classes)}


def about_unequal_classes(images: Mapping[str, int]) -> str | None:
    """Say which class has the most images and which the fewest; None where the largest is less than twice as large."""
    small, large = (choose(images, key=lambda name: images[name]) for choose in (min, max))
    if images[large] < _UNEQUAL * images[small] or images[large] == images[small]:
        return None
    return (
        f"unequal classes: {large} has {counted(images[large], 'image')}, {small} {number(images[small])}; "
        "look at the class-balanced error of evaluate too (train --class-weights or --balanced lets every class count "
        "the same)"
    )
