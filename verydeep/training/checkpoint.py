"""Checkpoints: whole or absent, with checksums that show damage, and without pickle.

A checkpoint is a folder: `weights.safetensors` (the state dict), `momentum.safetensors` (by parameter name),
`state.json` (step and schedule) and `manifest.json` (SHA-256 of the other three, because safetensors has no
checksum of its own).
"""

import json
import math
import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from verydeep.machine import atomic
from verydeep.machine.documents import read_json
from verydeep.numbers import counted
from verydeep.runs.model import file_sha256
from verydeep.training.recipe import Plateau

_KEPT = 2
"""Checkpoints that stay beside the best one; the older one serves if the newer is damaged."""

MOST = _KEPT + 2
"""Checkpoints that lie on the disk at once: the best one, and one that is being written."""

_WEIGHTS, _MOMENTUM, _STATE, _MANIFEST = "weights.safetensors", "momentum.safetensors", "state.json", "manifest.json"


@dataclass(frozen=True, kw_only=True)
class Progress:
    """The progress of a training. All random numbers follow from the seed and `step`: no generator has to be kept."""

    step: int = 0
    """Steps done, over all epochs."""
    loss_sum: float = 0.0
    """Loss summed over this epoch's images so far."""
    wrong: int = 0
    """Training images of this epoch so far that the network got wrong."""
    seen: int = 0
    """Training images of this epoch so far, without those that cannot be used."""
    seconds: float = 0.0
    """Seconds that the steps of this epoch have taken so far."""
    waited: float = 0.0
    """Seconds among them without data to work on."""
    plateau: Plateau = Plateau()
    best_step: int | None = None
    """The step after which the validation error was lowest."""

    def __post_init__(self) -> None:
        """Refuse figures that no training can have."""
        if min(self.step, self.wrong, self.seen, self.best_step or 0) < 0:
            raise ValueError("steps and images are counted from 0")
        if not all(map(math.isfinite, (self.loss_sum, self.seconds, self.waited, self.plateau.best or 0.0))):
            raise ValueError("it has figures that are not finite")


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """Everything needed to go on."""

    weights: Mapping[str, Tensor]
    """The network's state dict."""
    momentum: Mapping[str, Tensor]
    """Momentum by parameter name; none before the first step."""
    progress: Progress


def save(checkpoints: Path, checkpoint: Checkpoint) -> Path:
    """Write `checkpoints/step-NNNNNNNN`; remove older checkpoints, but for the last two and the best.

    Raises:
        OSError: the disk is full, say; earlier checkpoints stay as they are.
    """
    checkpoints.mkdir(parents=True, exist_ok=True)
    _put_back(checkpoints)
    for torn in checkpoints.glob(".step-*"):
        shutil.rmtree(torn)  # a killed process was writing it
    target = folder_of(checkpoints, checkpoint.progress.step)
    try:
        with atomic.new_folder(target) as folder:
            save_file({name: value.contiguous() for name, value in checkpoint.weights.items()}, folder / _WEIGHTS)
            save_file({name: value.contiguous() for name, value in checkpoint.momentum.items()}, folder / _MOMENTUM)
            (folder / _STATE).write_text(json.dumps(asdict(checkpoint.progress), indent=2))
            hashes = {name: file_sha256(folder / name) for name in (_WEIGHTS, _MOMENTUM, _STATE)}
            (folder / _MANIFEST).write_text(json.dumps(hashes, indent=2))
    except (OSError, SafetensorError) as error:
        size = sum(tensor.nbytes for tensor in [*checkpoint.weights.values(), *checkpoint.momentum.values()])
        raise OSError(
            f"cannot write the checkpoint {target} ({counted(size, 'byte')}): {error}; earlier ones stay as they are"
        ) from error
    _remove_old(checkpoints, target)
    return target


def _remove_old(checkpoints: Path, newest: Path) -> None:
    """Remove all but the last `_KEPT` and the best; those after the newest were passed over as damaged."""
    folders = _newest_first(checkpoints)
    kept = [folder for folder in folders if folder <= newest][:_KEPT]
    best = [folder_of(checkpoints, step) for step in map(_best_step, kept) if step is not None]
    for folder in folders:
        if folder > newest or folder not in [*kept, *best]:
            shutil.rmtree(folder)


def _best_step(folder: Path) -> int | None:
    """Return the best step that a checkpoint names; None if its state is damaged: the older one's counts then."""
    try:
        return _progress(folder).best_step
    except ValueError:
        return None


def load_latest(checkpoints: Path) -> tuple[Checkpoint | None, list[str]]:
    """Return the newest whole checkpoint, on the CPU (None if there is none), and a line for each damaged one.

    Raises:
        ValueError: there are checkpoints, and all of them are damaged.
    """
    damaged: list[str] = []
    for folder in _newest_first(checkpoints):
        reason = _damage(folder)
        if reason is None:
            return _read(folder), damaged
        damaged.append(f"passed over {folder}: {reason}")
    if damaged:
        raise ValueError(f"no usable checkpoint in {checkpoints}; {'; '.join(damaged)}")
    return None, []


def load_step(checkpoints: Path, step: int) -> Checkpoint | None:
    """Return the checkpoint of one step; None if it is gone or damaged."""
    _put_back(checkpoints)
    folder = folder_of(checkpoints, step)
    return None if _damage(folder) else _read(folder)


def newest(checkpoints: Path) -> Path | None:
    """Return the folder of the newest checkpoint; None if there is none."""
    return next(iter(_newest_first(checkpoints)), None)


def folder_of(checkpoints: Path, step: int) -> Path:
    """Return the folder of the checkpoint of a step, whether it exists or not."""
    return checkpoints / f"step-{step:08d}"


def _read(folder: Path) -> Checkpoint:
    return Checkpoint(
        weights=load_file(folder / _WEIGHTS), momentum=load_file(folder / _MOMENTUM), progress=_progress(folder)
    )


def _progress(folder: Path) -> Progress:
    return read_json(folder / _STATE, Progress, exact=True)


def _put_back(checkpoints: Path) -> None:
    for old in checkpoints.glob(".step-*.old"):
        atomic.put_back(checkpoints / old.name.split(".")[1])


def _newest_first(checkpoints: Path) -> list[Path]:
    _put_back(checkpoints)
    return sorted(checkpoints.glob("step-*"), reverse=True)


def _damage(folder: Path) -> str | None:
    """Return the damage of a checkpoint in words; None if it is whole."""
    try:
        hashes = read_json(folder / _MANIFEST, dict[str, str])
        wrong = [name for name in (_WEIGHTS, _MOMENTUM, _STATE) if file_sha256(folder / name) != hashes.get(name)]
    except (OSError, ValueError) as error:
        return f"{error}"
    return f"{', '.join(wrong)} changed since it was written" if wrong else None
