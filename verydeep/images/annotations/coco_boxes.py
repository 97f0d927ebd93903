"""Boxes of COCO's JSON files."""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from verydeep.images.annotations.annotation import Annotation, Listed, finite, four_numbers, stated_size
from verydeep.images.decode import Size


class _Image(NamedTuple):
    name: str
    size: Size | None


def coco_boxes(path: Path) -> Iterator[Annotation | Listed]:
    """Read the images of a file, and its boxes.

    Raises:
        ValueError: it is damaged.
    """
    try:
        contents = json.loads(path.read_text(encoding="utf-8-sig"))
        images = _by_id(contents["images"], "image", path)
        categories = _by_id(contents.get("categories") or [], "category", path)
        listed = {key: _image(image, f"{path} image {number}") for number, (key, image) in enumerate(images.items(), 1)}
        names = {key: str(category["name"]) for key, category in categories.items()}
        annotations = list(contents["annotations"])
    except _DamagedError:
        raise
    except LookupError as error:
        raise ValueError(f"{path} is not in COCO's format: it has no {error}") from error
    except (ValueError, TypeError, AttributeError, RecursionError) as error:
        raise ValueError(f"{path} is not in COCO's format: {error}") from error
    yield from (Listed(image.name, f"{path} image {number}") for number, image in enumerate(listed.values(), 1))
    for number, annotation in enumerate(annotations, 1):
        yield _annotation(annotation, listed, names, f"{path} annotation {number}")


class _DamagedError(ValueError):
    """A damaged file; the message is complete."""


def _by_id(entries: list[dict[str, Any]], kind: str, path: Path) -> dict[Any, dict[str, Any]]:
    by_id: dict[Any, dict[str, Any]] = {}
    for number, entry in enumerate(entries, 1):
        if entry["id"] in by_id:
            raise _DamagedError(f"{path} {kind} {number}: its id, {entry['id']!r}, is that of another {kind}")
        by_id[entry["id"]] = entry
    return by_id


def _image(image: dict[str, Any], where: str) -> _Image:
    name = image["file_name"]
    if not isinstance(name, str) or not name:
        raise _DamagedError(f"{where}: its file_name is not a name but {name!r}")
    try:
        return _Image(name, stated_size(image.get("width"), image.get("height"), where))
    except ValueError as error:
        raise _DamagedError(str(error)) from error


def _annotation(annotation: Any, images: Mapping[Any, _Image], names: Mapping[Any, str], where: str) -> Annotation:
    if not isinstance(annotation, dict):
        raise ValueError(f"{where} is not an annotation")
    image_id, category_id = annotation.get("image_id"), annotation.get("category_id")
    _check_known(image_id, images, "image_id", "image", where)
    if category_id is not None:
        _check_known(category_id, names, "category_id", "category", where)
    sides = annotation.get("bbox")
    if not isinstance(sides, list):
        raise ValueError(f"{where} has no bbox, a list of x, y, width, height")
    x, y, width, height = four_numbers(sides, where)
    box = finite((x, y, x + width, y + height), sides, where)
    name, size = images[image_id]
    class_name, crowd = names.get(category_id), bool(annotation.get("iscrowd"))
    return Annotation(name, box, class_name, where, size=size, crowd=crowd)


def _check_known(key: Any, known: Mapping[Any, object], field: str, kind: str, where: str) -> None:
    if isinstance(key, list | dict) or key not in known:
        raise ValueError(f"{where}: the file has no {kind} with its {field}, {key!r}")
