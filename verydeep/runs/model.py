"""The model folder: a network's `config.json` and `model.safetensors`, written and read."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic

from typing_extensions import TypeVar

from verydeep.box_regression import Regression
from verydeep.machine import atomic
from verydeep.machine.documents import read_json
from verydeep.machine.errors import one_line, reason
from verydeep.machine.regular_files import open_file
from verydeep.networks.architecture import Architecture
from verydeep.networks.scales import scale_range
from verydeep.numbers import counted, number, plural
from verydeep.runs import model_hub
from verydeep.runs.files import CONFIG, MODEL, WEIGHTS, refuse_classifier
from verydeep.runs.record import has_record

if TYPE_CHECKING:
    from verydeep.networks.vgg import VGG, ScoringNetwork

Net = TypeVar("Net", bound="ScoringNetwork", default="VGG", covariant=True)
"""The kind of network: a `VGG`, or in a `Model[ScoringNetwork]` perhaps an exported one."""


@dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """The contents of `config.json`: the architecture's fields by their names, and how the model is used."""

    network: str
    classes: tuple[str, ...]
    crop: int
    width: float
    batch_norm: bool
    boxes: Regression | None = None
    dropout: float
    scale: str
    flip: bool
    drawn: tuple[str, ...] = ()
    weights_sha256: str | None = None

    def __post_init__(self) -> None:
        """Refuse values that no network has."""
        scale_range(self.scale)
        if not 0 <= self.dropout < 1:
            raise ValueError(f"dropout must be from 0 to below 1, not {self.dropout}")
        if len(set(self.classes)) < len(self.classes):
            raise ValueError("classes have the same name")

    @property
    def architecture(self) -> Architecture:
        """The network that the weights are of."""
        stored = {field.name: getattr(self, field.name) for field in fields(Architecture)}
        return Architecture(**{**stored, "classes": len(self.classes)})


_WEIGHTS_GONE = (
    f"does not hold a usable model: {WEIGHTS} is missing: restore the file, or remove the run's folder and train again"
)

TEST_SCALE = "256"
"""S from which the test scales follow, where it is not known how a network was trained."""


@dataclass(frozen=True, kw_only=True)
class Model(Generic[Net]):
    """A trained network, its classes, and how it is tested."""

    net: Net
    classes: tuple[str, ...]
    scale: str
    """S that it was trained at, for a crop of 224: it determines the test scales."""
    flip: bool
    """Whether it was trained on mirrored images too, and is therefore tested on them."""
    weights_sha256: str | None = None
    """SHA-256 of the file that it was read from."""
    random_layers: tuple[str, ...] = ()
    """Layers that are random because the imported weights lack them."""
    exported: tuple[str, ...] = ()
    """SHA-256 of an exported file, and the libraries that compute it, whose scores need not be the run's."""

    @property
    def digests(self) -> tuple[str | None, ...]:
        """Digests of all that its scores depend on, beside the architecture and the device."""
        return self.weights_sha256, *self.exported


def save_model(model: Model, folder: Path) -> None:
    """Write `config.json` and `model.safetensors`, as model hubs expect them; the folder appears whole or not at all.

    Raises:
        OSError: they cannot be written, as on a full disk; the previous folder stays.
    """
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    net = model.net
    config = {
        **net.architecture.to_json(),
        "dropout": net.dropout,
        "scale": model.scale,
        "flip": model.flip,
        "classes": list(model.classes),
        **({"drawn": list(model.random_layers)} if model.random_layers else {}),
    }
    weights = {name: value.detach().cpu().contiguous() for name, value in net.state_dict().items()}
    try:
        with atomic.new_folder(folder) as aside:
            save_file(weights, aside / WEIGHTS, metadata={"format": "pt"})
            config["weights_sha256"] = file_sha256(aside / WEIGHTS)
            text = json.dumps(config, indent=2, ensure_ascii=False) + "\n"
            (aside / CONFIG).write_bytes(text.encode(errors="backslashreplace"))  # a lone surrogate stays \udcXX
    except (OSError, SafetensorError) as error:
        size = sum(value.nbytes for value in weights.values())
        raise OSError(f"cannot write the model {folder} ({counted(size, 'byte')}): {reason(error)}") from error


def load_model(folder: str | Path) -> Model:
    """Read the model of a run, or of a folder with `config.json` and `model.safetensors`, on the CPU.

    Wherever a RUN is expected, `hub:NAME` is possible too, a model of the Hugging Face hub that `push` uploaded.

    Raises:
        ValueError: there is no such folder, the training has not ended, the weights are damaged or do not fit the
            architecture, or the network predicts boxes.
        OSError: the hub cannot be reached.
    """
    model = _load_model(folder)
    if model.net.architecture.boxes is not None:
        raise ValueError(f"{folder} predicts boxes, not classes: it is for verydeep localise")
    return model


def load_box_model(folder: str | Path) -> Model:
    """Read the model of a run of `verydeep localise train`.

    Raises:
        ValueError: as `load_model`, or the network predicts classes.
    """
    model = _load_model(folder)
    if model.net.architecture.boxes is None:
        raise ValueError(f"{folder} predicts classes, not boxes: verydeep localise train makes a run that does")
    return model


def _load_model(folder: str | Path) -> Model:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    from verydeep.networks.vgg import check_weights, vgg_without_weights

    path = _model_folder(folder)
    if not (path / WEIGHTS).exists():
        raise ValueError(f"{path} {_WEIGHTS_GONE}")
    try:
        config = _config(path)
        net = vgg_without_weights(config.architecture, dropout=config.dropout)
        sha256 = file_sha256(path / WEIGHTS)
        if config.weights_sha256 not in (None, sha256):
            raise ValueError(f"{WEIGHTS} has changed since it was saved: its SHA-256 differs")
        weights = load_file(path / WEIGHTS)
        check_weights(net, weights)
        net.load_state_dict(weights, assign=True)
    except (OSError, ValueError, SafetensorError, RuntimeError) as error:
        raise ValueError(f"{path} does not hold a usable model: {one_line(error)}") from error
    return Model(
        net=net.eval(),
        classes=config.classes,
        scale=config.scale,
        flip=config.flip,
        weights_sha256=sha256,
        random_layers=config.drawn,
    )


def warnings_of(name: str, model: "Model[ScoringNetwork]") -> tuple[str, ...]:
    """Return the warnings for anyone who uses the outputs of the run `name`."""
    if not model.random_layers:
        return ()
    layers = ", ".join(model.random_layers)
    return (f"{name} was imported without {layers}, which are random: it is for features and --finetune",)


def load_config(folder: str | Path) -> ModelConfig:
    """Read `config.json` of a run's model.

    Raises:
        ValueError: the folder has no model, or its `config.json` is damaged or of a newer version.
    """
    return _config(_model_folder(folder))


def weights_fingerprint(folder: str | Path) -> str:
    """Return the SHA-256 of a run's final weights; of weights that were removed, the one that `config.json` states.

    Raises:
        ValueError: the folder has no model, or its weights are gone and an earlier version wrote `config.json`.
    """
    path = _model_folder(folder)
    if (path / WEIGHTS).exists():
        return file_sha256(path / WEIGHTS)
    if stated := _config(path).weights_sha256:
        return stated
    raise ValueError(f"{path} {_WEIGHTS_GONE}")


def has_weights(folder: str | Path) -> bool:
    """Return whether a run or model folder has weights: people remove those of experiments to save space."""
    return (_model_folder(folder) / WEIGHTS).exists()


def file_sha256(path: Path) -> str:
    """Return the hexadecimal SHA-256 of a file."""
    with open_file(path) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def files_sha256(files: Sequence[Path]) -> str:
    """Return the hexadecimal SHA-256 of a file; of several that of a list of their own, one a line, in this order."""
    digests = [file_sha256(file) for file in files]
    if len(digests) == 1:
        return digests[0]
    return hashlib.sha256("".join(f"{digest}\n" for digest in digests).encode()).hexdigest()


def _config(folder: Path) -> ModelConfig:
    return read_json(folder / CONFIG, ModelConfig, exact=True)


def _model_folder(folder: str | Path) -> Path:
    """Return the folder of `config.json` and `model.safetensors`; a model of the hub is downloaded."""
    if model_hub.is_named(folder):
        found = model_hub.downloaded(str(folder), (CONFIG,))
        if not (found / CONFIG).is_file() or "network" not in read_json(found / CONFIG, dict[str, Any]):
            raise ValueError(f"{folder} is not a model of verydeep: verydeep import {folder} --out RUN may read it")
        return model_hub.downloaded(str(folder), (WEIGHTS,), beside=found)
    for path in (atomic.locate(Path(folder) / MODEL), atomic.locate(Path(folder))):
        if (path / CONFIG).is_file():
            return path
    refuse_classifier(folder)
    why = "has no model yet: finish it with --resume" if has_record(folder) else "is not a run: no model in it"
    if not Path(folder).exists():
        why = "does not exist: name a run, a model folder or hub:NAME"
    raise ValueError(f"{folder} {why}")


def model_files(folder: str | Path) -> dict[str, Path]:
    """Return the paths of `config.json` and `model.safetensors` of a run's model, by these names.

    Raises:
        ValueError: the folder has no model.
    """
    path = _model_folder(folder)
    return {name: path / name for name in (CONFIG, WEIGHTS)}


def load(folder: str | Path) -> "VGG":
    """Read the network of a run, or of `hub:NAME`, whether it predicts classes or boxes.

    Raises:
        ValueError: there is no such model, or it is damaged.
        OSError: the hub cannot be reached.
    """
    return _load_model(folder).net


def save(
    net: "VGG", folder: str | Path, *, classes: Sequence[str] | None = None, scale: str = TEST_SCALE, flip: bool = True
) -> Path:
    """Write a network's `config.json` and `model.safetensors` for `load`, `push` and everything that takes a RUN.

    Args:
        net: the network.
        folder: replaced if it holds a model, created if it does not exist.
        classes: a name for each output; by default `class 0`, `class 1`, ...
        scale: S for a crop of 224, which determines the test scales.
        flip: whether tests average over the mirror image.

    Raises:
        ValueError: not a name of its own for each output, an impossible scale, or a folder with other files
            than a model.
        OSError: it cannot be written.
    """
    from verydeep.networks.class_names import numbered_classes

    path = Path(folder)
    count = net.architecture.classes
    names = numbered_classes(count) if classes is None else tuple(classes)
    if len(names) != count or len(set(names)) < count:
        needed = counted(count, "distinct class name")
        raise ValueError(f"{needed} {plural('is', count, 'are')} needed, not {number(len(set(names)))}")
    scale_range(scale)
    if path.exists() and (not path.is_dir() or {file.name for file in path.iterdir()} - {CONFIG, WEIGHTS}):
        raise ValueError(f"{path} contains something other than a model: choose another folder")
    save_model(Model(net=net, classes=names, scale=scale, flip=flip), path)
    return path
