"""Checkpoints that are whole or not there, tell when they are damaged, and hold no pickle.

A checkpoint is a folder: `weights.safetensors` (the state dict), `momentum.safetensors` (by parameter name),
`state.json` (step and schedule) and `manifest.json` (SHA-256 of the other three, because safetensors has no
checksum of its own).
"""

import json
import shutil
from dataclasses import asdict, dataclass
from pathlib import Path

from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.optim import Optimizer

from verydeep import atomic
from verydeep.runs import file_sha256
from verydeep.training.schedule import Plateau

KEPT = 2
"""Checkpoints that stay; the older of them is there if the newer is damaged."""

WEIGHTS, MOMENTUM, STATE, MANIFEST = "weights.safetensors", "momentum.safetensors", "state.json", "manifest.json"


@dataclass(frozen=True, kw_only=True)
class Position:
    """Where a training stands. All random draws follow from the seed and `step`, so there are no generators to keep."""

    step: int = 0
    """Steps done, over all epochs."""
    loss_sum: float = 0.0
    """Summed over this epoch's images so far."""
    wrong: int = 0
    """Training images of this epoch so far that were misclassified."""
    seen: int = 0
    """Training images of this epoch so far; those that cannot be used are not among them."""
    seconds: float = 0.0
    """That this epoch has taken so far."""
    plateau: Plateau = Plateau()


def save(folder: Path, net: nn.Module, optimiser: Optimizer, position: Position) -> Path:
    """Writes `folder/step-NNNNNNNN` and removes older ones but the last `KEPT`.

    Raises:
        OSError: the disk is full, say; earlier checkpoints stay as they are.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for torn in folder.glob(".step-*"):
        shutil.rmtree(torn)  # a killed process was writing it
    target = folder / f"step-{position.step:08d}"
    with atomic.new_folder(target) as aside:
        save_file({name: value.contiguous() for name, value in net.state_dict().items()}, aside / WEIGHTS)
        save_file(_momentum(net, optimiser), aside / MOMENTUM)
        (aside / STATE).write_text(json.dumps(asdict(position), indent=2))
        hashes = {name: file_sha256(aside / name) for name in (WEIGHTS, MOMENTUM, STATE)}
        (aside / MANIFEST).write_text(json.dumps(hashes, indent=2))
    for old in _newest_first(folder)[KEPT:]:
        shutil.rmtree(old)
    return target


def load_latest(folder: Path, net: nn.Module, optimiser: Optimizer) -> tuple[Position, list[str]]:
    """Restores the newest whole checkpoint into `net` and `optimiser`.

    Returns where the training stands (at its beginning when there is no checkpoint), and a sentence for each
    damaged checkpoint that was passed over.

    Raises:
        ValueError: there are checkpoints, and all of them are damaged.
    """
    damaged: list[str] = []
    for checkpoint in _newest_first(folder):
        reason = _damage(checkpoint)
        if reason is None:
            return _restore(checkpoint, net, optimiser), damaged
        damaged.append(f"passed over {checkpoint}: {reason}")
    if damaged:
        raise ValueError(f"no usable checkpoint in {folder}; {'; '.join(damaged)}")
    return Position(), []


def _restore(checkpoint: Path, net: nn.Module, optimiser: Optimizer) -> Position:
    net.load_state_dict(load_file(checkpoint / WEIGHTS))
    momentum = load_file(checkpoint / MOMENTUM)
    for name, parameter in net.named_parameters():
        if name in momentum:
            optimiser.state[parameter]["momentum_buffer"] = momentum[name].to(parameter.device)
    state = json.loads((checkpoint / STATE).read_text())
    return Position(**{**state, "plateau": Plateau(**state["plateau"])})


def _momentum(net: nn.Module, optimiser: Optimizer) -> dict[str, Tensor]:
    buffers = {name: optimiser.state[parameter].get("momentum_buffer") for name, parameter in net.named_parameters()}
    return {name: buffer.contiguous() for name, buffer in buffers.items() if buffer is not None}


def _newest_first(folder: Path) -> list[Path]:
    return sorted(folder.glob("step-*"), reverse=True)


def _damage(checkpoint: Path) -> str | None:
    try:
        hashes = json.loads((checkpoint / MANIFEST).read_text())
        wrong = [name for name in (WEIGHTS, MOMENTUM, STATE) if file_sha256(checkpoint / name) != hashes[name]]
    except (OSError, ValueError, KeyError, TypeError) as error:
        return f"{error}"
    return f"{', '.join(wrong)} changed since it was written" if wrong else None
