"""Bytes of an image file to upright RGB pixels, or a refusal that says why."""

import io
import warnings

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

Pixels = NDArray[np.uint8]
"""An image, [H, W, 3], RGB in 0..255."""

MAX_PIXELS = 100_000_000
"""Larger images are refused before they are unpacked: as RGB they would take over 300 MB."""

WHITE = 255

SIXTEEN_BIT_STEP = 257
"""65535 / 257 = 255: one 8-bit grey level in 16-bit ones."""


class UndecodableImageError(ValueError):
    """These bytes are not an image that can be used; the message says why."""


def decode(data: bytes, name: str = "image") -> Pixels:
    """The first frame of an image file as upright RGB, uint8 [H, W, 3].

    EXIF orientation is applied, transparency is laid over white, grey with more than 8 bits counts as 16-bit and is
    scaled to 8; palettes, grey and CMYK are converted by Pillow. `name` stands in error messages.

    Raises:
        UndecodableImageError: not an image, truncated, or of more than 100 million pixels.
    """
    try:
        with warnings.catch_warnings():
            # The limit on pixels is ours, below; other warnings (broken EXIF) concern nothing that is read here.
            warnings.simplefilter("ignore")
            image = Image.open(io.BytesIO(data))
            pixels = image.width * image.height
            if pixels <= MAX_PIXELS:
                return np.array(_to_rgb(ImageOps.exif_transpose(image)))
    except UnidentifiedImageError:
        raise UndecodableImageError(f"{name}: not an image of a known format") from None
    except Exception as error:  # Pillow's format plugins raise almost anything on broken files
        raise UndecodableImageError(f"{name}: cannot be decoded ({error})") from error
    raise UndecodableImageError(f"{name}: {image.width} x {image.height} pixels, more than the {MAX_PIXELS:,} allowed")


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode == "F":
        raise ValueError("pixels are fractions of no known range: save it with 8 or 16 bits")
    if image.mode.startswith("I"):
        grey = np.asarray(image).astype(np.float64) / SIXTEEN_BIT_STEP
        if grey.min() < 0 or grey.max() > WHITE:
            raise ValueError("pixels have more than 16 bits: save it with 8 or 16")
        return Image.fromarray(grey.round().astype(np.uint8)).convert("RGB")
    if image.has_transparency_data:
        image = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("RGB")
    return image.convert("RGB")
