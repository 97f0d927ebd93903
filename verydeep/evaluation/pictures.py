"""Images of a source for a page: small, and as text."""

import base64
import io
from collections.abc import Sequence

import numpy as np
from PIL import Image

from verydeep.images.decode import Pixels, decode, decode_for
from verydeep.images.sources.source import Source
from verydeep.images.tolerance import LARGEST_MAX_PIXELS
from verydeep.images.views import rescale

_LONGER_SIDE = 224
"""Pixels, at most."""

_QUALITY = 88
"""JPEG quality; at the usual 75 enlarged pixels have halos."""


def positions_of(source: Source, ids: Sequence[str]) -> list[int]:
    """Return the indices of some images in a source, which are named in the source's order.

    Raises:
        ValueError: one of them is missing, or they are not in this order.
    """
    rest = enumerate(source.ids)
    indices = []
    for wanted in ids:
        index = next((index for index, name in rest if name == wanted), None)
        if index is None:
            raise ValueError(f"{wanted} is not where it was: the images tested are not those of this source")
        indices.append(index)
    return indices


def image_at_scale(source: Source, index: int, shorter_side: int, *, max_pixels: int = LARGEST_MAX_PIXELS) -> Pixels:
    """Return an image of a source as it is tested, with its shorter side at `shorter_side` pixels.

    Raises:
        UnusableImageError: it can no longer be used.
    """
    sample = source[index]
    decoded = decode_for(sample.data, sample.id, shorter_side=shorter_side, max_pixels=max_pixels)
    return rescale(decoded, shorter_side)


def thumbnail(source: Source, index: int) -> Pixels:
    """Return an image of a source in the size that `fitted` gives it.

    Raises:
        UnusableImageError: it can no longer be used.
    """
    sample = source[index]
    return fitted(decode(sample.data, sample.id, max_pixels=LARGEST_MAX_PIXELS))


def fitted(image: Pixels) -> Pixels:
    """Shrink an image to sides of at most 224 pixels; enlarge a small one so that each pixel becomes a square."""
    longer, shorter = max(image.shape[:2]), min(image.shape[:2])
    if longer > _LONGER_SIDE:
        return rescale(image, max(1, _LONGER_SIDE * shorter // longer))
    factor = _LONGER_SIDE // longer
    return image.repeat(factor, axis=0).repeat(factor, axis=1)


def data_address(image: Pixels) -> str:
    """Return the image as a JPEG in the text of an address, which needs no file."""
    buffer = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(image)).save(buffer, "JPEG", quality=_QUALITY)
    return f"data:image/jpeg;base64,{base64.b64encode(buffer.getvalue()).decode()}"
