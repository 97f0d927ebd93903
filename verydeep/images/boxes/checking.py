"""Boxes checked against their images; those that cannot be used are refused by name."""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from verydeep.images.annotations.annotation import Annotation
from verydeep.images.boxes.geometry import Box, clipped
from verydeep.images.boxes.matching import BoxesOfImage
from verydeep.images.boxes.options import BoxOptions
from verydeep.images.decode import Size, UnusableImageError, image_sizes
from verydeep.images.sources.source import ObjectBox, Source, boxed_source, subset
from verydeep.images.tolerance import MAX_PIXELS
from verydeep.numbers import counted, first_few, number, plural, trimmed

_ROUNDING = 1.0
"""Pixels by which a box may reach out of its image; it is cut off there. More is a mistake."""

_NAMED = 10
"""Images that are named in a list of many."""


class BadBoxError(ValueError):
    """An impossible box, or an image without a box."""


@dataclass(frozen=True, kw_only=True)
class BoxCheck:
    """Images left out and boxes changed when boxes were matched to images, over several splits."""

    left_out: dict[str, str] = field(default_factory=dict)
    """Images with bad boxes or none, and why."""
    several: list[str] = field(default_factory=list)
    """Images with several boxes of their class: the paper's task has one object per image."""
    cut_off: list[str] = field(default_factory=list)
    """Images whose box reached out of them by no more than `_ROUNDING`."""
    crowds: list[str] = field(default_factory=list)
    """File and line of COCO's boxes around many objects, which do not count as objects."""

    def lines(self) -> list[str]:
        """Return the check in words, a line for each kind of finding."""
        lines = []
        if self.crowds:
            count = counted(len(self.crowds), "box", "boxes")
            lines.append(f"{count} around many objects (iscrowd) ignored: {first_few(self.crowds, _NAMED)}")
        if self.left_out:
            reasons = first_few([*self.left_out.values()], _NAMED, "; ")
            their = plural("its box", len(self.left_out), "their boxes")
            lines.append(f"{counted(len(self.left_out), 'image')} left out for {their}: {reasons}")
        if self.several:
            their = plural("its", len(self.several), "their")
            lines.append(
                f"{counted(len(self.several), 'image')} left out, with several boxes of {their} class: "
                f"{first_few(self.several, _NAMED)}"
            )
        if self.cut_off:
            lines.append(
                f"{counted(len(self.cut_off), 'image')} with a box that reached out by up to {trimmed(_ROUNDING)} "
                f"pixel, cut off: {first_few(self.cut_off, _NAMED)}"
            )
        return lines


def with_boxes(
    source: Source,
    boxes: Sequence[BoxesOfImage],
    options: BoxOptions,
    check: BoxCheck,
    *,
    every_class: bool = False,
    max_pixels: int = MAX_PIXELS,
    advance: Callable[[], None] = lambda: None,
) -> Source:
    """Select the images of a source that have exactly one box of their class, with it. Reads every such image.

    Args:
        source: the images.
        boxes: the boxes of each in the files.
        options: those files, for messages, and whether to leave out images without a box or with an impossible one.
        check: the findings are added to it.
        every_class: refuse to leave out a whole class.
        max_pixels: larger images are unusable.
        advance: called after every image.

    Raises:
        BadBoxError: an image without a box, or one whose box has no area, is not in the image or is of an image of
            another size, unless the options skip it.
        ValueError: no image is left, or none of a class.
    """
    kept: dict[int, ObjectBox] = {}
    left_out: dict[str, str] = {}
    several: list[str] = []
    for index, of_image in enumerate(boxes):
        advance()
        if len(of_image.own) > 1:
            several.append(of_image.name)
            continue
        try:
            kept[index] = _checked(source, index, of_image, options.boxes, max_pixels)
        except BadBoxError as error:
            left_out[of_image.name] = str(error)
    if left_out and not options.skip_bad_boxes:
        raise BadBoxError(f"{_first(left_out)}: fix the boxes, or leave such images out with --skip-bad-boxes")
    if not kept:
        counts = [f"{number(len(several))} with several"] if several else []
        counts += [f"{number(len(left_out))} with none that can be used: {_first(left_out)}"] if left_out else []
        raise ValueError(f"no image has exactly one box of its class, but {', '.join(counts) or 'there are none'}")
    if every_class:
        _check_classes(source, kept, boxes, left_out)
    check.left_out.update(left_out)
    check.several.extend(several)
    check.cut_off.extend(boxes[i].name for i, checked in kept.items() if _is_cut_off(boxes[i].own[0], checked))
    return boxed_source(subset(source, tuple(kept)), tuple(kept.values()))


def _checked(
    source: Source, index: int, of_image: BoxesOfImage, files: Sequence[str | Path], max_pixels: int
) -> ObjectBox:
    """Return the only box of an image, cut off at its borders.

    Raises:
        BadBoxError: there is none, it has no area, or it is not in the image.
    """
    if not of_image.own:
        raise BadBoxError(of_image.missing(files))
    annotation = of_image.own[0]
    x0, y0, x1, y1 = annotation.box
    named = f"{annotation.where}: the box {','.join(map(trimmed, (x0, y0, x1, y1)))} of {of_image.name}"
    if x1 <= x0 or y1 <= y0:
        raise BadBoxError(f"{named} has no area")
    try:
        size, stored = image_sizes(source[index].data, of_image.name, max_pixels=max_pixels)
    except UnusableImageError:
        return ObjectBox(np.array(annotation.box), None)  # left to the quarantine
    inside = clipped(_in_pixels(annotation, size), size)
    fault = _fault(annotation, inside, size)
    if fault:
        raise BadBoxError(f"{named} {fault}, which is {_sides(size)}{_turned(size, stored)}")
    return ObjectBox(inside, size)


def _in_pixels(annotation: Annotation, size: Size) -> Box:
    """Return the box of a file in pixels of an image of this size (height, width)."""
    return np.array(annotation.box) * ([size[1], size[0]] * 2 if annotation.relative else 1.0)


def _is_cut_off(annotation: Annotation, checked: ObjectBox) -> bool:
    return checked.size is not None and not np.array_equal(_in_pixels(annotation, checked.size), checked.box)


def _fault(annotation: Annotation, inside: Box, size: Size) -> str:
    """Say which fault a box with an area has; `inside` is the part of it in an image of this size."""
    if annotation.size not in (None, size):
        return f"is of an image of {_sides(annotation.size)}, not of this one"
    if np.abs(inside - _in_pixels(annotation, size)).max() > _ROUNDING:
        return "is not in the image"
    return "has no area in the image" if inside[0] >= inside[2] or inside[1] >= inside[3] else ""


def _sides(size: Size) -> str:
    return f"{size[1]} x {size[0]}"


def _turned(size: Size, stored: Size) -> str:
    """Suggest why the boxes fit an image of another size."""
    if size == stored:
        return ""
    return f" when turned upright by EXIF (stored as {_sides(stored)}); boxes are in pixels of the upright image"


def _check_classes(
    source: Source, kept: Collection[int], boxes: Sequence[BoxesOfImage], left_out: Mapping[str, str]
) -> None:
    """Raise ValueError for a class of the source that has no image left."""
    learned = {source.labels[index] for index in kept}
    lost = [index for index, label in enumerate(source.labels) if label not in learned]
    if lost:
        of_image = boxes[lost[0]]
        why = left_out.get(of_image.name, f"{of_image.name} has several boxes")
        raise ValueError(f"no training image of class {of_image.class_name} has a box that can be used: {why}")


def _first(left_out: Mapping[str, str]) -> str:
    """Say why the first image is left out, and how many more are."""
    others = len(left_out) - 1
    more = f" (and {counted(others, 'more image')})" if others else ""
    return f"{next(iter(left_out.values()))}{more}"
