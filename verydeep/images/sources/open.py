"""SOURCE, as people give it, to its splits; which number a class has is settled here, by name."""

from collections import Counter
from pathlib import Path

from verydeep.ilsvrc_classes import places
from verydeep.images.sources.digits import digits
from verydeep.images.sources.folders import folder_parts
from verydeep.images.sources.hub import PREFIX, hub_parts
from verydeep.images.sources.shards import holds_shards, names_shards, shard_parts
from verydeep.images.sources.source import Part, Source, Splits, hold_out, some

DIGITS = "digits"


def open_source(name: str) -> Splits:
    """The splits of SOURCE for training.

    SOURCE is a folder with one folder per class, or with `train/` and `val/` (also `validation/`, `test/`) that hold
    those; tar shards, `data/{000..099}.tar`, or a folder of them; `hub:NAME`; or `digits`. Where there is no
    validation split a fifth of each class is held out, always the same images. Classes are numbered in the order of
    the training split; in other splits they are matched to it by name, where an ILSVRC class has two: its WordNet id
    and its word.

    Raises:
        ValueError: no such source, no images in it, fewer than two classes, a class with a single image, or one that
            training lacks.
    """
    if name == DIGITS:
        return digits()
    parts = _parts(name)
    if "train" not in parts and "all" not in parts:
        raise ValueError(f"{name} has {', '.join(parts)} but no train {'folder' if Path(name).is_dir() else 'split'}")
    training = parts.pop("train", None) or parts.pop("all")
    if len(training.names) < 2:
        raise ValueError(f"{training.where} has one class only ({training.names[0]}): there is nothing to tell apart")
    others = {split: _numbered(part, training.names) for split, part in parts.items()}
    train = training.numbered(training.names)
    held_out = {} if "val" in others else hold_out(train, train.labels)
    return Splits(name=name, parts={"train": train, **held_out, **others})


def open_for_testing(name: str, classes: tuple[str, ...] | None) -> Splits:
    """The splits of SOURCE for a net that knows `classes`; there may be fewer of them, and few images of each.

    Without `classes`, where it does not matter what a net knows, those of its own training split count.

    A source without splits also has the part `all`. Its `train` and `val` are what training would make of it.

    Raises:
        ValueError: no such source, no images in it, or a class that the net does not know.
    """
    if name == DIGITS:
        _check_known(digits().classes, classes or digits().classes, DIGITS)
        return digits()
    found = _parts(name)
    if classes is None:
        classes = (found.get("train") or next(iter(found.values()))).names
    parts = {split: _numbered(part, classes) for split, part in found.items()}
    whole = found.get("train") or found.get("all")
    if whole is not None and "val" not in parts:
        own_labels = whole.numbered(whole.names).labels
        if min(Counter(own_labels).values()) > 1:
            parts |= hold_out(whole.numbered(classes), own_labels)
    return Splits(name=name, parts=parts)


def _parts(name: str) -> dict[str, Part]:
    if name.startswith(PREFIX):
        return hub_parts(name)
    root = Path(name).expanduser()
    if holds_shards(root) if root.is_dir() else names_shards(name):
        return shard_parts(name)
    if not root.is_dir():
        raise ValueError(
            f"no folder {name!r}: give a folder of images, one folder per class, tar shards, hub:NAME, or the word "
            "digits"
        )
    return folder_parts(root)


def _numbered(part: Part, classes: tuple[str, ...]) -> Source:
    """The source of a part, its labels by these classes."""
    _check_known(part.names, classes, part.where)
    return part.numbered(classes)


def _check_known(names: tuple[str, ...], classes: tuple[str, ...], where: str) -> None:
    numbers = places(classes)
    unknown = sorted(set(names) - set(numbers))
    if unknown:
        raise ValueError(f"{where} has classes that training lacks: {some(unknown)}; it has {some(classes)}")
    taken: dict[int, str] = {}
    for name in names:
        if (other := taken.setdefault(numbers[name], name)) != name:
            raise ValueError(f"{where} has one class under two names, {other} and {name}: keep one of them")
