"""Images in a fixed order: a source is map-style, so order, resuming and sharing are arithmetic on indices."""

import hashlib
from collections.abc import Sequence
from typing import NamedTuple, Protocol

import numpy as np
from jaxtyping import Float

from verydeep.images.decode import Size, UnusableImageError
from verydeep.presentation.progress import reporting

_JPEG = (".jpg", ".jpeg", ".jpe", ".jfif", ".jp2")
_NETPBM = (".ppm", ".pgm", ".pbm", ".pnm")

IMAGE_SUFFIXES = frozenset((*_JPEG, *_NETPBM, ".png", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".avif"))


class Sample(NamedTuple):
    """One item of a source."""

    data: bytes
    """The encoded image, as its file holds it."""
    label: int
    id: str


class ImagePath(NamedTuple):
    """A path by which other files (of boxes, of labels, of test images) may name an image."""

    path: str
    folders: tuple[str, ...] = ()
    """Names of the folder that the path begins in; the first is its real one."""


class ObjectBox(NamedTuple):
    """Where an image's object is."""

    box: Float[np.ndarray, " 4"]
    """(x0, y0, x1, y1) in pixels of the upright image."""
    size: Size | None
    """Height and width of the upright image; None if it could not be read."""


class Source(Protocol):
    """Images in a fixed order."""

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the classes, in the order of the labels."""

    @property
    def labels(self) -> Sequence[int]:
        """The label of every image, without reading any."""

    @property
    def ids(self) -> Sequence[str]:
        """The name of every image, as its sample has it, without reading any."""

    @property
    def boxes(self) -> Sequence[ObjectBox] | None:
        """Where every image's object is; None where images have no boxes."""

    @property
    def fingerprint(self) -> str:
        """Hexadecimal digest of what the source holds; `FolderSource` looks at names and sizes, not into the files."""

    def paths(self, index: int) -> tuple[ImagePath, ...]:
        """Return the paths that may name an image; the first one is its id, which messages use."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> Sample: ...


def contents_digests(source: Source) -> list[bytes]:
    """Read every image file and return the SHA-256 of each, in order: files of the same name are not always the same.

    Progress is reported as the reading of images.
    """
    digests = []
    with reporting("read images", total=len(source)) as report:
        for index in range(len(source)):
            try:
                data = source[index].data
            except UnusableImageError as refusal:
                data = repr(refusal).encode(errors="surrogateescape")
            digests.append(hashlib.sha256(data).digest())
            report.advance()
    return digests


def digest(*parts: object) -> str:
    """Return the hexadecimal SHA-256 of the parts' printed forms."""
    return hashlib.sha256("\n".join(map(repr, parts)).encode()).hexdigest()
