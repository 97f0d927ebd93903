"""Images that are given one by one, without classes: files, folders of them, patterns, standard input, pixels."""

import glob
import hashlib
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import cast

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from verydeep.images.decode import UnusableImageError, is_image, upright_rgb
from verydeep.images.sources.inventory import Found, FoundFile, Inventory, found_in, is_leftover
from verydeep.images.sources.source import Source, digest, own_path
from verydeep.images.sources.walk import entry_of, files_below
from verydeep.machine.addresses import is_address
from verydeep.machine.errors import one_line
from verydeep.machine.regular_files import read_file

GivenImage = str | Path | bytes | NDArray[np.uint8] | Image.Image
"""A file, a folder of files, or a pattern such as `photos/**/*.jpg`; the contents of an image file; an image's pixels,
uint8 [H, W, 3], RGB; or a Pillow image."""

_Opened = Path | bytes | NDArray[np.uint8] | Image.Image

_STANDARD_INPUT = "-"

_DOWNLOAD = "download the image, and name its file"

_NO_CLASS = -1
"""The label of an image that has none."""


def given_images(
    images: Source | GivenImage | Iterable[GivenImage], *, standard_input: Callable[[], bytes] | None = None
) -> Source:
    """Make one or more images a source, unless they are one already.

    Folders stand for the image files in them and below, patterns for the files that fit.

    `standard_input` reads the input for `-`: the contents of one image file, or paths, one a line, of files and
    folders. They are an image if they begin like one or hold a zero byte, which no path can.

    Raises:
        ValueError: a path that does not exist (those read from standard input are not looked for), a folder or pattern
            without images, nothing on standard input, or pixels that are not uint8 [H, W, 3].
    """
    if isinstance(images, Source):
        return images
    several = cast(Iterable[GivenImage], [images] if _is_one(images) else images)
    named: list[tuple[str, _Opened]] = []
    places: dict[str, Found] = {}
    for number, image in enumerate(several):
        if isinstance(image, str | Path):
            if image == "":  # which Path takes for the current folder
                raise ValueError("no file ''")
            if is_address(str(image)):  # which Path would change
                raise ValueError(f"{image} is an address: {_DOWNLOAD}")
            if str(image) == _STANDARD_INPUT and standard_input is not None:
                named += _from_standard_input(standard_input(), places)
            else:
                named += ((str(path), path) for path in _files(Path(image), places))
        else:
            _check_pixels(image, number)
            named.append((f"image {number}", image))
    return Source(
        classes=(),
        labels=(_NO_CLASS,) * len(named),
        paths=partial(own_path, [name for name, _ in named]),
        read=partial(_read, named),
        fingerprint_of=partial(_fingerprint, named),
        inventory=Inventory(places=places),
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


def _files(path: Path, places: dict[str, Found]) -> list[Path]:
    """List the image files that a path stands for, a folder, a pattern or a file; add other files there to `places`.

    Raises:
        ValueError: there is no such file, or no image in the folder or under the pattern.
    """
    if os.path.isdir(path):
        entries, why = [entry.within(str(path)) for entry in files_below(path)], f"no images in {path}"
    elif os.path.lexists(path) or not glob.has_magic(str(path)):
        if not os.path.exists(path):
            raise ValueError(f"no file {str(path)!r}")
        return [path]
    else:
        entries, why = list(_fitting(str(path))), f"no image files fit {str(path)!r}"
    found = found_in(entries)
    places[str(path)] = places.get(str(path), Found()) + found
    images = sorted(Path(entry.path) for entry in entries if entry.what == "image")
    if not images:
        reasons = "; ".join(Inventory(places={"": found}).reasons())
        raise ValueError(f"{why}{', only ' if reasons else ''}{reasons}")
    return images


def _fitting(pattern: str) -> Iterator[FoundFile]:
    """Yield the files that fit a pattern, each once however many links lead to it; folders are passed over."""
    fixed = next(place for place, part in enumerate(Path(pattern).parts) if glob.has_magic(part))
    seen: set[str] = set()
    for name in sorted(glob.glob(pattern, recursive=True), key=lambda name: (name.count(os.sep), name)):
        if os.path.isdir(name):
            continue
        file = os.path.join(os.path.realpath(os.path.dirname(name)), os.path.basename(name))
        if any(map(is_leftover, Path(name).parts[fixed:])):
            yield FoundFile("hidden", name)
        elif file not in seen:
            yield entry_of(name)
        seen.add(file)


def _from_standard_input(data: bytes, places: dict[str, Found]) -> list[tuple[str, _Opened]]:
    if not data.strip():
        raise ValueError("standard input is empty: give it an image, or paths, one a line")
    if b"\0" in data or is_image(data):
        return [(_STANDARD_INPUT, data)]
    lines = [os.fsdecode(line.rstrip(b"\r")) for line in data.split(b"\n") if line.strip()]
    return [named for line in lines for named in _of_line(line, places)]


def _of_line(line: str, places: dict[str, Found]) -> list[tuple[str, _Opened]]:
    """Return the images of a folder, or one image, with their names: of an address just as it is written."""
    path = Path(line)
    files = _files(path, places) if os.path.isdir(path) else [path]
    return [(line if is_address(line) else str(file), file) for file in files]


def _read(named: Sequence[tuple[str, _Opened]], index: int) -> bytes:
    name, image = named[index]
    if is_address(name):
        raise UnusableImageError(name, "unreadable", f"it is an address: {_DOWNLOAD}")
    return _encoded(image, name)


def _fingerprint(named: Sequence[tuple[str, _Opened]], _: Source) -> str:
    return digest(*((name, _contents(image)) for name, image in named))


def _encoded(image: _Opened, name: str) -> bytes:
    """Return an image as the contents of a file, so that all images are decoded alike; pixels are stored unchanged."""
    if isinstance(image, bytes):
        return image
    if isinstance(image, Path):
        return read_file(image)
    if isinstance(image, Image.Image):
        try:
            image = upright_rgb(image)
        except Exception as error:  # a broken file that Pillow has opened
            raise UnusableImageError(name, "undecodable", one_line(error)) from error
    return b"P6 %d %d 255\n" % (image.shape[1], image.shape[0]) + image.tobytes()


def _contents(image: _Opened) -> object:
    """Return the mark of an image among others of its name: the size of a file, or a digest of bytes in memory."""
    if isinstance(image, Path):
        return image.stat().st_size if os.path.isfile(image) else None
    try:
        return hashlib.sha256(_encoded(image, "")).digest()
    except UnusableImageError as refusal:
        return refusal.reason
