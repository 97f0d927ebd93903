"""Bytes of an image file to upright RGB pixels, or a refusal that says why."""

import io
import math
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal, NamedTuple

import numpy as np
import simplejpeg
from jaxtyping import UInt8
from PIL import ExifTags, Image, UnidentifiedImageError

from verydeep.images.image_kinds import begins_as_heif, formats_for, missing_for_heif
from verydeep.images.tolerance import MAX_PIXELS
from verydeep.images.transparent_colour import transparent_pixels
from verydeep.machine.errors import one_line
from verydeep.numbers import number

Pixels = UInt8[np.ndarray, "_ _ 3"]
"""An image, [H, W, 3], RGB in 0..255; H and W differ from image to image."""

Size = tuple[int, int]
"""Height and width in pixels."""

_MAX_ELONGATION = 50
"""Larger ratios of the sides are refused: at a shorter side of 256, an image of this one has 3 million pixels."""

_REDUCTIONS = (8, 4, 2)
"""Factors by which a JPEG may be decoded smaller. libjpeg-turbo offers every eighth, but has vector code for halves
only: at 6/8 it takes a third longer than at full size (docs/LOG.md)."""

WHITE = 255

_SIXTEEN_BIT_STEP = 257
"""65535 / 257 = 255: one 8-bit grey level in 16-bit ones."""

Refusal = Literal["unreadable", "undecodable", "truncated", "too large", "too elongated"]

UNNAMED = "image"
"""Name in messages of an image that has none."""


class UnusableImageError(ValueError):
    """An image that cannot be used; the message names it and says why."""

    def __init__(self, name: str, kind: Refusal, detail: str) -> None:
        super().__init__(name, kind, detail)
        self.name, self.kind, self.detail = name, kind, detail

    def __str__(self) -> str:
        return f"{self.name}: {self.reason}"

    @property
    def reason(self) -> str:
        """Kind and detail, without the name."""
        return f"{self.kind} ({self.detail})"


class Decoded(NamedTuple):
    """An image, perhaps decoded smaller than it is in its file."""

    pixels: Pixels
    size: Size
    """In the file, upright."""
    reduction: int = 1
    """How many pixels of the file a pixel covers along a side; the last one of a row or column may cover fewer."""
    reductions: tuple[int, ...] = ()
    """The reductions above 1 at which this file can be decoded."""

    def reduction_for(self, shorter_side: int) -> int:
        """Return the reduction at which `decode_for` decodes this file for a shorter side."""
        return _reduction(self.size, self.reductions, shorter_side)


def decode(data: bytes, name: str = UNNAMED, *, max_pixels: int = MAX_PIXELS) -> Pixels:
    """Decode the first frame of an image file to upright RGB.

    EXIF orientation is applied, transparency is laid over white, grey with more than 8 bits counts as 16-bit and is
    scaled to 8; palettes, grey and CMYK are converted by Pillow. `name` is for error messages.

    Raises:
        UnusableImageError: not an image, truncated, of more than `max_pixels` pixels, or over 50 times as long as wide.
    """
    return decode_for(data, name, shorter_side=None, max_pixels=max_pixels).pixels


def decode_for(data: bytes, name: str = UNNAMED, *, shorter_side: int | None, max_pixels: int = MAX_PIXELS) -> Decoded:
    """Decode an image that will be rescaled to this shorter side (None: for any use).

    A JPEG is decoded at the smallest of 1, 1/2, 1/4 and 1/8 of its size whose shorter side is no smaller. Pixels are
    then averages taken in frequency space, which costs about a grey level of exactness.

    Raises:
        UnusableImageError: as `decode`.
    """
    with _opened(data, name, max_pixels) as image:
        decoded = _decode_jpeg(data, image, shorter_side)
        if decoded is not None:
            return decoded
        pixels = upright_rgb(image)
        return Decoded(pixels, (pixels.shape[0], pixels.shape[1]))


def upright_rgb(image: Image.Image) -> Pixels:
    """Turn a Pillow image into upright RGB pixels, as `decode` returns them.

    Raises:
        Exception: almost anything, if it was opened from a broken file and is not loaded yet.
    """
    transparent = transparent_pixels(image)
    image.load()  # which turns a TIFF upright
    if transparent is None:
        return np.array(_upright(np.asarray(_to_rgb(image)), _orientation(image)))
    pixels = np.array(_to_rgb(image, opaque=True))
    pixels[transparent] = WHITE
    return _upright(pixels, _orientation(image))


def is_image(data: bytes) -> bool:
    """Return whether bytes begin like an image file of a known format."""
    try:
        with _opened(data, "", MAX_PIXELS):
            return True
    except UnusableImageError as refusal:
        return refusal.kind in ("too large", "too elongated")


def image_sizes(data: bytes, name: str = UNNAMED, *, max_pixels: int = MAX_PIXELS) -> tuple[Size, Size]:
    """Read two sizes of a file: of the upright image, as `decode` returns it, and before EXIF turns it.

    A PNG whose EXIF may come after its pixels is unpacked for that.

    Raises:
        UnusableImageError: not an image, of more than `max_pixels` pixels, or over 50 times as long as wide.
    """
    with _opened(data, name, max_pixels) as image:
        stored = (image.height, image.width)
        upright = _orientation(image) < 5 or image.format == "TIFF"  # whose size Pillow gives upright
        return stored if upright else stored[::-1], stored


def stored_size(data: bytes, name: str = UNNAMED, *, max_pixels: int = MAX_PIXELS) -> Size:
    """Read the size from the head of a file, before EXIF turns it; nothing is unpacked.

    Raises:
        UnusableImageError: as `image_sizes`.
    """
    with _opened(data, name, max_pixels) as image:
        return image.height, image.width


@contextmanager
def _opened(data: bytes, name: str, max_pixels: int) -> Iterator[Image.Image]:
    """Yield an image file whose head has been read; refuse it for its size, or for an error within the block.

    Raises:
        UnusableImageError: as `decode`.
    """
    try:
        with warnings.catch_warnings():
            # The limit on pixels is ours; Pillow's other warnings (broken EXIF) do not concern anything read here.
            warnings.simplefilter("ignore")
            image = Image.open(io.BytesIO(data), formats=formats_for(data))
            _check_size(name, image.width, image.height, max_pixels)
            yield image
    except (UnusableImageError, MemoryError):
        raise
    except Image.DecompressionBombError:
        raise UnusableImageError(name, "too large", f"more than the {number(max_pixels)} pixels allowed") from None
    except UnidentifiedImageError:
        detail = "not an image of a known format" if data else "an empty file"
        if begins_as_heif(data):
            detail = missing_for_heif() or detail
        raise UnusableImageError(name, "undecodable", detail) from None
    except Exception as error:  # Pillow's format plugins raise almost anything on broken files
        if "truncated" in str(error).lower():
            raise UnusableImageError(name, "truncated", "the file ends before the image does") from error
        raise UnusableImageError(name, "undecodable", one_line(error)) from error


def _check_size(name: str, width: int, height: int, max_pixels: int) -> None:
    if width * height > max_pixels:
        detail = f"{width} x {height} pixels, more than the {number(max_pixels)} allowed"
        raise UnusableImageError(name, "too large", detail)
    if max(width, height) > _MAX_ELONGATION * min(width, height):
        raise UnusableImageError(name, "too elongated", f"{width} x {height}, sides beyond {_MAX_ELONGATION} to 1")


def _decode_jpeg(data: bytes, image: Image.Image, shorter_side: int | None) -> Decoded | None:
    """Decode by libjpeg-turbo; return None for other formats, CMYK, and anything odd in the file.

    Pillow decides on such files: some are intact apart from stray bytes.
    """
    if image.format not in ("JPEG", "MPO") or image.mode not in ("RGB", "L"):
        return None
    orientation = _orientation(image)
    size = (image.height, image.width)
    # libjpeg rounds sides up: in a turned image the last pixel of a side, which covers fewer, could be the first one.
    fitting = tuple(r for r in _REDUCTIONS if orientation == 1 or not (size[0] % r or size[1] % r))
    reduction = _reduction(size, fitting, shorter_side) if shorter_side else 1
    height, width = (math.ceil(side / reduction) for side in size)
    try:
        pixels = simplejpeg.decode_jpeg(data, "RGB", min_factor=reduction, min_height=height, min_width=width)
    except ValueError:
        return None
    return Decoded(_upright(pixels, orientation), size if orientation < 5 else size[::-1], reduction, fitting)


def _reduction(size: Size, reductions: tuple[int, ...], shorter_side: int) -> int:
    return next((reduction for reduction in reductions if min(size) >= reduction * shorter_side), 1)


def _orientation(image: Image.Image) -> int:
    """Return 1 to 8, by EXIF; 1 where that has nothing sensible."""
    try:
        orientation = image.getexif().get(ExifTags.Base.Orientation)
    except Exception:  # broken EXIF raises almost anything
        return 1
    return int(orientation) if orientation and orientation in range(1, 9) else 1


def _upright(stored: Pixels, orientation: int) -> Pixels:
    """Turn pixels upright: 5 to 8 are stored with rows and columns exchanged; some are upside down, some mirrored."""
    if orientation >= 5:
        stored = stored.swapaxes(0, 1)
    if orientation in (3, 4, 7, 8):
        stored = stored[::-1]
    if orientation in (2, 3, 6, 7):
        stored = stored[:, ::-1]
    return np.ascontiguousarray(stored)


def _to_rgb(image: Image.Image, *, opaque: bool = False) -> Image.Image:
    if image.mode == "F":
        raise ValueError("pixels are fractions in an unknown range: save it with 8 or 16 bits")
    if image.mode.startswith("I"):
        grey = np.asarray(image).astype(np.int32)
        if grey.min() < 0 or grey.max() > WHITE * _SIXTEEN_BIT_STEP:
            raise ValueError("pixels have more than 16 bits: save it with 8 or 16")
        grey += _SIXTEEN_BIT_STEP // 2
        grey //= _SIXTEEN_BIT_STEP
        return Image.fromarray(grey.astype(np.uint8)).convert("RGB")
    if image.has_transparency_data and not opaque:
        image = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("RGB")
    return image.convert("RGB")
