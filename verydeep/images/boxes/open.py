"""SOURCE and files of boxes, as people give them, to splits whose images have a box each."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

from verydeep.images.annotations.box_files import read_boxes
from verydeep.images.boxes.boxed import ROUNDING, Boxed, Matched, with_boxes
from verydeep.images.boxes.matching import boxes_by_part
from verydeep.images.boxes.options import BoxOptions
from verydeep.images.sources.source import Splits, some
from verydeep.images.tolerance import MAX_PIXELS
from verydeep.presentation.numbers import counted

NAMED = 10
"""Images that are named where many are told of."""


@dataclass(frozen=True, kw_only=True)
class BoxCheck:
    """What became of images when boxes were matched to them, over several parts."""

    left_out: dict[str, str] = field(default_factory=dict)
    """Images with bad boxes or none, and why."""
    several: list[str] = field(default_factory=list)
    """Images with several boxes of their class."""
    cut_off: list[str] = field(default_factory=list)
    """Images whose box was cut off at the border."""
    crowds: list[str] = field(default_factory=list)
    """Where boxes stand that COCO has around many objects; they are no objects."""

    def note(self, matched: Matched) -> None:
        """One more part."""
        self.left_out.update(matched.left_out)
        self.several.extend(matched.several)
        self.cut_off.extend(matched.cut_off)

    def lines(self) -> list[str]:
        """The same in words."""
        told = []
        if self.crowds:
            count = counted(len(self.crowds), "box", "boxes")
            told.append(f"{count} around many objects (iscrowd) ignored: {some(self.crowds, NAMED)}")
        if self.left_out:
            told.append(
                f"{_images(self.left_out)} left out for their boxes: {some([*self.left_out.values()], NAMED, '; ')}"
            )
        if self.several:
            told.append(
                f"{_images(self.several)} left out, with several boxes of their class: {some(self.several, NAMED)}"
            )
        if self.cut_off:
            told.append(
                f"{_images(self.cut_off)} with a box that reached out by up to {ROUNDING:g} pixel, cut off: "
                f"{some(self.cut_off, NAMED)}"
            )
        return told


def boxed_parts(
    splits: Splits,
    parts: Sequence[str],
    options: BoxOptions,
    *,
    every_class_of: str | None = None,
    max_pixels: int = MAX_PIXELS,
    advance: Callable[[], None] = lambda: None,
) -> tuple[dict[str, Boxed], BoxCheck]:
    """Some parts of a source with their images' boxes, and what became of the others.

    Boxes are matched to the images of all parts, so that a name that fits two of them is seen. Every image of `parts`
    with a box is read, by each process for itself. The part `every_class_of` must be left with all of its classes.

    Raises:
        ValueError: unusable boxes; the message names file and line.
    """
    annotations = [annotation for path in options.boxes for annotation in read_boxes(path)]
    objects = [annotation for annotation in annotations if not annotation.crowd]
    if not objects:
        raise ValueError(f"no boxes in {', '.join(map(str, options.boxes)) or 'no file'}")
    check = BoxCheck(crowds=[annotation.where for annotation in annotations if annotation.crowd])
    asked = {part: splits.part(part) for part in parts}
    boxes = boxes_by_part(splits.parts, objects, options.boxes)
    found = {}
    for part, source in asked.items():
        matched = with_boxes(
            source,
            boxes[part],
            files=options.boxes,
            skip_bad=options.skip_bad_boxes,
            every_class=part == every_class_of,
            max_pixels=max_pixels,
            advance=advance,
        )
        check.note(matched)
        found[part] = matched.source
    return found, check


def _images(names: Iterable[str]) -> str:
    return counted(len(list(names)), "image")
