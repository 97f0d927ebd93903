"""Images in a fixed order: a source is map-style, so order, resuming and sharing are arithmetic on indices."""

import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from verydeep.ilsvrc_classes import class_numbers
from verydeep.images.decode import Size, UnusableImageError
from verydeep.images.sources.inventory import Inventory
from verydeep.machine.errors import reason
from verydeep.presentation.terminal import reporting

CHANGED = "its file has changed since it was first read"


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


@dataclass(frozen=True, kw_only=True, eq=False)
class Source:
    """Images in a fixed order. Its functions can be sent to another process."""

    classes: tuple[str, ...]
    """Names of the classes, in the order of the labels."""
    labels: Sequence[int]
    """The label of every image."""
    paths: Callable[[int], tuple[ImagePath, ...]]
    """Returns the paths that may name an image, without reading it; the first one is its id, which messages use."""
    read: Callable[[int], bytes]
    """Returns the encoded image; an OSError makes it unusable."""
    fingerprint_of: Callable[["Source"], str]
    """Returns a hexadecimal digest of the source's names and sizes, not of the files' contents."""
    boxes: Sequence[ObjectBox] = ()
    """Where every image's object is; none where images have no boxes."""
    inventory: Inventory = Inventory()
    """Inventory of the places where these images were looked for; empty for a part of a source."""
    digests: Sequence[bytes] = ()
    """Result of `contents_digests`, or nothing; an image that has changed since then cannot be used."""

    @cached_property
    def ids(self) -> tuple[str, ...]:
        """The id of every image, as in its sample, without reading any."""
        return tuple(self.paths(index)[0].path for index in range(len(self)))

    @cached_property
    def fingerprint(self) -> str:
        """Hexadecimal digest of the source's contents."""
        return self.fingerprint_of(self)

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> Sample:
        label, name = self.labels[index], self.paths(index)[0].path
        try:
            data = self.read(index)
        except OSError as error:
            raise UnusableImageError(name, "unreadable", reason(error)) from error
        except UnusableImageError as refusal:  # from a source that this one is made of, by its name there
            raise UnusableImageError(name, refusal.kind, refusal.detail) from refusal
        if self.digests and hashlib.sha256(data).digest() != self.digests[index]:
            raise UnusableImageError(name, "unreadable", CHANGED)
        return Sample(data, label, name)


def memory_source(*, classes: tuple[str, ...], samples: Sequence[Sample]) -> Source:
    """Make a source of encoded images held in memory."""
    return Source(
        classes=classes,
        labels=tuple(sample.label for sample in samples),
        paths=partial(own_path, [sample.id for sample in samples]),
        read=[sample.data for sample in samples].__getitem__,
        fingerprint_of=_of_contents,
    )


def subset(source: Source, indices: Sequence[int]) -> Source:
    """Select some images of another source."""
    return Source(
        classes=source.classes,
        labels=tuple(source.labels[index] for index in indices),
        paths=partial(_other_paths, source, indices),
        read=partial(_other_data, source, indices),
        fingerprint_of=partial(_of_subset, source, tuple(indices)),
        boxes=tuple(source.boxes[index] for index in indices) if source.boxes else (),
    )


def evenly_spread(images: int, count: int) -> tuple[int, ...]:
    """Return indices of `count` images or of all, evenly spread: a source is often sorted by class."""
    return tuple(np.linspace(0, images - 1, min(count, images)).round().astype(int).tolist())


def all_of(sources: Mapping[str, Source]) -> Source:
    """Put the splits of a source together; an image's id then has the name of its split before it."""
    places = tuple((split, index) for split, source in sources.items() for index in range(len(source)))
    parts = [*sources.values()]
    boxed = all(part.boxes for part in parts)
    return Source(
        classes=parts[0].classes,
        labels=tuple(label for part in parts for label in part.labels),
        paths=partial(_paths_in_all, sources, places),
        read=partial(_data_in_all, sources, places),
        fingerprint_of=partial(_of_all, sources),
        boxes=tuple(box for part in parts for box in part.boxes) if boxed else (),
    )


def unchanged(source: Source, digests: Sequence[bytes]) -> Source:
    """Return a source whose files must not change: one that has changed since cannot be used."""
    return replace(source, digests=digests, fingerprint_of=partial(_of_other, source))


def boxed_source(source: Source, boxes: Sequence[ObjectBox]) -> Source:
    """Give every image of a source its box."""
    return replace(source, boxes=boxes, fingerprint_of=partial(_of_boxed, source))


def numbered(source: Source, classes: tuple[str, ...]) -> Source:
    """Number the labels of a source by `classes`, in their order; the source's own are among them."""
    numbers = class_numbers(classes)
    own = [numbers[name] for name in source.classes]
    return replace(source, classes=classes, labels=tuple(own[label] for label in source.labels))


def contents_digests(source: Source, *, notes: Iterable[str] = ()) -> list[bytes]:
    """Read every image file and return the SHA-256 of each, in order, since files of the same name may differ.

    Progress is reported as the reading of images, after `notes`.
    """
    digests = []
    with reporting("read images", total=len(source)) as report:
        report.say_all(notes)
        for index in range(len(source)):
            try:
                data = source[index].data
            except UnusableImageError as refusal:
                data = repr(refusal).encode(errors="surrogateescape")
            digests.append(hashlib.sha256(data).digest())
            report.advance()
    return digests


def own_path(ids: Sequence[str], index: int) -> tuple[ImagePath, ...]:
    """Return the paths of an image that is known by its id alone."""
    return (ImagePath(ids[index]),)


def digest(*parts: object) -> str:
    """Return the hexadecimal SHA-256 of the parts' printed forms."""
    return hashlib.sha256("\n".join(map(repr, parts)).encode()).hexdigest()


def _other_paths(source: Source, indices: Sequence[int], index: int) -> tuple[ImagePath, ...]:
    return source.paths(indices[index])


def _other_data(source: Source, indices: Sequence[int], index: int) -> bytes:
    return source[indices[index]].data


def _paths_in_all(
    sources: Mapping[str, Source], places: Sequence[tuple[str, int]], index: int
) -> tuple[ImagePath, ...]:
    split, of_split = places[index]
    paths = sources[split].paths(of_split)
    first = paths[0].path
    return (ImagePath(first if first.startswith(f"{split}/") else f"{split}/{first}"), *paths)


def _data_in_all(sources: Mapping[str, Source], places: Sequence[tuple[str, int]], index: int) -> bytes:
    split, of_split = places[index]
    return sources[split][of_split].data


def _of_contents(source: Source) -> str:
    hashes = (hashlib.sha256(source.read(index)).hexdigest() for index in range(len(source)))
    return digest(source.classes, *zip(hashes, source.labels, source.ids, strict=True))


def _of_subset(whole: Source, indices: tuple[int, ...], _: Source) -> str:
    return digest(whole.fingerprint, indices)


def _of_all(sources: Mapping[str, Source], _: Source) -> str:
    return digest(*((split, source.fingerprint) for split, source in sources.items()))


def _of_other(other: Source, _: Source) -> str:
    return other.fingerprint


def _of_boxed(without: Source, source: Source) -> str:
    return digest(without.fingerprint, *(location.box.tolist() for location in source.boxes))
