"""Sources whose images have a box each; boxes that cannot be used are refused by name."""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

import numpy as np

from verydeep.images.annotations.annotation import Annotation
from verydeep.images.boxes.geometry import Boxes, clipped
from verydeep.images.boxes.matching import BoxesOfImage
from verydeep.images.decode import UnusableImageError, stored_size, upright_size
from verydeep.images.sources.source import Sample, Source, Subset, digest
from verydeep.images.tolerance import MAX_PIXELS
from verydeep.images.views import Size
from verydeep.presentation.numbers import counted

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
    """Images with bad boxes or none, and why; only where that is allowed."""
    several: tuple[str, ...]
    """Images with several boxes of their class: the paper's task has one object an image."""
    cut_off: tuple[str, ...]
    """Images whose box reached out by no more than `ROUNDING`."""


def with_boxes(
    source: Source,
    boxes: Sequence[BoxesOfImage],
    *,
    files: Sequence[str | Path],
    skip_bad: bool = False,
    every_class: bool = False,
    max_pixels: int = MAX_PIXELS,
    advance: Callable[[], None] = lambda: None,
) -> Matched:
    """The images of a source that have exactly one box of their class. Reads every image that does.

    Args:
        source: the images.
        boxes: what the files say of each.
        files: those files, for messages.
        skip_bad: leave out images without a box, or with one that cannot be.
        every_class: the classes that are left must be all there are.
        max_pixels: images of more are unusable.
        advance: is called after every image.

    Raises:
        BadBoxError: an image without a box, or one whose box has no area, is not in the image or is of an image of
            another size, unless `skip_bad`.
        ValueError: none is left, or none of a class.
    """
    kept: dict[int, Located] = {}
    left_out: dict[str, str] = {}
    several: list[str] = []
    cut_off: list[str] = []
    for index, its in enumerate(boxes):
        advance()
        if len(its.own) > 1:
            several.append(its.name)
            continue
        try:
            if not its.own:
                raise BadBoxError(its.missing(files))
            kept[index] = _checked(source, index, its, max_pixels)
        except BadBoxError as error:
            left_out[its.name] = str(error)
            continue
        if tuple(kept[index].box.tolist()) != its.own[0].box:
            cut_off.append(its.name)
    if left_out and not skip_bad:
        raise BadBoxError(f"{_first(left_out)}: mend the boxes, or leave such images out with --skip-bad-boxes")
    if not kept:
        counts = [f"{len(several):,} with several"] if several else []
        counts += [f"{len(left_out):,} with none that can be used: {_first(left_out)}"] if left_out else []
        raise ValueError(f"no image has exactly one box of its class, but {', '.join(counts) or 'there are none'}")
    if every_class:
        _check_classes(source, kept, boxes, left_out)
    boxed = Boxed(
        source=Subset(source=source, indices=tuple(kept)), located=tuple(kept.values()), whole=source.fingerprint
    )
    return Matched(boxed, left_out, tuple(several), tuple(cut_off))


def _checked(source: Source, index: int, its: BoxesOfImage, max_pixels: int) -> Located:
    """The only box of an image, cut off at its borders.

    Raises:
        BadBoxError: it has no area, or is not in the image.
    """
    annotation = its.own[0]
    x0, y0, x1, y1 = annotation.box
    told = f"{annotation.where}: the box {x0:g},{y0:g},{x1:g},{y1:g} of {its.name}"
    if x1 <= x0 or y1 <= y0:
        raise BadBoxError(f"{told} has no area")
    box = np.array(annotation.box)
    try:
        data = source[index].data
        size = upright_size(data, its.name, max_pixels=max_pixels)
    except UnusableImageError:
        return Located(box, None)  # the quarantine is for those
    inside = clipped(box, size)
    fault = _fault(annotation, inside, size)
    if fault:
        raise BadBoxError(f"{told} {fault}, which is {_sides(size)}{_turned(size, stored_size(data))}")
    return Located(inside, size)


def _fault(annotation: Annotation, inside: Boxes, size: Size) -> str:
    """What is wrong with a box that has an area, of which `inside` is in an image of this size."""
    if annotation.size not in (None, size):
        return f"is of an image of {_sides(annotation.size)}, not of this one"
    if np.abs(inside - np.array(annotation.box)).max() > ROUNDING:
        return "is not in the image"
    return "has no area in the image" if inside[0] >= inside[2] or inside[1] >= inside[3] else ""


def _sides(size: Size) -> str:
    return f"{size[1]} x {size[0]}"


def _turned(size: Size, stored: Size) -> str:
    """A hint at where boxes of another size may come from."""
    if size == stored:
        return ""
    return f" when turned upright by EXIF (stored as {_sides(stored)}); boxes are in pixels of the upright image"


def _check_classes(
    source: Source, kept: Collection[int], boxes: Sequence[BoxesOfImage], left_out: Mapping[str, str]
) -> None:
    """Raises ValueError for a class of the source of which nothing is kept."""
    learned = {source.labels[index] for index in kept}
    lost = [index for index, label in enumerate(source.labels) if label not in learned]
    if lost:
        its = boxes[lost[0]]
        why = left_out.get(its.name, f"{its.name} has several boxes")
        raise ValueError(f"no training image of class {its.class_name} has a box that can be used: {why}")


def _first(left_out: Mapping[str, str]) -> str:
    """Why the first image is left out, and how many more are."""
    others = len(left_out) - 1
    more = f" (and {counted(others, 'more image')})" if others else ""
    return f"{next(iter(left_out.values()))}{more}"
