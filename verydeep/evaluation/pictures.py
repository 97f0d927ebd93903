"""Images of a source as they stand in a page: small, and as text."""

import base64
import io
from collections.abc import Sequence

import numpy as np
from PIL import Image

from verydeep.images.decode import Pixels, decode, decode_for
from verydeep.images.sources.source import Source
from verydeep.images.tolerance import LARGEST_MAX_PIXELS
from verydeep.images.views import rescale

LONGER_SIDE = 224
"""Pixels, at most."""

_QUALITY = 88
"""Of JPEG; at the usual 75 enlarged pixels have halos."""


def places(source: Source, ids: Sequence[str]) -> list[int]:
    """Where in a source some of its images are, which are named in the source's order.

    Raises:
        ValueError: one of them is not there, or not in this order.
    """
    left = enumerate(source.ids)
    found = []
    for wanted in ids:
        place = next((place for place, name in left if name == wanted), None)
        if place is None:
            raise ValueError(f"{wanted} is not where it was: the images tested are not those of this source")
        found.append(place)
    return found


def image_at_scale(source: Source, place: int, shorter_side: int, *, max_pixels: int = LARGEST_MAX_PIXELS) -> Pixels:
    """An image of a source as it is tested, [H, W, 3] with its shorter side at `shorter_side` pixels.

    Raises:
        UnusableImageError: it can no longer be used.
    """
    sample = source[place]
    decoded = decode_for(sample.data, sample.id, shorter_side=shorter_side, max_pixels=max_pixels)
    return rescale(decoded, shorter_side)


def thumbnail(source: Source, place: int) -> Pixels:
    """An image of a source, shrunk by `fitted` where it is large.

    Raises:
        UnusableImageError: it can no longer be used.
    """
    sample = source[place]
    return fitted(decode(sample.data, sample.id, max_pixels=LARGEST_MAX_PIXELS))


def fitted(image: Pixels) -> Pixels:
    """The image with no side over `LONGER_SIDE` pixels; each pixel of a small one becomes a square of several."""
    longer, shorter = max(image.shape[:2]), min(image.shape[:2])
    if longer > LONGER_SIDE:
        return rescale(image, max(1, LONGER_SIDE * shorter // longer))
    factor = LONGER_SIDE // longer
    return image.repeat(factor, axis=0).repeat(factor, axis=1)


def data_address(image: Pixels) -> str:
    """The image as a JPEG in the text of an address, which needs no file."""
    buffer = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(image)).save(buffer, "JPEG", quality=_QUALITY)
    return f"data:image/jpeg;base64,{base64.b64encode(buffer.getvalue()).decode()}"
