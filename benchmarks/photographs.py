"""Photographs in memory, from a folder or a tar file, for benchmarks that must not wait for a disk."""

import tarfile
from pathlib import Path

from verydeep.images.sources.source import Sample, Source, memory_source
from verydeep.images.sources.walk import is_image_file


def photographs_in(place: Path) -> Source:
    """Read all images of a folder or a tar file."""
    if place.is_dir():
        paths = [path for path in sorted(place.rglob("*")) if is_image_file(path)]
        files = {path.relative_to(place).as_posix(): path.read_bytes() for path in paths}
    else:
        with tarfile.open(place) as archive:
            members = [member for member in archive if member.isfile()]
            files = {member.name: archive.extractfile(member).read() for member in members}  # type: ignore[union-attr]
    return source_of([Sample(data, 0, name) for name, data in files.items()])


def source_of(samples: list[Sample]) -> Source:
    """Return a source of samples, all of one class."""
    return memory_source(classes=("any",), samples=samples)
