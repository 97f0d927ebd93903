"""Test images that a run may know from its training: copies of its training images, and ImageNet's own images."""

import os
import re
from collections.abc import Sequence
from pathlib import Path

from verydeep.exported_networks.exported import is_exported
from verydeep.images.sources.source import Source, contents_digests
from verydeep.images.sources.splits import Splits
from verydeep.numbers import counted, first_few, number, plural
from verydeep.runs.record import Record, record_of, training_images

_MOST_COMPARED = 100_000
"""Training images whose files are read for the sake of a warning."""

_IMAGENET_NAME = re.compile(r"(?:^|/)(?:n\d{8}(?:_\d+)?|ILSVRC2012_\w+)(?:\.\w+)?(?:/|$)")
"""A class or an image: `n02123045`, `n02123045_1.JPEG`, `ILSVRC2012_val_00000001.JPEG`."""


def known_images(runs: Sequence[str], splits: Splits, split: str, *, digests: Sequence[bytes] | None) -> list[str]:
    """Return a sentence for each reason why a test of `runs` on a split may tell less about new images than it seems.

    Args:
        runs: run folders; a model without the record of its training tells nothing.
        splits: the source.
        split: the split that is tested.
        digests: `contents_digests` of the split, if they are known already.

    Raises:
        ValueError: the record of a run is damaged.
    """
    records = {run: record for run in runs if (record := record_of(run)) is not None}
    told = _about_training_images(records, splits, split) or _about_copies(records, splits, split, digests)
    told += _about_other_images_then(records, splits)
    name = next((name for name in _names(splits.source(split)) if _IMAGENET_NAME.search(name)), None)
    if {"all", "train"} <= splits.sources.keys() and (files := [run for run in runs if is_exported(run)]):
        unsaid = f"{', '.join(files)} {plural('does', len(files), 'do')} not say which images trained it"
        if split == "all":
            told.append(f"{unsaid}: if some of these did, the error is too low (--split val has those held out).")
        elif split == "val":
            told.append(f"{unsaid}: only images that training on this folder holds out are tested (--split all: all).")
    elsewhere = [run for run, record in records.items() if _began_elsewhere(run, record)]
    if name is not None and elsewhere:
        told.append(
            f"{name} is a name of ImageNet's: if the weights that {', '.join(elsewhere)} began with were trained on "
            "ImageNet, they may know these images, and the error is too low."
        )
    return told


def _about_training_images(records: dict[str, Record], splits: Splits, split: str) -> list[str]:
    if split not in ("train", "all") or "train" not in splits.sources:
        return []
    train, tested = splits.source("train"), number(len(splits.source(split)))
    others = f" (--split {splits.testing}: others)" if splits.testing in splits.sources else ""
    trained = {run: record for run, record in records.items() if train.fingerprint in training_images([record])}
    whole = {run for run, record in trained.items() if record.fingerprints.get("train") == train.fingerprint}
    known = {
        run: len(train) if run in whole else record.images["train"]  # which held some of them out
        for run, record in trained.items()
    }
    return [
        f"{run} was trained on {number(count)} of these {tested} images, so its error is too low{others}."
        for run, count in known.items()
    ]


def _about_other_images_then(records: dict[str, Record], splits: Splits) -> list[str]:
    """Tell of a folder without splits that it has changed: which of its images a training held out follows from all."""
    if "all" not in splits.sources or "train" not in splits.sources:
        return []
    train = splits.source("train").fingerprint
    changed = {
        run: record.source
        for run, record in records.items()
        if record.imported is None and train not in training_images([record]) and _may_be(splits.name, record.source)
    }
    return [
        f"{run} was trained on {source}, but not on the training images of {splits.name} as it is now: if it was "
        "trained on some of these images, the error is too low."
        for run, source in changed.items()
    ]


def _may_be(folder: str, recorded: str) -> bool:
    """Return whether a folder may be the one that was recorded, perhaps relative to another folder than this one."""
    place, parts = Path(os.path.realpath(folder)), Path(os.path.normpath(recorded)).parts
    return place == Path(os.path.realpath(recorded)) or (
        not os.path.isabs(recorded) and place.parts[-len(parts) :] == parts
    )


def _about_copies(records: dict[str, Record], splits: Splits, split: str, digests: Sequence[bytes] | None) -> list[str]:
    if split in ("train", "all") or "train" not in splits.sources:
        return []
    train, tested = splits.source("train"), splits.source(split)
    if train.fingerprint not in training_images(records.values()):
        return []
    if len(train) > _MOST_COMPARED:
        return [f"Copies were not looked for among {number(len(train))} training images: verydeep scan does."]
    known = set(contents_digests(train))
    found = [digest in known for digest in digests or contents_digests(tested)]
    copies = [name for name, copy in zip(tested.ids, found, strict=True) if copy]
    if not copies:
        return []
    are = plural("is an exact copy of a training image", len(copies), "are exact copies of training images")
    return [
        f"{counted(len(copies), 'test image')} of {number(len(tested))} {are} "
        f"({first_few(copies, 3)}), so the error is too low: verydeep scan lists them all."
    ]


def _names(source: Source) -> tuple[str, ...]:
    return (*source.classes, *source.ids)


def _began_elsewhere(run: str | Path, record: Record) -> bool:
    """Return whether the first weights, or those of a run before it that is still there, were another library's."""
    seen = set[Path]()
    while record.imported is None:
        before = record.recipe.get("weights") or record.recipe.get("finetune")
        if before is None or Path(run).resolve() in seen:
            return False
        seen.add(Path(run).resolve())
        earlier = _run_before(run, before)
        if earlier is None:
            return before == record.recipe.get("weights")
        run, record = earlier
    return record.imported.get("layout") != "verydeep"


def _run_before(run: str | Path, before: str) -> tuple[Path, Record] | None:
    """Return the run that `run` went on from, by its recorded path: relative to here, or to a folder above `run`."""
    for folder in (Path(), *Path(run).resolve().parents):
        if (record := record_of(folder / before)) is not None:
            return folder / before, record
    return None
