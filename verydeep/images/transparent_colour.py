"""The transparent colour of a PNG file (its tRNS chunk), where Pillow compares it with pixels of another depth."""

import io

import numpy as np
from jaxtyping import Bool
from PIL import Image

_GREY_STEPS = {"L;2": 85, "L;4": 17, "I;16B": 1}
"""What a step of grey in the file is in Pillow's pixels, by how they are stored."""

_HIGH_BYTES, _LOW_BYTES = "RGB;16B", "RGB;16L"
"""Pillow keeps the first byte of 16-bit colours; in the order of the other kind, that is the second one."""


def transparent_pixels(image: Image.Image) -> Bool[np.ndarray, "_ _"] | None:
    """Return which pixels of a file have its transparent colour; None where Pillow knows.

    Call it before the image is loaded.

    Raises:
        Exception: almost anything, if the file is broken.
    """
    colour = image.info.get("transparency")
    if image.format != "PNG" or not getattr(image, "tile", None) or not isinstance(colour, int | tuple):
        return None
    stored = image.tile[0].args  # type: ignore[attr-defined]
    if stored in _GREY_STEPS:
        return np.asarray(image) == colour * _GREY_STEPS[stored]
    if stored != _HIGH_BYTES:
        return None
    low = _low_bytes(image).astype(np.uint16)
    return ((np.asarray(image).astype(np.uint16) << 8 | low) == colour).all(axis=-1)


def _low_bytes(image: Image.Image) -> np.ndarray:
    file = image.fp  # type: ignore[attr-defined]
    position = file.tell()
    file.seek(0)
    data = file.read()
    file.seek(position)
    with Image.open(io.BytesIO(data), formats=["PNG"]) as other:
        other.tile = [tile._replace(args=_LOW_BYTES) for tile in other.tile]
        return np.asarray(other)
