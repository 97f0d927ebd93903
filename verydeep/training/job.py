"""A training as it was asked for; whether its run folder is free or holds the same training, and its record."""

import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import torch

from verydeep.images.class_sizes import images_per_class
from verydeep.images.sources.splits import Splits
from verydeep.images.tolerance import Tolerance
from verydeep.machine.processes import Processes
from verydeep.machine.runtime import Execution, Runtime
from verydeep.machine.torchrun import processes_here
from verydeep.networks.architecture import Architecture
from verydeep.runs.files import CHECKPOINTS, METRICS, NORMS, QUARANTINE, RECORD
from verydeep.runs.import_weights import weights_files
from verydeep.runs.model import file_sha256, files_sha256, weights_fingerprint
from verydeep.runs.record import (
    Record,
    command,
    has_record,
    is_begun,
    is_finished,
    read_record,
    versions,
    words_of_command,
    write_record,
)
from verydeep.training.recipe import Recipe, recipe_from
from verydeep.training.start import IMPORTED

_NAMES_FOR_PEOPLE = {
    "train": "training images",
    "train_whole": "training images",
    "val": "validation images",
    "init": "weights to start from",
    "finetune": "run to go on from",
    "weights": "weights to go on from",
    "from": "weights to go on from",
    "freeze": "frozen layers",
    "trainable": "frozen layers",
}
"""Settings that messages call by other words than their names."""

_START_FIELDS = {"init": "init", "finetune": "finetune", "from": "weights"}
"""Options that name first weights, as the fingerprints of these are called, and their fields of `Recipe`."""


def architecture_of(network: str, recipe: Recipe, splits: Splits) -> Architecture:
    """Return the architecture that a recipe trains on these images.

    Args:
        network: its name in the paper.
        recipe: crop, width and batch normalisation are its.
        splits: they say how many classes there are, and whether boxes are learned.
    """
    return Architecture.of_recipe(asdict(recipe), network=network, classes=len(splits.classes), boxes=splits.regression)


@dataclass(frozen=True, kw_only=True)
class TrainingJob:
    """A training to be done, by this process alone or together with others."""

    splits: Splits
    network: str
    """Its name in the paper."""
    recipe: Recipe
    runtime: Runtime
    execution: Execution
    tolerance: Tolerance
    out: Path
    """The run folder."""
    device: torch.device
    processes: Processes
    resume: bool = False
    """Whether it was asked to go on where a run was stopped, so that the same command does so again."""

    @cached_property
    def architecture(self) -> Architecture:
        """The network to train; it follows from the other fields, so that they cannot disagree."""
        return architecture_of(self.network, self.recipe, self.splits)

    @cached_property
    def fingerprints(self) -> dict[str, str]:
        """Fingerprints of the images and of the weights to start from, which are read for that."""
        images = {split: self.splits.source(split).fingerprint for split in ("train", "val")}
        if self.splits.whole_train is not None:
            images["train_whole"] = self.splits.whole_train
        return images if self.recipe.start is None else {**images, **self._start_fingerprint(self.recipe.start)}

    def _start_fingerprint(self, start: str) -> dict[str, str]:
        """Return the fingerprint of first weights; if they are gone from where the run began, that of its record."""
        option = _start_option(self.recipe)
        try:
            found = self._file_fingerprint(start) if option == "from" else weights_fingerprint(start)
        except (OSError, ValueError):
            before = self.begun_record()
            if before is None or before.recipe.get(_START_FIELDS[option]) != start or option not in before.fingerprints:
                raise
            found = before.fingerprints[option]
        return {option: found}

    def _file_fingerprint(self, weights: str) -> str:
        """Return the fingerprint of weights with all files beside them that their arrays come from.

        Where the run has that of the first file alone, as earlier versions took it, it is taken again.
        """
        files = weights_files(weights)
        before = self.begun_record() if len(files) > 1 else None
        if before is not None and before.fingerprints.get("from") == (first := file_sha256(files[0])):
            return first
        return files_sha256(files)

    @cached_property
    def images_per_class(self) -> dict[str, int]:
        """Training images of each class, unusable ones included; they are counted once."""
        return images_per_class(self.splits.source("train"))

    def begun_record(self) -> Record | None:
        """Return the record of the run that this job goes on with, if it was begun here before."""
        return read_record(self.out) if has_record(self.out) and is_begun(self.out) else None

    def image_memory(self, split: str) -> float:
        """Return the GiB that this process and its workers may keep of a split's images: by the number of images.

        With workers all is for training images, since those that validate live as long as one validation.
        """
        images = {name: len(self.splits.source(name)) for name in ("train", "val")}
        share = float(split == "train") if self.runtime.workers else images[split] / sum(images.values())
        return self.execution.image_memory / processes_here() * share


def begin_run(job: TrainingJob, initialisation: str) -> None:
    """Begin the run folder with its `run.json`; remove notes of a training that ended before its first checkpoint."""
    record = Record(
        network=job.network,
        recipe=asdict(job.recipe),
        runtime={
            **asdict(job.runtime),
            **asdict(job.execution),
            **asdict(job.tolerance),
            "processes": job.processes.count,
        },
        source=job.splits.name,
        fingerprints=job.fingerprints,
        images={split: len(job.splits.source(split)) for split in ("train", "val")},
        classes=job.splits.classes,
        initialisation=initialisation,
        command=command(),
        versions=versions(),
        regression=job.splits.regression,
        held_out=job.splits.held_out,
    )
    write_record(job.out, record)
    for name in (QUARANTINE, METRICS, NORMS):
        (job.out / name).unlink(missing_ok=True)


def check_folder(out: Path, *, resume: bool) -> None:
    """Check that a folder is free for a run, or holds the one to resume.

    Raises:
        ValueError: it contains something other than such a training.
    """
    if out.is_file():
        raise ValueError(f"{out} is a file: choose a folder")
    if not out.is_dir() or not any(out.iterdir()) or (has_record(out) and not is_begun(out)):
        return
    if not resume:
        if not has_record(out):
            raise ValueError(f"{out} exists and is not a run: choose another folder")
        if is_finished(out):
            raise ValueError(f"{out} is a finished run: choose another folder, or go on from it with --finetune {out}")
        raise ValueError(f"{out} is a run that was stopped: add --resume to go on with it, or choose another folder")
    if not has_record(out):
        raise ValueError(f"{out} is not a run that can be resumed (it has no {RECORD}): choose another folder")


def is_done(job: TrainingJob) -> bool:
    """Return whether the training has ended before.

    Raises:
        ValueError: it was begun with another network, recipe or other images, or the run was imported.
    """
    if not (has_record(job.out) and is_begun(job.out)):
        return False
    before = read_record(job.out)
    if before.imported is not None:
        raise ValueError(f"{job.out} {IMPORTED}")
    changed = {_NAMES_FOR_PEOPLE.get(name, name) for name in _changes(before, job)}
    if changed:
        boxes = " or their boxes" if job.splits.regression and _NAMES_FOR_PEOPLE["train"] in changed else ""
        raise ValueError(
            f"{job.out} was made with other settings ({', '.join(sorted(changed))}{boxes}): resume it with its own "
            f"({_resuming(before.command)}), or choose another folder"
        )
    return is_finished(job.out)


def remove_left_checkpoints(job: TrainingJob) -> None:
    """Remove the checkpoints of a training that was killed between its end and their removal."""
    if not job.execution.keep_checkpoints and read_record(job.out).runtime.get("keep_checkpoints") is False:
        shutil.rmtree(job.out / CHECKPOINTS, ignore_errors=True)


def note_kept_checkpoints(out: Path) -> None:
    """Note in the record that the checkpoints were to be kept, if that was asked for when the run was resumed."""
    record = read_record(out)
    if record.runtime.get("keep_checkpoints") is False:
        write_record(out, replace(record, runtime={**record.runtime, "keep_checkpoints": True}))


def _changes(before: Record, job: TrainingJob) -> set[str]:
    """Return the names of all settings that differ from those that a run was begun with."""
    pairs: list[tuple[Mapping[str, Any], Mapping[str, Any]]] = [
        (
            {"network": before.network, "classes": before.classes, "regression": before.regression},
            {"network": job.network, "classes": job.splits.classes, "regression": job.splits.regression},
        ),
        (_settings(recipe_from(before.recipe)), _settings(job.recipe)),
        (before.fingerprints, job.fingerprints),
    ]
    return {name for old, new in pairs for name in old.keys() | new.keys() if old.get(name) != new.get(name)}


def _settings(recipe: Recipe) -> dict[str, Any]:
    """Return a recipe's fields; of first weights only which option names them: their fingerprint says which they are.

    People move files, and the same weights give the same training wherever they lie.
    """
    fields = asdict(recipe)
    return fields if recipe.start is None else {**fields, _START_FIELDS[_start_option(recipe)]: "by fingerprint"}


def _start_option(recipe: Recipe) -> str:
    """Return the option that names the first weights of a recipe that has any."""
    return "from" if recipe.weights else "finetune" if recipe.finetune else "init"


def _resuming(command: str) -> str:
    """Return the command line that resumes a training; that of an experiment needs no option for it."""
    words = words_of_command(command)
    return f"{command} --resume" if "train" in words and "--resume" not in words else command
