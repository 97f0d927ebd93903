"""The run folder before the first step: whether it is free, whether it is the same training, and its record."""

from dataclasses import asdict
from pathlib import Path
from typing import Any

from verydeep.networks.initialisation import Initialisation
from verydeep.runs.files import QUARANTINE, RECORD
from verydeep.runs.record import (
    Record,
    command,
    has_record,
    is_begun,
    is_finished,
    read_record,
    versions,
    write_record,
)
from verydeep.training.job import TrainingJob
from verydeep.training.recipe import recipe_from

_NAMES_FOR_PEOPLE = {
    "train": "training images",
    "train_whole": "training images",
    "val": "validation images",
    "init": "weights to start from",
    "finetune": "run to go on from",
    "freeze": "frozen layers",
}
"""Settings whose own names are not what people call them."""


def begin_run(job: TrainingJob, initialisation: Initialisation) -> None:
    """Begin the run folder with its `run.json`; remove the quarantine list of a training that never began."""
    record = Record(
        network=job.network,
        recipe=asdict(job.recipe),
        runtime={**asdict(job.runtime), **asdict(job.execution), "processes": job.processes.count},
        source=job.splits.name,
        fingerprints=job.fingerprints,
        images={split: len(job.splits.source(split)) for split in ("train", "val")},
        classes=job.splits.classes,
        initialisation=str(initialisation),
        command=command(),
        versions=versions(),
        regression=job.splits.regression,
    )
    write_record(job.out, record)
    (job.out / QUARANTINE).unlink(missing_ok=True)


def check_folder(out: Path, *, resume: bool) -> None:
    """Refuse to write where something else lies.

    Raises:
        ValueError: something does.
    """
    if out.is_file():
        raise ValueError(f"{out} is a file: choose a folder")
    if not out.is_dir() or not any(out.iterdir()) or (has_record(out) and not is_begun(out)):
        return
    if not resume:
        raise ValueError(f"{out} exists: add --resume to go on with it, or choose another folder")
    if not has_record(out):
        raise ValueError(f"{out} is no run to resume (it has no {RECORD}): choose another folder")


def is_done(job: TrainingJob) -> bool:
    """Return whether the training has ended before.

    Raises:
        ValueError: it was begun with another network, recipe or other images, or the run was imported.
    """
    if not (has_record(job.out) and is_begun(job.out)):
        return False
    _check_same(read_record(job.out), job)
    return is_finished(job.out)


def _check_same(before: Record, job: TrainingJob) -> None:
    if before.imported is not None:
        raise ValueError(f"{job.out} was imported, so there is nothing to resume: go on from it with --finetune")
    old: dict[str, Any] = {
        **asdict(recipe_from(before.recipe)),
        **before.fingerprints,
        "network": before.network,
        "classes": before.classes,
        "regression": before.regression,
    }
    new = {
        **asdict(job.recipe),
        **job.fingerprints,
        "network": job.network,
        "classes": job.splits.classes,
        "regression": job.splits.regression,
    }
    changed = {_NAMES_FOR_PEOPLE.get(name, name) for name in old.keys() | new.keys() if old.get(name) != new.get(name)}
    if changed:
        boxes = " or their boxes" if job.splits.regression and _NAMES_FOR_PEOPLE["train"] in changed else ""
        raise ValueError(
            f"{job.out} was made with other settings ({', '.join(sorted(changed))}{boxes}): resume it with its own "
            f"({before.command}), or choose another folder"
        )
