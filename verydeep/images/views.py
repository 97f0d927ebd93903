"""Views of an image, as the network gets it: pure functions of pixels [H, W, 3] and a random generator."""

import math

import numpy as np
import torch
import torch.nn.functional as F

from verydeep.images.decode import Decoded, Pixels, Size

GRID = 5
"""Crops along a side in multi-crop testing (section 3.2)."""


def rescaled_size(size: Size, shorter_side: int) -> Size:
    """Return height and width with the shorter side at `shorter_side` and the proportions kept (isotropic)."""
    shortest = min(size)
    return round(size[0] * shorter_side / shortest), round(size[1] * shorter_side / shortest)


def rescale(image: Pixels | Decoded, shorter_side: int) -> Pixels:
    """Rescale an image to a shorter side of `shorter_side` pixels; bilinear, antialiased where it shrinks."""
    decoded = _decoded(image)
    height, width = rescaled_size(decoded.size, shorter_side)
    return _resample(decoded, (height, width), bottom=height, right=width)


def rescaled_crop(image: Pixels | Decoded, shorter_side: int, crop: int, *, top: int, left: int) -> Pixels:
    """Return `crop` x `crop` pixels of the rescaled image: to the bit `crop(rescale(...), ...)`, with less work.

    Raises:
        ValueError: they are not all inside the image.
    """
    decoded = _decoded(image)
    whole = rescaled_size(decoded.size, shorter_side)
    _check_inside(whole, crop, top=top, left=left)
    return _resample(decoded, whole, bottom=top + crop, right=left + crop)[top:, left:]


def random_scale(low: int, high: int, rng: np.random.Generator) -> int:
    """Sample S in pixels, uniform over the whole numbers from `low` to `high`, both included (section 3.1)."""
    return int(rng.integers(low, high, endpoint=True))


def random_location(size: Size, crop: int, rng: np.random.Generator) -> tuple[int, int]:
    """Sample top and left of a `crop` x `crop` crop, uniform over all locations in an image of this size."""
    top = int(rng.integers(0, max(0, size[0] - crop), endpoint=True))
    left = int(rng.integers(0, max(0, size[1] - crop), endpoint=True))
    return top, left


def centre_location(size: Size, crop: int) -> tuple[int, int]:
    """Return top and left of the crop in the middle."""
    return (size[0] - crop) // 2, (size[1] - crop) // 2


def random_flip(rng: np.random.Generator) -> bool:
    """Return whether to mirror the image: half of the time."""
    return bool(rng.random() < 0.5)


def crop(image: Pixels, size: int, *, top: int, left: int) -> Pixels:
    """Return the `size` x `size` pixels whose upper left corner is at (top, left).

    Raises:
        ValueError: they are not all inside the image.
    """
    _check_inside(_size(image), size, top=top, left=left)
    return image[top : top + size, left : left + size]


def grid_locations(size: Size, crop: int, *, steps: int = GRID) -> list[tuple[int, int]]:
    """Return top and left of a regular grid of crops that reaches every border, row by row; some may be repeated."""
    rows, columns = (_spread(side - crop, steps) for side in size)
    return [(top, left) for top in rows for left in columns]


def _spread(room: int, steps: int) -> list[int]:
    """Return `steps` whole numbers from 0 to `room`, evenly spread."""
    return [round(room * step / max(1, steps - 1)) for step in range(steps)]


def _resample(image: Decoded, whole: Size, *, bottom: int, right: int) -> Pixels:
    """Return the first `bottom` rows and `right` columns of the image rescaled to `whole`.

    PyTorch's filter works from the factor, not from the sizes, so an image that is enlarged may be cut off after the
    pixels that are needed. One that shrinks may not: the precision of all its weights follows from the greatest one.
    Measured against Pillow's own filter: within 2 grey levels, 0.02 on average, and several times faster where it has
    vector code.
    """
    pixels, size, reduction = image.pixels, image.size, image.reduction
    if _size(pixels) == whole:
        return pixels[:bottom, :right]
    # The output has floor(side * factor) pixels; the next larger factor saves the last one from rounding.
    factors = [math.nextafter(full * reduction / side, math.inf) for full, side in zip(whole, size, strict=True)]
    needed = pixels
    if min(factors) > 1:
        sides = zip(_size(pixels), factors, (bottom, right), strict=True)
        rows, columns = (_needed(side, factor, end) for side, factor, end in sides)
        needed = pixels[:rows, :columns]
    if not needed.flags.writeable or min(needed.strides) < 0:  # PyTorch cannot share such memory
        needed = needed.copy()
    rescaled = F.interpolate(
        torch.from_numpy(needed).permute(2, 0, 1)[None],
        scale_factor=tuple(factors),
        recompute_scale_factor=False,
        mode="bilinear",
        antialias=True,
    )
    return rescaled[0].permute(1, 2, 0).numpy()[:bottom, :right]


def _needed(side: int, factor: float, end: int) -> int:
    """Return how many pixels, from the start of a side, determine the first `end` pixels of the enlarged side."""
    reach = math.ceil(end / factor) + 2
    # Whatever the factor, PyTorch does not resample a side whose length would stay the same.
    different = math.ceil(1 / (factor - 1)) + 1
    return min(side, max(reach, different))


def _decoded(image: Pixels | Decoded) -> Decoded:
    return image if isinstance(image, Decoded) else Decoded(image, _size(image))


def _check_inside(size: Size, crop: int, *, top: int, left: int) -> None:
    height, width = size
    if not (0 <= top <= height - crop and 0 <= left <= width - crop):
        raise ValueError(f"a crop of {crop} at ({top}, {left}) is not inside an image of {height} x {width}")


def _size(image: Pixels) -> Size:
    return image.shape[0], image.shape[1]
