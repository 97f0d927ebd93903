"""Images as files, and how a camera says that it was held."""

import io

from PIL import Image

_ORIENTATION = 0x0112


def saved(image, kind, **options):
    """Return the bytes of an image file."""
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def oriented(orientation):
    """Return the notes of a camera that was held so."""
    exif = Image.Exif()
    exif[_ORIENTATION] = orientation
    return exif
