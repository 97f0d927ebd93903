"""The run folder before the first step: whether it is free, whether it is the same training, and its record."""

from dataclasses import asdict
from pathlib import Path

from verydeep.networks.initialisation import Initialisation
from verydeep.runs.files import QUARANTINE, RECORD
from verydeep.runs.record import Record, command, has_record, is_begun, versions, write_record
from verydeep.training.job import Order
from verydeep.training.recipe import recipe_from

_TOLD = {
    "train": "training images",
    "train_whole": "training images",
    "val": "validation images",
    "init": "weights to start from",
    "finetune": "run to go on from",
    "freeze": "frozen layers",
}
"""Where a setting is not called what people call it."""


def begin_run(order: Order, initialisation: Initialisation) -> None:
    """Begins the run folder with its `run.json`; a quarantine list of a training that never began is removed."""
    record = Record(
        network=order.network,
        recipe=asdict(order.recipe),
        runtime={**asdict(order.runtime), **asdict(order.execution), "processes": order.processes.count},
        source=order.splits.name,
        fingerprints=order.fingerprints,
        images={split: len(order.splits.part(split)) for split in ("train", "val")},
        classes=order.splits.classes,
        initialisation=str(initialisation),
        command=command(),
        versions=versions(),
        regression=order.splits.regression,
    )
    write_record(order.out, record)
    (order.out / QUARANTINE).unlink(missing_ok=True)


def check_folder(out: Path, *, resume: bool) -> None:
    """Refuses to write where something else lies.

    Raises:
        ValueError: it does.
    """
    if out.is_file():
        raise ValueError(f"{out} is a file: choose a folder")
    if not out.is_dir() or not any(out.iterdir()) or (has_record(out) and not is_begun(out)):
        return
    if not resume:
        raise ValueError(f"{out} exists: add --resume to go on with it, or choose another folder")
    if not has_record(out):
        raise ValueError(f"{out} is no run to resume (it has no {RECORD}): choose another folder")


def check_same(before: Record, order: Order) -> None:
    """Refuses to resume a run with another network, recipe or other images.

    Raises:
        ValueError: something is not as it was, or the run was imported.
    """
    if before.imported is not None:
        raise ValueError(f"{order.out} was imported, so there is nothing to resume: go on from it with --finetune")
    old = {
        **asdict(recipe_from(before.recipe)),
        **before.fingerprints,
        "network": before.network,
        "classes": before.classes,
        "regression": before.regression,
    }
    new = {
        **asdict(order.recipe),
        **order.fingerprints,
        "network": order.network,
        "classes": order.splits.classes,
        "regression": order.splits.regression,
    }
    changed = {_TOLD.get(name, name) for name in old.keys() | new.keys() if old.get(name) != new.get(name)}
    if changed:
        boxes = " or their boxes" if order.splits.regression and _TOLD["train"] in changed else ""
        raise ValueError(
            f"{order.out} was made with other settings ({', '.join(sorted(changed))}{boxes}): resume it with its own "
            f"({before.command}), or choose another folder"
        )
