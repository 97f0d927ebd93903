"""Images that are given one by one, without classes: files, folders of them, patterns, standard input, pixels."""

import glob
import hashlib
import os
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import cast

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from verydeep.images.decode import UnusableImageError, is_image, upright_rgb
from verydeep.images.sources.folders import image_files, is_image_file
from verydeep.images.sources.source import Source, digest, own_path

GivenImage = str | Path | bytes | NDArray[np.uint8] | Image.Image
"""A file, a folder of files, or a pattern such as `photos/**/*.jpg`; the contents of an image file; an image's pixels,
uint8 [H, W, 3], RGB; or a Pillow image."""

_Opened = Path | bytes | NDArray[np.uint8] | Image.Image

STANDARD_INPUT = "-"

_NO_CLASS = -1
"""The label of an image that has none."""


def given_images(
    images: Source | GivenImage | Iterable[GivenImage], *, standard_input: Callable[[], bytes] | None = None
) -> Source:
    """Make one or more images a source, unless they are one already.

    Folders stand for the image files in them and below, patterns for what fits.

    `standard_input` reads what `-` stands for: the contents of one image file, or paths, one a line, of files and
    folders. They are an image if they begin like one or hold a zero byte, which no path can.

    Raises:
        ValueError: a path that does not exist (those read from standard input are not looked for), a folder or pattern
            without images, nothing on standard input, or pixels that are not uint8 [H, W, 3].
    """
    if isinstance(images, Source):
        return images
    several = cast(Iterable[GivenImage], [images] if _is_one(images) else images)
    named: list[tuple[str, _Opened]] = []
    for number, image in enumerate(several):
        if isinstance(image, str | Path):
            if str(image) == STANDARD_INPUT and standard_input is not None:
                named += _from_standard_input(standard_input())
            else:
                named += ((str(path), path) for path in _files(Path(image)))
        else:
            _check_pixels(image, number)
            named.append((f"image {number}", image))
    return Source(
        classes=(),
        labels=(_NO_CLASS,) * len(named),
        paths=partial(own_path, [name for name, _ in named]),
        read=partial(_read, named),
        fingerprint_of=partial(_fingerprint, named),
    )


def _is_one(images: object) -> bool:
    """Return whether this is a single image: an array of three axes is one, an array of four several."""
    return isinstance(images, str | Path | bytes | Image.Image) or (isinstance(images, np.ndarray) and images.ndim == 3)


def _check_pixels(image: object, number: int) -> None:
    if isinstance(image, bytes | Image.Image):
        return
    if not isinstance(image, np.ndarray):
        raise ValueError(f"image {number} is a {type(image).__name__}: give a path, bytes, an array or a Pillow image")
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or not image.size:
        raise ValueError(f"image {number} must be uint8 [H, W, 3], RGB, not {image.dtype} {list(image.shape)}")


def _files(path: Path) -> list[Path]:
    if os.path.exists(path) or not glob.has_magic(str(path)):
        return image_files(path)
    fitting = [Path(name) for name in sorted(glob.glob(str(path), recursive=True))]
    images = [inner for inner in fitting if is_image_file(inner)]
    if not images:
        raise ValueError(f"no image files fit {str(path)!r}")
    return images


def _from_standard_input(data: bytes) -> list[tuple[str, _Opened]]:
    if not data.strip():
        raise ValueError("standard input is empty: give it an image, or paths, one a line")
    if b"\0" in data or is_image(data):
        return [(STANDARD_INPUT, data)]
    paths = [Path(os.fsdecode(line.rstrip(b"\r"))) for line in data.split(b"\n") if line.strip()]
    return [(str(file), file) for path in paths for file in (_files(path) if os.path.isdir(path) else [path])]


def _read(named: Sequence[tuple[str, _Opened]], index: int) -> bytes:
    name, image = named[index]
    return _encoded(image, name)


def _fingerprint(named: Sequence[tuple[str, _Opened]], _: Source) -> str:
    return digest(*((name, _contents(image)) for name, image in named))


def _encoded(image: _Opened, name: str) -> bytes:
    """Return an image as the contents of a file, so that all images take one way; pixels are stored unchanged."""
    if isinstance(image, bytes):
        return image
    if isinstance(image, Path):
        return image.read_bytes()
    if isinstance(image, Image.Image):
        try:
            image = upright_rgb(image)
        except Exception as error:  # a broken file that Pillow has opened
            raise UnusableImageError(name, "undecodable", str(error) or type(error).__name__) from error
    return b"P6 %d %d 255\n" % (image.shape[1], image.shape[0]) + image.tobytes()


def _contents(image: _Opened) -> object:
    """Return what tells an image from others of its name: the size of a file, or a digest of what is in memory."""
    if isinstance(image, Path):
        return image.stat().st_size if os.path.isfile(image) else None
    try:
        return hashlib.sha256(_encoded(image, "")).digest()
    except UnusableImageError as refusal:
        return refusal.reason
