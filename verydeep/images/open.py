"""The door for SOURCE and for images given one by one; class names get their numbers here."""

import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from verydeep.ilsvrc_classes import class_numbers
from verydeep.images.annotations.box_files import read_boxes
from verydeep.images.boxes.checking import BoxCheck, with_boxes
from verydeep.images.boxes.matching import boxes_by_split
from verydeep.images.boxes.options import BoxOptions
from verydeep.images.sources.digits import DIGITS
from verydeep.images.sources.folders import FOLDERS
from verydeep.images.sources.given import GivenImage, given_images
from verydeep.images.sources.hub import HUB
from verydeep.images.sources.shards import SHARDS
from verydeep.images.sources.source import Source, all_of
from verydeep.images.sources.splits import FoundSplits, Splits, UnnumberedSplit, hold_out
from verydeep.images.sources.walk import files_beside_folders, is_image_file, subfolders
from verydeep.images.tolerance import MAX_PIXELS
from verydeep.machine.home import expanded
from verydeep.numbers import first_few
from verydeep.presentation.terminal import reporting

_KINDS = (DIGITS, HUB, SHARDS, FOLDERS)
"""Kinds of SOURCE, in the order in which they are tried."""


def open_for_training(source: str | Path | Splits) -> Splits:
    """Open SOURCE for training; splits are returned unchanged.

    SOURCE is a folder with one folder per class, or with `train/` and `val/` (also `validation/`, `test/`) that hold
    those; tar shards, `data/{000..099}.tar`, or a folder of them; `hub:NAME`; or `digits`. Where there is no
    validation split a fifth of each class is held out, the same images as long as the source has the same. Classes are
    numbered in the order of the training split; in other splits they are matched to it by name (an ILSVRC class has
    two, its WordNet id and its word).

    Raises:
        ValueError: no such source, no images in it, fewer than two classes, a class with a single image, or a class
            that training lacks.
    """
    if isinstance(source, Splits):
        return source
    source = str(source)
    unnumbered, inventory = _found_splits(source)
    if "train" not in unnumbered and "all" not in unnumbered:
        kind = "folder" if expanded(source).is_dir() else "split"
        raise ValueError(f"{source} has {', '.join(unnumbered)} but no train {kind}")
    training = unnumbered.pop("train", None) or unnumbered.pop("all")
    if len(training.names) < 2:
        raise ValueError(f"{training.where} has one class only ({training.names[0]}): there is nothing to tell apart")
    others = {name: _numbered(split, training.names) for name, split in unnumbered.items()}
    train = training.numbered(training.names)
    held_out = {} if "val" in others else hold_out(train, train.labels)
    return Splits(name=source, sources={"train": train, **held_out, **others}, inventory=inventory)


def open_for_testing(source: str | Path | Splits, classes: tuple[str, ...] | None) -> Splits:
    """Open SOURCE for a network that knows `classes`; it may have fewer of them, and few images of each.

    Without `classes`, where it does not matter what a network knows, those of its own training split count. A source
    without splits also has the split `all`; its `train` and `val` are those of a training. Splits are
    returned unchanged.

    Raises:
        ValueError: no such source, no images in it, or a class that the network does not know.
    """
    if isinstance(source, Splits):
        return source
    source = str(source)
    unnumbered, inventory = _found_splits(source)
    if classes is None:
        classes = (unnumbered.get("train") or next(iter(unnumbered.values()))).names
    sources = {name: _numbered(split, classes) for name, split in unnumbered.items()}
    whole = unnumbered.get("train") or unnumbered.get("all")
    if whole is not None and "val" not in sources:
        own_labels = whole.numbered(whole.names).labels
        if min(Counter(own_labels).values()) > 1:
            sources |= hold_out(whole.numbered(classes), own_labels)
    return Splits(name=source, sources=sources, inventory=inventory)


def open_boxed(
    splits: Splits,
    names: Sequence[str],
    options: BoxOptions,
    *,
    every_class_of: str | None = None,
    max_pixels: int = MAX_PIXELS,
) -> tuple[dict[str, Source], BoxCheck]:
    """Open files of boxes for some splits of a source; return the images that have a box, and why others have none.

    Boxes are matched to the images of all splits, so that a name that fits two of them is noticed. Every image with a
    box in the splits `names` is read, by each process for itself. The split `every_class_of` must keep all its classes.

    Raises:
        ValueError: unusable boxes; the message names file and line.
    """
    annotations = [annotation for path in options.boxes for annotation in read_boxes(path, options.box_units)]
    objects = [annotation for annotation in annotations if not annotation.crowd]
    if not objects:
        raise ValueError(f"no boxes in {', '.join(map(str, options.boxes)) or 'no file'}")
    check = BoxCheck(crowds=[annotation.where for annotation in annotations if annotation.crowd])
    together = "all" in names and "all" not in splits.sources
    wanted = splits.sources if together else {name: splits.source(name) for name in names}
    boxes = boxes_by_split(splits.sources, objects, options.boxes)
    boxed: dict[str, Source] = {}
    with reporting("check boxes", total=sum(map(len, wanted.values()))) as report:
        for name, source in wanted.items():
            boxed[name] = with_boxes(
                source,
                boxes[name],
                options,
                check,
                every_class=name == every_class_of,
                max_pixels=max_pixels,
                advance=report.advance,
            )
    return ({"all": all_of(boxed)} if together else boxed), check


def open_one_split(
    data: str | Path | Source | Splits | GivenImage | Sequence[GivenImage], split: str | None = None
) -> Source:
    """Open images whose classes do not matter: one split of SOURCE, or images without classes.

    Raises:
        ValueError: no such images or split, or several splits and none named.
    """
    if isinstance(data, str | Path):
        data = given_images(data) if _without_classes(Path(data)) else open_for_testing(str(data), None)
    if isinstance(data, Splits):
        return _only_split(data, split)
    source = given_images(data)
    if split not in (None, "all"):
        raise ValueError(f"these images have no splits: leave out {split!r}")
    return source


def _without_classes(path: Path) -> bool:
    """Return whether this is an image, or a folder with images but without folders in it."""
    if os.path.isdir(path):
        return not subfolders(path) and any(entry.what == "image" for entry in files_beside_folders(path))
    return os.path.isfile(path) and is_image_file(path)


def _only_split(splits: Splits, split: str | None) -> Source:
    if split is None and "all" not in splits.sources and len(splits.sources) > 1:
        raise ValueError(f"{splits.name} has splits: say which of {', '.join(splits.sources)}, all (--split)")
    only = "all" if "all" in splits.sources else next(iter(splits.sources))
    return replace(splits.source(split or only), inventory=splits.inventory)


def _found_splits(name: str) -> FoundSplits:
    """Find the splits of SOURCE.

    Raises:
        ValueError: no such source, or no images in it.
    """
    kind = next((kind for kind in _KINDS if name and kind.fits(name)), None)  # "" would be the current folder
    if kind is None:
        raise ValueError(f"no folder {name!r}: give {', '.join(kind.described for kind in _KINDS[::-1])}")
    return kind.splits(name)


def _numbered(split: UnnumberedSplit, classes: tuple[str, ...]) -> Source:
    """Number a split's labels by these classes.

    Raises:
        ValueError: the split has a class that is not among them, or one under two names.
    """
    numbers = class_numbers(classes)
    unknown = sorted(set(split.names) - set(numbers))
    if unknown:
        raise ValueError(
            f"{split.where} has classes that training lacks: {first_few(unknown)}; it has {first_few(classes)}"
        )
    taken: dict[int, str] = {}
    for name in split.names:
        if (other := taken.setdefault(numbers[name], name)) != name:
            raise ValueError(f"{split.where} has one class under two names, {other} and {name}: keep one of them")
    return split.numbered(classes)
