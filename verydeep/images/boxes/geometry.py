"""Boxes and what rescaling, crops and mirrors do to them: pure functions of arrays [..., 4].

A box is (x0, y0, x1, y1): its edges in pixels from the upper left corner of an upright image, so x1 - x0 is its width.
In a crop it is (x, y, width, height), the centre and the sides in units of the crop, as the paper's networks predict
it (appendix A.1). It may reach beyond the crop, and stays whole: so all crops of an image tell of the same box.
"""

import numpy as np
from jaxtyping import Float
from numpy.typing import NDArray

from verydeep.images.decode import Size
from verydeep.images.views import random_place

Boxes = Float[np.ndarray, "... 4"]
"""(x0, y0, x1, y1), or (x, y, width, height) in a crop."""

Box = Float[np.ndarray, " 4"]

CORRECT_IOU = 0.5
"""A predicted box is right if its intersection over union with the true one is above this (ILSVRC's criterion)."""

SHOWN_SHARE = 0.5
"""A crop shows an object if it holds at least so much of its box, or of as much of it as such a crop can hold."""


TRIES = 100
"""Crops that are drawn of an image until one shows the object. An object at the border of an image twice as long as
high is shown by one crop in 20, say: then all of them miss it once in 170 epochs."""


class ObjectNotShownError(Exception):
    """None of the crops that were drawn shows the object."""


def rescaled_boxes(boxes: Boxes, size: Size, whole: Size) -> Boxes:
    """Boxes of an image of `size` (height, width) in the same image rescaled to `whole`."""
    factors = np.array([whole[1] / size[1], whole[0] / size[0]])
    return np.asarray(boxes, np.float64) * np.tile(factors, 2)


def boxes_in_crop(boxes: Boxes, crop: int, *, top: int, left: int) -> Boxes:
    """(x, y, width, height) in units of the crop of boxes (x0, y0, x1, y1) of the image that it is cut from."""
    boxes = np.asarray(boxes, np.float64)
    low, high = boxes[..., :2], boxes[..., 2:]
    corner = np.array([left, top])
    return np.concatenate([((low + high) / 2 - corner) / crop, (high - low) / crop], axis=-1)


def boxes_in_image(boxes: Boxes, crop: int, *, top: int | NDArray[np.int64], left: int | NDArray[np.int64]) -> Boxes:
    """What `boxes_in_crop` undoes; places may be arrays that broadcast with the boxes."""
    boxes = np.asarray(boxes, np.float64)
    centre = boxes[..., :2] * crop + np.stack(np.broadcast_arrays(left, top), axis=-1)
    half = boxes[..., 2:] * crop / 2
    return np.concatenate([centre - half, centre + half], axis=-1)


def mirrored_boxes(boxes: Boxes) -> Boxes:
    """Boxes (x, y, width, height) of a crop in its mirror image."""
    boxes = np.array(boxes, np.float64)
    boxes[..., 0] = 1 - boxes[..., 0]
    return boxes


def clipped(boxes: Boxes, size: Size) -> Boxes:
    """Boxes (x0, y0, x1, y1) cut off at the borders of an image of `size` (height, width)."""
    return np.clip(boxes, 0, [size[1], size[0]] * 2)


def area(boxes: Boxes) -> NDArray[np.float64]:
    """Of boxes (x0, y0, x1, y1), in square pixels; 0 where a side is negative."""
    sides = np.clip(np.asarray(boxes)[..., 2:] - np.asarray(boxes)[..., :2], 0, None)
    return sides[..., 0] * sides[..., 1]


def intersection_over_union(one: Boxes, other: Boxes) -> NDArray[np.float64]:
    """Of boxes (x0, y0, x1, y1) that broadcast, 0..1; 0 where both are empty."""
    one, other = np.asarray(one, np.float64), np.asarray(other, np.float64)
    low = np.maximum(one[..., :2], other[..., :2])
    high = np.minimum(one[..., 2:], other[..., 2:])
    shared = area(np.concatenate([low, high], axis=-1))
    union = area(one) + area(other) - shared
    return np.divide(shared, union, out=np.zeros_like(union), where=union > 0)


def shows(box: Boxes, crop: int, *, top: int, left: int) -> bool:
    """Whether a crop shows the object of a box [4] of its image (`SHOWN_SHARE`).

    An object larger than the crop can never be in it whole; what counts is then how much of it could be.
    """
    inside = clipped(box - np.array([left, top] * 2), (crop, crop))
    width, height = np.minimum(box[2:] - box[:2], crop)
    return bool(area(inside) >= SHOWN_SHARE * width * height)


def random_place_showing(box: Boxes, size: Size, crop: int, rng: np.random.Generator) -> tuple[int, int]:
    """Top and left of a crop of an image of `size` that shows the object of a box [4]: the first of `TRIES` that does.

    Raises:
        ObjectNotShownError: none of them does.
    """
    for _ in range(TRIES):
        top, left = random_place(size, crop, rng)
        if shows(box, crop, top=top, left=left):
            return top, left
    raise ObjectNotShownError
