"""Boxes under rescaling, cropping and mirroring: pure functions of arrays [..., 4].

A box is (x0, y0, x1, y1): its edges in pixels from the upper left corner of an upright image, so x1 - x0 is its width.
In a crop it is (x, y, width, height), the centre and the sides in units of the crop, as the paper's networks predict
it (appendix A.1). It may reach beyond the crop, and is not cut off: so all crops of an image describe the same box.
"""

import numpy as np
from jaxtyping import Float, Float64, Int
from numpy.typing import NDArray

from verydeep.images.decode import Size
from verydeep.images.views import random_location

Boxes = Float[np.ndarray, "... 4"]
"""(x0, y0, x1, y1), or (x, y, width, height) in a crop."""

Box = Float[np.ndarray, " 4"]

CORRECT_IOU = 0.5
"""A predicted box is right if its intersection over union with the true one is above this (ILSVRC's criterion)."""

_SHOWN_SHARE = 0.5
"""A crop shows an object if it holds at least this share of its box, or of as much of the box as any crop can hold."""

TRIES = 100
"""Crops sampled of an image, at most, until one shows the object. One crop in 20 shows an object at the border of an
image twice as long as high, for example: then all of them miss it once in 170 epochs."""


class ObjectNotShownError(Exception):
    """None of the sampled crops shows the object."""


def rescaled_boxes(boxes: Boxes, size: Size, whole: Size) -> Boxes:
    """Return boxes of an image of `size` (height, width) in the same image rescaled to `whole`."""
    factors = np.array([whole[1] / size[1], whole[0] / size[0]])
    return np.asarray(boxes, np.float64) * np.tile(factors, 2)


def boxes_in_crop(boxes: Boxes, crop: int, *, top: int, left: int) -> Boxes:
    """Turn boxes (x0, y0, x1, y1) of an image into (x, y, width, height) in units of a crop of it."""
    boxes = np.asarray(boxes, np.float64)
    low, high = boxes[..., :2], boxes[..., 2:]
    corner = np.array([left, top])
    return np.concatenate([((low + high) / 2 - corner) / crop, (high - low) / crop], axis=-1)


def boxes_in_image(
    boxes: Boxes, crop: int, *, top: int | Int[np.ndarray, "..."], left: int | Int[np.ndarray, "..."]
) -> Boxes:
    """Undo `boxes_in_crop`; `top` and `left` may be arrays that broadcast with the boxes."""
    boxes = np.asarray(boxes, np.float64)
    centre = boxes[..., :2] * crop + np.stack(np.broadcast_arrays(left, top), axis=-1)
    half = boxes[..., 2:] * crop / 2
    return np.concatenate([centre - half, centre + half], axis=-1)


def mirrored_boxes(boxes: Boxes) -> Boxes:
    """Return boxes (x, y, width, height) of a crop in its mirror image."""
    boxes = np.array(boxes, np.float64)
    boxes[..., 0] = 1 - boxes[..., 0]
    return boxes


def clipped(boxes: Boxes, size: Size) -> Boxes:
    """Cut boxes (x0, y0, x1, y1) off at the borders of an image of `size` (height, width)."""
    return np.clip(boxes, 0, [size[1], size[0]] * 2)


def intersection_over_union(one: Boxes, other: Boxes) -> Float64[np.ndarray, "..."]:
    """Return the overlap of boxes (x0, y0, x1, y1) that broadcast, 0..1; 0 where both are empty."""
    one, other = np.asarray(one, np.float64), np.asarray(other, np.float64)
    low = np.maximum(one[..., :2], other[..., :2])
    high = np.minimum(one[..., 2:], other[..., 2:])
    shared = _area(np.concatenate([low, high], axis=-1))
    union = _area(one) + _area(other) - shared
    return np.divide(shared, union, out=np.zeros_like(union), where=union > 0)


def _shows(box: Box, crop: int, *, top: int, left: int) -> bool:
    """Return whether a crop shows the object of a box of its image (`_SHOWN_SHARE`).

    An object larger than the crop can never be in it whole; what counts is then how much of it could be.
    """
    inside = clipped(box - np.array([left, top] * 2), (crop, crop))
    width, height = np.minimum(box[2:] - box[:2], crop)
    return bool(_area(inside) >= _SHOWN_SHARE * width * height)


def random_location_showing(box: Box, size: Size, crop: int, rng: np.random.Generator) -> tuple[int, int]:
    """Sample top and left of a crop of an image of `size` until it shows the object of a box, `TRIES` times at most.

    Raises:
        ObjectNotShownError: none of them does.
    """
    for _ in range(TRIES):
        top, left = random_location(size, crop, rng)
        if _shows(box, crop, top=top, left=left):
            return top, left
    raise ObjectNotShownError


def _area(boxes: Boxes) -> NDArray[np.float64]:
    """Return the area of boxes (x0, y0, x1, y1) in square pixels; 0 where a side is negative."""
    sides = np.clip(np.asarray(boxes)[..., 2:] - np.asarray(boxes)[..., :2], 0, None)
    return sides[..., 0] * sides[..., 1]
