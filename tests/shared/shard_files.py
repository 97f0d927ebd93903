"""Tar shards written for tests, and what a source makes of them."""

import io
import tarfile

from PIL import Image

from verydeep.images.open import open_for_testing


def png(number, size=(8, 6)):
    """An image of its own grey."""
    buffer = io.BytesIO()
    Image.new("RGB", size, (number, number, number)).save(buffer, "PNG")
    return buffer.getvalue()


def sample(key, label, number=0, extension="cls"):
    """The two members of one sample."""
    return [(f"{key}.png", png(number)), (f"{key}.{extension}", str(label).encode())]


def samples(labels, start=0):
    """Keys 000, 001, ..., each with an image of its own grey."""
    return [member for n, label in enumerate(labels, start) for member in sample(f"{n:03d}", label, n)]


def write_shard(path, members, mode="w"):
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, mode) as archive:
        for name, content in members:
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return path


def items(source):
    return [source[index] for index in range(len(source))]


def found(splits):
    """Bytes and class of every image of every part, by its name in the archive; no name may stand there twice."""
    result = {}
    for part in splits.sources.values():
        for data, label, name in items(part):
            key = name.split("/", 1)[1]
            assert key not in result
            result[key] = (data, part.classes[label])
    return result


def whole(name, classes):
    """All images of a source without splits."""
    return open_for_testing(str(name), classes).source("all")


def sizes(splits):
    return {split: len(part) for split, part in splits.sources.items()}
