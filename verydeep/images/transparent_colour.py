"""The transparent colour of a PNG file (its tRNS chunk), where Pillow compares it with pixels of another depth."""

import io

import numpy as np
from jaxtyping import Bool
from PIL import Image

_GREY_STEPS = {"L;2": 85, "L;4": 17, "I;16B": 1}
"""Pillow's value for a step of grey in the file, by raw mode."""

_HIGH_BYTES, _LOW_BYTES = "RGB;16B", "RGB;16L"
"""Raw modes. Of a 16-bit colour Pillow keeps the high byte; in the other mode's order of bytes that is the low one."""


def transparent_pixels(image: Image.Image) -> Bool[np.ndarray, "_ _"] | None:
    """Return which pixels of a file have its transparent colour; None where Pillow itself gets them right.

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
    """Read the file once more, and return the low bytes of its 16-bit colours, [H, W, 3]."""
    file = image.fp  # type: ignore[attr-defined]
    position = file.tell()
    file.seek(0)
    data = file.read()
    file.seek(position)
    with Image.open(io.BytesIO(data), formats=["PNG"]) as other:
        other.tile = [tile._replace(args=_LOW_BYTES) for tile in other.tile]
        return np.asarray(other)
