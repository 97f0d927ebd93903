"""The network of a run or of an exported file, whichever a path names, on a device."""

from pathlib import Path

import torch

from verydeep.exported_networks.exported import ExportedNet, is_exported, load_exported
from verydeep.machine.runtime import FULL_PRECISION, Device, torch_device
from verydeep.networks.grids import PoolingGrid
from verydeep.networks.vgg import VGG, LayeredNetwork, ScoringNetwork
from verydeep.runs.model import Model, Net, load_model


def model_on(device: Device, run: str | Path | Model[Net]) -> Model[Net] | Model[LayeredNetwork]:
    """Load the model of a run or an exported file onto a device; move one that is loaded already.

    Raises:
        ValueError: there is no usable model, or it cannot compute there.
    """
    if not isinstance(run, str | Path):
        return model_on_device(device, run)
    return model_on_device(device, load_exported(run, device) if is_exported(run) else load_model(run))


def name_of(run: str | Path | Model[ScoringNetwork]) -> str:
    """Name a run or an exported file for messages: its path, or `the model` where it is loaded already."""
    return str(run) if isinstance(run, str | Path) else "the model"


def model_on_device(device: Device, model: Model[Net]) -> Model[Net]:
    """Move a model's network to a device; an exported one stays on the CPU, which `auto` is for it.

    Raises:
        ValueError: it cannot compute there.
    """
    if isinstance(model.net, VGG):
        model.net.to(torch_device(device), memory_format=torch.channels_last)  # type: ignore[call-overload]
    elif device != "auto":
        model.net.to(torch_device(device))
    return model


def precision_of(model: Model[ScoringNetwork]) -> str:
    """Return how products are computed: fp32, or what an exported file says, bf16 or int8."""
    return model.net.precision if isinstance(model.net, ExportedNet) else FULL_PRECISION


def check_grid(model: Model[ScoringNetwork], grid: PoolingGrid) -> None:
    """Refuse a grid that the network does not have.

    Raises:
        ValueError: an exported file's other than the centred one.
    """
    if isinstance(model.net, ExportedNet):
        model.net.check_grid(grid)
