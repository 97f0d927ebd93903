"""Sources whose images have a box each: annotations matched to images, and what cannot be used refused by name."""

from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np

from verydeep.images.box_files import Annotation
from verydeep.images.box_geometry import Boxes, clipped
from verydeep.images.decode import UnusableImageError, upright_size
from verydeep.images.image_names import ImageNames
from verydeep.images.sources import Sample, Source, Subset, digest
from verydeep.images.tolerance import MAX_PIXELS
from verydeep.images.views import Size

ROUNDING = 1.0
"""Pixels by which a box may reach out of its image; it is cut off there. More is a mistake."""


class BadBoxError(ValueError):
    """A box that cannot be, or an image without one."""


class Located(NamedTuple):
    """Where an image's object is."""

    box: Boxes
    """[4], (x0, y0, x1, y1) in pixels of the upright image."""
    size: Size | None
    """Height and width of that; None if it could not be read."""


@dataclass(frozen=True, kw_only=True)
class Boxed:
    """Images of another source that have a box each."""

    source: Source
    located: tuple[Located, ...]
    whole: str
    """Fingerprint of the part that they are from, with and without boxes."""

    @property
    def classes(self) -> tuple[str, ...]:
        return self.source.classes

    @property
    def labels(self) -> Sequence[int]:
        return self.source.labels

    @property
    def ids(self) -> Sequence[str]:
        return self.source.ids

    @cached_property
    def fingerprint(self) -> str:
        return digest(self.source.fingerprint, *(found.box.tolist() for found in self.located))

    def __len__(self) -> int:
        return len(self.source)

    def __getitem__(self, index: int) -> Sample:
        return self.source[index]


def located(source: Source) -> tuple[Located, ...] | None:
    """Where the objects of a `Boxed` source are, or of a part of one; None of others."""
    if isinstance(source, Boxed):
        return source.located
    if isinstance(source, Subset):
        found = located(source.source)
        return None if found is None else tuple(found[index] for index in source.indices)
    return None


class Matched(NamedTuple):
    """What became of the images of a part."""

    source: Boxed
    left_out: dict[str, str]
    """Images with bad boxes or none, by id, and why; only where that is allowed."""
    several: tuple[str, ...]
    """Ids of images with several boxes of their class: the paper's task has one object an image."""
    cut_off: tuple[str, ...]
    """Ids of images whose box reached out by no more than `ROUNDING`."""


def with_boxes(
    source: Source,
    annotations: Sequence[Annotation],
    *,
    skip_bad: bool = False,
    max_pixels: int = MAX_PIXELS,
    advance: Callable[[], None] = lambda: None,
) -> Matched:
    """The images of a source that have exactly one box of their class.

    A box belongs to the image whose id ends with its name, and whose class it names, if it names one. Boxes of other
    classes and other images are ignored. `advance` is told of every image.

    Raises:
        BadBoxError: an image without a box, or one whose box has no area or is not in the image, unless `skip_bad`.
        ValueError: several images have the name of a box, or none is left.
    """
    by_image = _by_image(source, annotations)
    kept: list[int] = []
    found: list[Located] = []
    left_out: dict[str, str] = {}
    several: list[str] = []
    cut_off: list[str] = []
    for index, name in enumerate(source.ids):
        its = by_image.get(index, [])
        advance()
        if len(its) > 1:
            several.append(name)
            continue
        try:
            if not its:
                raise BadBoxError(f"{name} has no box of class {source.classes[source.labels[index]]}")
            place = _checked(source, index, its[0], max_pixels)
        except BadBoxError as error:
            left_out[name] = str(error)
            continue
        kept.append(index)
        found.append(place)
        if tuple(place.box.tolist()) != its[0].box:
            cut_off.append(name)
    if left_out and not skip_bad:
        raise BadBoxError(_refusal(list(left_out.values()), source, annotations))
    if not kept:
        raise ValueError(f"no image has exactly one box of its class{_about_classes(source, annotations)}")
    boxed = Boxed(source=Subset(source=source, indices=tuple(kept)), located=tuple(found), whole=source.fingerprint)
    return Matched(boxed, left_out, tuple(several), tuple(cut_off))


def _checked(source: Source, index: int, annotation: Annotation, max_pixels: int) -> Located:
    """The box, cut off at the borders of its image.

    Raises:
        BadBoxError: it has no area, or is not in the image.
    """
    x0, y0, x1, y1 = annotation.box
    told = f"{annotation.where}: the box {x0:g},{y0:g},{x1:g},{y1:g} of {source.ids[index]}"
    if x1 <= x0 or y1 <= y0:
        raise BadBoxError(f"{told} has no area")
    box = np.array(annotation.box)
    try:
        size = upright_size(source[index].data, source.ids[index], max_pixels=max_pixels)
    except UnusableImageError:
        return Located(box, None)  # the quarantine is for those
    inside = clipped(box, size)
    if np.abs(inside - box).max() > ROUNDING:
        raise BadBoxError(f"{told} is not in the image, which is {size[1]} x {size[0]}")
    if inside[0] >= inside[2] or inside[1] >= inside[3]:
        raise BadBoxError(f"{told} has no area in the image, which is {size[1]} x {size[0]}")
    return Located(inside, size)


def _by_image(source: Source, annotations: Sequence[Annotation]) -> Mapping[int, list[Annotation]]:
    """The annotations of each image, those of its own class."""
    names, classes, labels = ImageNames(ids=source.ids), source.classes, source.labels
    found: dict[int, list[Annotation]] = defaultdict(list)
    for annotation in annotations:
        its = [
            index
            for index in names.fitting(annotation.image)
            if annotation.class_name in (None, classes[labels[index]])
        ]
        if its:
            found[names.only(its, annotation.image, annotation.where)].append(annotation)
    return found


def _refusal(reasons: Sequence[str], source: Source, annotations: Sequence[Annotation]) -> str:
    more = f" (and {len(reasons) - 1:,} more)" if len(reasons) > 1 else ""
    return (
        f"{reasons[0]}{more}{_about_classes(source, annotations)}: mend the boxes, or leave such images out with "
        "--skip-bad-boxes"
    )


def _about_classes(source: Source, annotations: Sequence[Annotation]) -> str:
    """What boxes' classes are called, if that is not how the source calls any."""
    names = Counter(annotation.class_name for annotation in annotations if annotation.class_name is not None)
    if not names or set(names) & set(source.classes):
        return ""
    return f"; boxes are of {', '.join(sorted(names)[:5])}, images of {', '.join(source.classes[:5])}"
