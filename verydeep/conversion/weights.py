"""Weights of a run written in another library's layout."""

import io
import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, get_args

import torch
from rich.table import Table
from rich.text import Text
from safetensors.torch import load, save

from verydeep.machine import atomic
from verydeep.networks.architecture import COMMON_NAMES, PAPER_CROP
from verydeep.networks.class_names import WORDS, names_of_classes, numbered_classes
from verydeep.networks.foreign.layouts import ForeignLayout, Triple
from verydeep.networks.foreign.preprocessing import PREPROCESSING, fold, unfold
from verydeep.networks.foreign.torchvision import from_torchvision, to_torchvision
from verydeep.numbers import significant, trimmed
from verydeep.presentation.terminal import table_with
from verydeep.runs.model import Model, load_model, warnings_of

_ULP, _LEAST = torch.finfo(torch.float32).eps, torch.finfo(torch.float32).tiny
"""Relative size of one unit in the last place, and the smallest normal number."""

_SUFFIXES = (".safetensors", ".pth", ".pt")


@dataclass(frozen=True, kw_only=True)
class WrittenWeights:
    """A file of weights for another library, and how that library must prepare images."""

    file: str
    layout: str
    network: str
    """Name of the network in the library: vgg16, vgg16_bn."""
    mean: Triple
    """Mean to subtract from RGB in 0..1."""
    std: Triple
    """Standard deviation to divide by."""
    classes: tuple[str, ...]
    notes: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """Return a plain dictionary, ready for JSON."""
        return asdict(self)


def check_suffix(file: Path) -> None:
    """Check that weights are written in files of such names.

    Raises:
        ValueError: they are not; the message names the suffixes.
    """
    if file.suffix not in _SUFFIXES:
        raise ValueError(f"{file}: weights are written as {', '.join(_SUFFIXES)}")


def write_weights(run: str | Path, path: str | Path, layout: ForeignLayout) -> WrittenWeights:
    """Write a run's weights as a state dict of torchvision's or timm's VGG, `.safetensors`, `.pth` or `.pt`.

    Images must go in as (x / 255 - mean) / std with the mean and std of the result, which a `.safetensors` file also
    has as metadata, beside the names of the classes. The std is the library's own: conv1_1 is multiplied by it. The
    mean is the run's, often not the library's, because convolutions that pad with zeros cannot be given another one.
    Weights imported from the library go back within one unit in the last place of conv1_1's weights, and to the bit in
    all other layers. The file appears only if it can be read back as the run's weights.

    Raises:
        ValueError: unusable run, unknown layout or suffix, a network that the library does not have, or weights that
            do not come back.
        OSError: the file cannot be written.
    """
    file = Path(path)
    if layout not in get_args(ForeignLayout):
        raise ValueError(f"weights are written for {' or '.join(get_args(ForeignLayout))}, not for {layout!r}")
    check_suffix(file)
    model = load_model(run)
    net = model.net
    architecture = net.architecture
    name = COMMON_NAMES.get(architecture.network)
    if name is None:
        raise ValueError(
            f"{layout} has no {architecture.network}, only {', '.join(COMMON_NAMES)}: nothing there could load it"
        )
    weights, preprocessing = unfold(net.state_dict(), layout)
    arrays = {entry: value.contiguous() for entry, value in to_torchvision(weights, layout).items()}
    told = WrittenWeights(
        file=str(file),
        layout=layout,
        network=f"{name}_bn" if architecture.batch_norm else name,
        mean=preprocessing.mean,
        std=preprocessing.std,
        classes=model.classes,
        notes=(*_notes(model, layout, preprocessing.mean), *_missing_names(model, file), *warnings_of(str(run), model)),
    )
    content = _file(arrays, told)
    back = fold(from_torchvision(_arrays(content, file), layout), preprocessing)
    for entry, value in net.state_dict().items():
        if not torch.allclose(back[entry], value, rtol=_ULP, atol=_LEAST, equal_nan=True):
            raise ValueError(f"{file} is not written: {entry} does not come back as it is in {run}")
    atomic.write_bytes(file, content)
    return told


def _file(arrays: dict[str, torch.Tensor], told: WrittenWeights) -> bytes:
    if Path(told.file).suffix != ".safetensors":
        buffer = io.BytesIO()
        torch.save(arrays, buffer)
        return buffer.getvalue()
    mean, std = (",".join(map(str, values)) for values in (told.mean, told.std))
    classes = json.dumps(told.classes)
    return save(arrays, {"format": "pt", "architecture": told.network, "mean": mean, "std": std, "classes": classes})


def _arrays(content: bytes, file: Path) -> dict[str, torch.Tensor]:
    """Read the arrays of a file's bytes."""
    return load(content) if file.suffix == ".safetensors" else torch.load(io.BytesIO(content), weights_only=True)


def _missing_names(model: Model, file: Path) -> tuple[str, ...]:
    """Note that the file has no class names, unless they can be guessed."""
    assumed = (names_of_classes(len(model.classes), WORDS), numbered_classes(len(model.classes)))
    if file.suffix == ".safetensors" or model.classes in assumed:
        return ()
    return (f"a {file.suffix} does not hold the names of the classes, as a .safetensors does",)


def _notes(model: Model, layout: ForeignLayout, mean: Triple) -> tuple[str, ...]:
    notes = []
    if mean != PREPROCESSING[layout].mean:
        notes.append(f"its mean is not {layout}'s default: give it {list(mean)}")
    width, crop = model.net.architecture.width, model.net.architecture.crop
    if width != 1 or crop != PAPER_CROP:
        notes.append(
            f"{layout}'s own networks have width 1 and crop {PAPER_CROP}; this one has width {trimmed(width)} and "
            f"crop {crop}, so build one of these sizes to load it"
        )
    return tuple(notes)


def weights_table(weights: WrittenWeights) -> Table:
    """Return a table of weights for another library, and how that library must prepare images."""
    table = table_with(f"{weights.file}: {weights.layout}'s {weights.network}", left=("images",), right=("R", "G", "B"))
    table.add_row("mean, of RGB in 0..1", *(significant(value, 4) for value in weights.mean))
    table.add_row("then divided by", *(significant(value, 4) for value in weights.std))
    table.caption = Text("\n".join(weights.notes))
    return table
