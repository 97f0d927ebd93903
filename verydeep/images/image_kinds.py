"""Kinds of image files: known by their first bytes, whatever they are called, or by the ending of their name."""

import warnings
from functools import cache
from pathlib import PurePath
from typing import BinaryIO

from PIL import Image

from verydeep.machine.libraries import MissingLibraryError, library

_JPEG = (".jpg", ".jpeg", ".jpe", ".jfif", ".jp2")
_NETPBM = (".ppm", ".pgm", ".pbm", ".pnm")

HEIF_SUFFIXES = frozenset((".heic", ".heics", ".heif", ".heifs", ".hif"))

IMAGE_SUFFIXES = (
    frozenset((*_JPEG, *_NETPBM, ".png", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".avif")) | HEIF_SUFFIXES
)

_RAW_SUFFIXES = frozenset(
    {
        *(".3fr", ".arw", ".cr2", ".cr3", ".crw", ".dcr", ".dng", ".erf", ".fff", ".iiq", ".kdc", ".mef"),
        *(".mos", ".mrw", ".nef", ".nrw", ".orf", ".pef", ".raf", ".raw", ".rw2", ".rwl", ".sr2", ".srf"),
        *(".srw", ".x3f"),
    }
)
"""Raw files of cameras. Some begin as a TIFF does, whose first image is a thumbnail: they are never taken."""

DATA_SUFFIXES = frozenset(
    {
        *(".arrow", ".cls", ".csv", ".db", ".gz", ".h5", ".htm", ".html", ".ini", ".ipynb", ".json", ".jsonl"),
        *(".log", ".md", ".mov", ".mp4", ".names", ".npy", ".npz", ".parquet", ".pdf", ".pickle", ".pkl", ".pt"),
        *(".py", ".rst", ".safetensors", ".tar", ".toml", ".tsv", ".txt", ".xml", ".yaml", ".yml", ".zip"),
    }
)
"""Endings of files that lie beside images by the thousand, such as labels: they are not opened."""

Image.init()  # before that Pillow does not know its formats
_FORMATS: list[str] = [
    kind for kind in ("JPEG", "PNG", "GIF", "WEBP", "BMP", "TIFF", "PPM", "JPEG2000", "AVIF") if kind in Image.OPEN
]
"""Formats that Pillow may try, whatever a file is called: some of its others run programs."""

_HEIF_BRANDS = frozenset((b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"hevm", b"hevs", b"mif1", b"msf1"))
"""Brands of ISO/IEC 23008-12; an AVIF file may have the last two as well."""

_HEAD = 12
"""Bytes by which HEIF is recognised."""


_HEIF_PACKAGE = "pillow_heif"


@cache
def missing_for_heif() -> str | None:
    """Make Pillow read HEIC; return the package that has to be installed for that, None if it is there."""
    try:
        library(_HEIF_PACKAGE, needed_by="HEIC").register_heif_opener()
    except MissingLibraryError as error:
        return str(error)
    return None


def was_missing_for_heif(reason: str) -> bool:
    """Return whether an image was left out because the package that reads HEIC was missing."""
    return _HEIF_PACKAGE in reason


def begins_as_heif(data: bytes) -> bool:
    """Return whether bytes begin like a HEIC file, as some AVIF files do too."""
    return data[4:8] == b"ftyp" and data[8:12] in _HEIF_BRANDS


def formats_for(data: bytes) -> list[str]:
    """Return the formats that Pillow may try on a file that begins with these bytes."""
    return [*_FORMATS, "HEIF"] if begins_as_heif(data) and missing_for_heif() is None else _FORMATS


def has_image_suffix(name: str) -> bool:
    """Return whether a file of this name is taken for an image; if it is not one, reading it says so."""
    ending = PurePath(name).suffix.lower()
    return ending in IMAGE_SUFFIXES and (ending not in HEIF_SUFFIXES or missing_for_heif() is None)


def is_worth_opening(name: str) -> bool:
    """Return whether a file of this name must be opened to tell if it is an image."""
    return PurePath(name).suffix.lower() not in IMAGE_SUFFIXES | _RAW_SUFFIXES | DATA_SUFFIXES


def holds_image(file: BinaryIO) -> bool:
    """Return whether the head of an open file is that of an image in a format that can be read."""
    try:
        head = file.read(_HEAD)
        file.seek(0)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # on damaged EXIF, on size
            with Image.open(file, formats=formats_for(head)):
                return True
    except Image.DecompressionBombError:
        return True
    except Exception:  # Pillow's format plugins raise almost anything on files that are something else
        return False
