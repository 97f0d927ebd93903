"""Boxes matched to the images of all splits of a source at once, so that no split gets the boxes of another."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from verydeep.ilsvrc_classes import class_numbers, normal_form
from verydeep.images.annotations.annotation import Annotation
from verydeep.images.annotations.image_names import ImageNames, paths_of
from verydeep.images.sources.source import Source
from verydeep.numbers import first_few


@dataclass(frozen=True, kw_only=True)
class BoxesOfImage:
    """The boxes that files have of one image."""

    name: str
    """Name of the image in messages: with the folder of its split, where there are several."""
    class_name: str
    own: tuple[Annotation, ...]
    """Boxes of its class, and those without a class; equal ones once."""
    other: Annotation | None
    """The first box of another class."""

    def missing(self, files: Sequence[str | Path]) -> str:
        """Say that these files have no box of its class, and which one they have instead."""
        if self.other is None:
            return f"{self.name} has no box in {first_few([*map(str, files)])}"
        return f"{self.name} has no box of class {self.class_name}: {self.other.where} is of {self.other.class_name}"


def boxes_by_split(
    sources: Mapping[str, Source], annotations: Sequence[Annotation], files: Sequence[str | Path]
) -> dict[str, list[BoxesOfImage]]:
    """Find the boxes of each image of each split, in order; an image may be in several splits.

    A box belongs to the image that its name means (`ImageNames.fitting`) and whose class it names, if it names one;
    an ILSVRC class has two names. Boxes of other images are ignored. `files` are those read, for messages.

    Raises:
        ValueError: a box may belong to several images, or no box belongs to any.
    """
    paths = {split: paths_of(source) for split, source in sources.items()}
    labels = {
        of_image: label
        for split, source in sources.items()
        for of_image, label in zip(paths[split], source.labels, strict=True)
    }
    images = {of_image: index for index, of_image in enumerate(labels)}
    names = ImageNames(paths=[*images])
    classes = next(iter(sources.values())).classes
    own, other = _by_image(names, [*labels.values()], class_numbers(classes), annotations)
    if not own and not other:
        raise ValueError(
            f"no name in {first_few([*map(str, files)])} (such as {annotations[0].image}) is that of an image (such as "
            f"{names.name(0)})"
        )
    of_images = [
        BoxesOfImage(
            name=names.name(index),
            class_name=classes[label],
            own=_unequal(own.get(index, [])),
            other=other.get(index),
        )
        for index, label in enumerate(labels.values())
    ]
    return {split: [of_images[images[of_image]] for of_image in its_paths] for split, its_paths in paths.items()}


def _by_image(
    names: ImageNames, labels: Sequence[int], numbers: Mapping[str, int], annotations: Sequence[Annotation]
) -> tuple[dict[int, list[Annotation]], dict[int, Annotation]]:
    """Return the boxes of each image's class, and a box of another class where there is one."""
    own: dict[int, list[Annotation]] = defaultdict(list)
    other: dict[int, Annotation] = {}
    for annotation in annotations:
        fitting = names.fitting(annotation.image)
        label = None if annotation.class_name is None else numbers.get(normal_form(annotation.class_name))
        of_class = [index for index in fitting if annotation.class_name is None or labels[index] == label]
        if of_class:
            own[names.only(of_class, annotation.image, annotation.where)].append(annotation)
        else:
            other |= {index: annotation for index in fitting if index not in other}
    return own, other


def _unequal(annotations: Sequence[Annotation]) -> tuple[Annotation, ...]:
    """Return the annotations, of those with the same box only the first."""
    first: dict[tuple[float, ...], Annotation] = {}
    for annotation in annotations:
        first.setdefault(annotation.box, annotation)
    return tuple(first.values())
