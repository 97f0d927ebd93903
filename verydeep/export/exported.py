"""Exported files, written from models and read back as networks that can be tested and predict.

Nothing in such a file is run except by the runtime that is made for it: ONNX Runtime and OpenVINO know a fixed set of
operators, and the program in a `.pt2` is not loaded at all (`torch.py`).
"""

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from verydeep.export.formats import FORMATS, Format, format_module
from verydeep.export.metadata import metadata_of
from verydeep.machine.errors import one_line
from verydeep.machine.runtime import Device, torch_device
from verydeep.networks.scoring import ScoringNetwork
from verydeep.runs.model import Model


def write_exported(model: Model, file: Path, *, to: Format, calibration: Sequence[Tensor] | None = None) -> None:
    """Write a file unchecked, in INT8 if there are images uint8 [3, H, W] to calibrate on."""
    metadata = metadata_of(model, int8=calibration is not None)
    format_module(to).write(model, metadata, calibration or (), file)


def is_exported(path: str | Path) -> bool:
    """Return whether this is a file, as exported networks are, and no run folder."""
    return Path(path).is_file()


def load_exported(path: str | Path, device: Device = "cpu") -> Model[ScoringNetwork]:
    """Read the network of a file that `verydeep export` wrote, with what its outputs mean.

    The network of a `.pt2` is a `VGG`, on any device. That of an `.onnx` or `.xml` is an `ExportedNet`, computed on
    the CPU with as many threads as PyTorch has; `auto` means the CPU too.

    Raises:
        ValueError: another kind of file, a damaged one, one that `verydeep export` did not write, a missing library,
            or an impossible device.
    """
    path = Path(path)
    formats = {known.suffix: name for name, known in FORMATS.items()}
    if path.suffix not in formats:
        raise ValueError(f"{path} is neither a run folder nor an exported network ({', '.join(formats)})")
    to = formats[path.suffix]
    try:
        net, metadata = format_module(to).read(path)
        net = net.to(torch.device("cpu") if device == "auto" and to != "torch" else torch_device(device))
    except (ValueError, OSError) as error:
        raise ValueError(f"{path} cannot be used: {one_line(error)}") from error
    return Model(
        net=net,
        classes=metadata.classes,
        scale=metadata.scale,
        flip=metadata.flip,
        weights_sha256=metadata.weights_sha256,
    )
