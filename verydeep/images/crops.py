"""The crop of one image in one epoch of a training, and the one in its middle, each with its box if there are boxes."""

from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import numpy as np
from jaxtyping import Float64, UInt8

from verydeep.images.boxes.geometry import (
    Box,
    boxes_in_crop,
    mirrored_boxes,
    random_location_showing,
    rescaled_boxes,
)
from verydeep.images.colour import colour_shift
from verydeep.images.decode import Size, UnusableImageError
from verydeep.images.order import sample_generator
from verydeep.images.rescaled import RescaledImages
from verydeep.images.sources.source import CHANGED
from verydeep.images.views import centre_location, random_flip, random_location, random_scale, rescaled_size


@dataclass(frozen=True, kw_only=True)
class TrainingView:
    """The random choices for each image in each epoch (section 3.1)."""

    crop: int
    """Pixels."""
    scale: tuple[int, int]
    """Smallest and largest S in pixels; equal for a fixed S."""
    flip: bool
    colour_sd: float
    colour_components: Float64[np.ndarray, "3 3"]
    """Result of `images.colour.shift_components`."""
    views: int | None = None
    """How many views each image has: later epochs show those of the first ones again; None for a new one each epoch."""
    balanced: bool = False
    """Whether an epoch samples images, every class equally often, instead of showing each image once."""


class CroppedImage(NamedTuple):
    """A crop, and the mirroring and colour shift that it still needs."""

    image: UInt8[np.ndarray, "crop crop 3"]
    mirrored: bool
    """Whether it is to be mirrored."""
    shift: Float64[np.ndarray, " 3"]
    """Grey levels to add to every pixel."""
    label: int
    box: Box | None = None
    """(x, y, width, height) in units of the crop, mirrored already; None where sources have no boxes."""


def training_crop(images: RescaledImages, index: int, view: TrainingView, *, seed: int, epoch: int) -> CroppedImage:
    """Return the random crop of one image in one epoch; where images have boxes, one that shows the object.

    Raises:
        UnusableImageError: the image cannot be decoded.
        ObjectNotShownError: none of the sampled crops shows enough of the object.
    """
    rng = sample_generator(seed, epoch if view.views is None else epoch % view.views, index)
    scale = random_scale(*view.scale, rng)
    if not images.source.boxes:
        image = images.crop(index, scale, view.crop, partial(random_location, crop=view.crop, rng=rng))
        box = None
    else:
        whole_box, size = _rescaled_box(images, index, scale)
        top, left = random_location_showing(whole_box, size, view.crop, rng)
        image = images.crop(index, scale, view.crop, lambda _: (top, left))
        box = boxes_in_crop(whole_box, view.crop, top=top, left=left)
    mirrored = view.flip and random_flip(rng)
    shift = colour_shift(view.colour_components, view.colour_sd, rng)
    if box is not None and mirrored:
        box = mirrored_boxes(box)
    return CroppedImage(image, mirrored, shift, images.source.labels[index], box)


def centre_crop(images: RescaledImages, index: int, *, scale: int, crop: int) -> CroppedImage:
    """Return the crop in the middle of one image at S = `scale`, whether it shows the object or not.

    Raises:
        UnusableImageError: the image cannot be decoded.
    """
    box = None
    if images.source.boxes:
        whole_box, size = _rescaled_box(images, index, scale)
        top, left = centre_location(size, crop)
        box = boxes_in_crop(whole_box, crop, top=top, left=left)
    image = images.crop(index, scale, crop, partial(centre_location, crop=crop))
    return CroppedImage(image, False, np.zeros(3), images.source.labels[index], box)


def _rescaled_box(images: RescaledImages, index: int, scale: int) -> tuple[Box, Size]:
    """Return the box of an image at S = `scale`, and the image's size there."""
    box, size = images.source.boxes[index]
    if size is None:
        images.decoded(index, scale)  # raises why
        raise UnusableImageError(images.source.ids[index], "unreadable", CHANGED)
    whole = rescaled_size(size, scale)
    return rescaled_boxes(box, size, whole), whole
