"""Checkpoints that are whole or not there, tell when they are damaged, and hold no pickle.

A checkpoint is a folder: `weights.safetensors` (the state dict), `momentum.safetensors` (by parameter name),
`state.json` (step and schedule) and `manifest.json` (SHA-256 of the other three, because safetensors has no
checksum of its own).
"""

import json
import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from verydeep.machine import atomic
from verydeep.runs.model import file_sha256
from verydeep.training.schedule import Plateau

KEPT = 2
"""Checkpoints that stay beside the best one; the older of them is there if the newer is damaged."""

WEIGHTS, MOMENTUM, STATE, MANIFEST = "weights.safetensors", "momentum.safetensors", "state.json", "manifest.json"


@dataclass(frozen=True, kw_only=True)
class Position:
    """Where a training stands. All random draws follow from the seed and `step`, so there are no generators to keep."""

    step: int = 0
    """Steps done, over all epochs."""
    loss_sum: float = 0.0
    """Summed over this epoch's images so far."""
    wrong: int = 0
    """Training images of this epoch so far that the network had wrong."""
    seen: int = 0
    """Training images of this epoch so far; those that cannot be used are not among them."""
    seconds: float = 0.0
    """That this epoch has taken so far."""
    waited: float = 0.0
    """Of those, seconds without data to work on."""
    plateau: Plateau = Plateau()
    best_step: int | None = None
    """After which the validation error was lowest."""


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """What is needed to go on."""

    weights: Mapping[str, Tensor]
    """The network's state dict."""
    momentum: Mapping[str, Tensor]
    """By parameter name; none before the first step."""
    position: Position


def save(folder: Path, checkpoint: Checkpoint) -> Path:
    """Writes `folder/step-NNNNNNNN` and removes older ones but the last `KEPT` and the best.

    Raises:
        OSError: the disk is full, say; earlier checkpoints stay as they are.
    """
    folder.mkdir(parents=True, exist_ok=True)
    _put_back(folder)
    for torn in folder.glob(".step-*"):
        shutil.rmtree(torn)  # a killed process was writing it
    target = place_of(folder, checkpoint.position.step)
    try:
        with atomic.new_folder(target) as aside:
            save_file({name: value.contiguous() for name, value in checkpoint.weights.items()}, aside / WEIGHTS)
            save_file({name: value.contiguous() for name, value in checkpoint.momentum.items()}, aside / MOMENTUM)
            (aside / STATE).write_text(json.dumps(asdict(checkpoint.position), indent=2))
            hashes = {name: file_sha256(aside / name) for name in (WEIGHTS, MOMENTUM, STATE)}
            (aside / MANIFEST).write_text(json.dumps(hashes, indent=2))
    except (OSError, SafetensorError) as error:
        tensors = [*checkpoint.weights.values(), *checkpoint.momentum.values()]
        raise OSError(
            f"cannot write the checkpoint {target} ({sum(tensor.nbytes for tensor in tensors):,} bytes): {error}; "
            "earlier ones stay as they are"
        ) from error
    places = _newest_first(folder)
    abandoned = [place for place in places if place > target]  # were passed over, because they are damaged
    kept = [place for place in places if place <= target][:KEPT]
    best = [place_of(folder, step) for step in map(_best_step, kept) if step is not None]
    for old in places:
        if old in abandoned or old not in [*kept, *best]:
            shutil.rmtree(old)
    return target


def _best_step(place: Path) -> int | None:
    """That a checkpoint knows of; its own may be damaged, and then the older one's counts."""
    try:
        found: int | None = json.loads((place / STATE).read_text())["best_step"]
    except (OSError, ValueError, LookupError, TypeError):
        return None
    return found


def load_latest(folder: Path) -> tuple[Checkpoint | None, list[str]]:
    """The newest whole checkpoint, on the CPU (None if there is none), and a sentence for each that was passed over.

    Raises:
        ValueError: there are checkpoints, and all of them are damaged.
    """
    damaged: list[str] = []
    for place in _newest_first(folder):
        reason = _damage(place)
        if reason is None:
            return _read(place), damaged
        damaged.append(f"passed over {place}: {reason}")
    if damaged:
        raise ValueError(f"no usable checkpoint in {folder}; {'; '.join(damaged)}")
    return None, []


def load_step(folder: Path, step: int) -> Checkpoint | None:
    """The checkpoint of one step; None if it is gone or damaged."""
    _put_back(folder)
    place = place_of(folder, step)
    return None if _damage(place) else _read(place)


def newest(folder: Path) -> Path | None:
    """Where the newest checkpoint is."""
    return next(iter(_newest_first(folder)), None)


def _read(place: Path) -> Checkpoint:
    state = json.loads((place / STATE).read_text())
    unknown = sorted(set(state) - {field.name for field in fields(Position)})
    if unknown:
        raise ValueError(f"{place} has {', '.join(unknown)}, which this version of verydeep does not know: update it")
    return Checkpoint(
        weights=load_file(place / WEIGHTS),
        momentum=load_file(place / MOMENTUM),
        position=Position(**{**state, "plateau": Plateau(**state["plateau"])}),
    )


def place_of(folder: Path, step: int) -> Path:
    """Where the checkpoint of a step is, or would be."""
    return folder / f"step-{step:08d}"


def _put_back(folder: Path) -> None:
    for old in folder.glob(".step-*.old"):
        atomic.put_back(folder / old.name.split(".")[1])


def _newest_first(folder: Path) -> list[Path]:
    _put_back(folder)
    return sorted(folder.glob("step-*"), reverse=True)


def _damage(place: Path) -> str | None:
    try:
        hashes = json.loads((place / MANIFEST).read_text())
        wrong = [name for name in (WEIGHTS, MOMENTUM, STATE) if file_sha256(place / name) != hashes[name]]
    except (OSError, ValueError, KeyError, TypeError) as error:
        return f"{error}"
    return f"{', '.join(wrong)} changed since it was written" if wrong else None
