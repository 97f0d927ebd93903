"""Boxes matched to the images of all parts of a source at once, so that none of them gets another one's."""

import os
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from verydeep.ilsvrc_classes import places
from verydeep.images.annotations.annotation import Annotation
from verydeep.images.annotations.image_names import ImageNames
from verydeep.images.sources.folders import FolderSource
from verydeep.images.sources.shards import ShardSource
from verydeep.images.sources.source import Source, Subset, Unchanged, some


@dataclass(frozen=True, kw_only=True)
class BoxesOfImage:
    """What files of boxes say of one image."""

    name: str
    """Of the image, for messages: with the folder of its split, where there are several."""
    class_name: str
    own: tuple[Annotation, ...]
    """Boxes of its class, and those of which no class is said; equal ones once."""
    other: Annotation | None
    """The first box of another class."""

    def missing(self, files: Sequence[str | Path]) -> str:
        """That there is no box of its class in these files, and what is there instead."""
        if self.other is None:
            return f"{self.name} has no box in {some([*map(str, files)])}"
        return f"{self.name} has no box of class {self.class_name}: {self.other.where} is of {self.other.class_name}"


def boxes_by_part(
    parts: Mapping[str, Source], annotations: Sequence[Annotation], files: Sequence[str | Path]
) -> dict[str, list[BoxesOfImage]]:
    """What the annotations say of each image of each part, in order; an image may be in several parts.

    A box belongs to the image that its name means (`ImageNames.fitting`) and whose class it names, if it names one;
    an ILSVRC class has two names. Boxes of other images are ignored. `files` are those read, for messages.

    Raises:
        ValueError: a box may be of several images, or none is of any.
    """
    labels = {
        (split_folder(source), name): label
        for source in parts.values()
        for name, label in zip(source.ids, source.labels, strict=True)
    }
    images = {image: index for index, image in enumerate(labels)}
    names = ImageNames(ids=[name for _, name in images], folders=[folder for folder, _ in images])
    classes = next(iter(parts.values())).classes
    own, other = _by_image(names, [*labels.values()], places(classes), annotations)
    if not own and not other:
        raise ValueError(
            f"no name in {some([*map(str, files)])} (such as {annotations[0].image}) is that of an image (such as "
            f"{names.shown(0)})"
        )
    of_images = [
        BoxesOfImage(
            name=names.shown(index),
            class_name=classes[label],
            own=_unequal(own.get(index, [])),
            other=other.get(index),
        )
        for index, label in enumerate(labels.values())
    ]
    return {
        part: [of_images[images[split_folder(source), name]] for name in source.ids] for part, source in parts.items()
    }


def _by_image(
    names: ImageNames, labels: Sequence[int], numbers: Mapping[str, int], annotations: Sequence[Annotation]
) -> tuple[dict[int, list[Annotation]], dict[int, Annotation]]:
    """The boxes of each image's class, and a box of another class where there is one."""
    own: dict[int, list[Annotation]] = defaultdict(list)
    other: dict[int, Annotation] = {}
    for annotation in annotations:
        fitting = names.fitting(annotation.image)
        label = numbers.get(annotation.class_name) if annotation.class_name is not None else None
        its = [index for index in fitting if annotation.class_name is None or labels[index] == label]
        if its:
            own[names.only(its, annotation.image, annotation.where)].append(annotation)
        else:
            other |= {index: annotation for index in fitting if index not in other}
    return own, other


def _unequal(annotations: Sequence[Annotation]) -> tuple[Annotation, ...]:
    """The first of those that have the same box."""
    found: dict[tuple[float, ...], Annotation] = {}
    for annotation in annotations:
        found.setdefault(annotation.box, annotation)
    return tuple(found.values())


def split_folder(source: Source) -> str:
    """Name of the folder that a source's ids begin in; nothing where they are no paths of files."""
    while isinstance(source, Subset | Unchanged):
        source = source.source
    if isinstance(source, FolderSource):
        return os.path.basename(os.path.abspath(source.root))
    if isinstance(source, ShardSource):
        return os.path.basename(os.path.dirname(os.path.abspath(source.shards[0])))
    return ""
