"""The run folder: what a training leaves behind, and how everyone reads it.

RUN/run.json         what made it: network, recipe, runtime, source, class names, versions, command; of an imported
                     run where its weights came from, and no recipe
RUN/metrics.jsonl    a line per epoch
RUN/tensorboard/     the same as curves, and the loss of every step
RUN/checkpoints/     to resume from
RUN/quarantine.jsonl images that could not be used, and why; there only if there are some
RUN/best/            config.json and model.safetensors of the epoch with the lowest validation error
RUN/model/           the same of the last epoch: appears when the training has ended
"""

import hashlib
import json
import platform
import shlex
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

from verydeep import atomic, model_hub
from verydeep.images.regression import Regression
from verydeep.networks.configurations import configuration
from verydeep.networks.scales import scale_range
from verydeep.version import __version__

if TYPE_CHECKING:
    from verydeep.networks.vgg import VGG

RECORD, METRICS, CHECKPOINTS, MODEL = "run.json", "metrics.jsonl", "checkpoints", "model"
QUARANTINE, TENSORBOARD, BEST = "quarantine.jsonl", "tensorboard", "best"
CONFIG, WEIGHTS = "config.json", "model.safetensors"

CLASSIFIER = "classifier.json"
"""In the folder of a classifier of features, which is no run."""

TEST_SCALE = "256"
"""S that test scales follow from where it is not known how a network was trained."""

FORMAT = 2
"""Of `run.json`; raised when older versions could no longer read it."""


@dataclass(frozen=True, kw_only=True)
class Record:
    """What made a run; `run.json`."""

    network: str
    recipe: dict[str, Any]
    """Empty where nothing was trained here: the weights were imported."""
    runtime: dict[str, Any]
    source: str
    fingerprints: dict[str, str]
    """Of the training and validation images, and of the weights that the first ones were copied from (`init`)."""
    images: dict[str, int]
    """How many of them there are."""
    classes: tuple[str, ...]
    initialisation: str
    """Which layers were copied and which were drawn."""
    command: str
    versions: dict[str, str]
    imported: dict[str, Any] | None = None
    """Where imported weights came from: file, SHA-256, layout, and how images were to be preprocessed for them."""
    format: int = FORMAT
    regression: Regression | None = None
    """Of boxes, if it does not classify."""


@dataclass(frozen=True, kw_only=True)
class Model:
    """A trained network, what its outputs mean, and how it is to be shown images."""

    net: "VGG"
    classes: tuple[str, ...]
    scale: str
    """S that it was trained at, for a crop of 224: the test scales follow from it."""
    flip: bool
    """Whether it was trained on mirrored images too, and so is tested on them."""
    weights_sha256: str | None = None
    """Of the file that it was read from."""
    regression: Regression | None = None
    """If it predicts boxes, whether one for all classes or one for each."""
    drawn: tuple[str, ...] = ()
    """Layers that are random because the weights that were imported lack them."""


def versions() -> dict[str, str]:
    """Of this package, Python, PyTorch and the machine."""
    import torch

    return {
        "verydeep": __version__,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "machine": f"{platform.system()} {platform.machine()}",
        "threads": str(torch.get_num_threads()),
    }


def command() -> str:
    """The command line that is running."""
    program = Path(sys.argv[0]).name
    return shlex.join([*(["python", "-m", "verydeep"] if program == "__main__.py" else [program]), *sys.argv[1:]])


def write_record(folder: Path, record: Record) -> None:
    """Creates the run folder with its `run.json`."""
    folder.mkdir(parents=True, exist_ok=True)
    fields = asdict(record)
    if record.regression is None:
        del fields["regression"]  # so that older versions read it
    atomic.write_json(folder / RECORD, fields)


def read_record(folder: str | Path) -> Record:
    """What made a run.

    Raises:
        ValueError: the folder is not a run, or its record is damaged or of a newer version.
    """
    path = Path(folder) / RECORD
    if not path.is_file():
        refuse_classifier(folder)
        raise ValueError(f"{folder} is not a run: it has no {RECORD} (verydeep train writes one)")
    try:
        fields = json.loads(path.read_text(encoding="utf-8"))
        if fields["format"] > FORMAT:
            raise ValueError("a newer version of verydeep wrote it")
        return Record(**{**fields, "classes": tuple(fields["classes"])})
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{path} cannot be read: {error}") from error


def has_record(folder: str | Path) -> bool:
    """Whether the folder says what made it; one with a model only, from elsewhere, does not."""
    return (Path(folder) / RECORD).is_file()


def is_finished(folder: str | Path) -> bool:
    """Whether the training has ended and its model stands."""
    return (atomic.standing(Path(folder) / MODEL) / CONFIG).is_file()


def is_begun(folder: str | Path) -> bool:
    """Whether there is anything to lose: a checkpoint, or a model."""
    return (Path(folder) / CHECKPOINTS).is_dir() or is_finished(folder)


def append_metrics(folder: Path, figures: dict[str, Any]) -> None:
    """One more line of `metrics.jsonl`."""
    atomic.append_json(folder / METRICS, figures)


def read_metrics(folder: str | Path) -> list[dict[str, Any]]:
    """Every epoch's figures; of an epoch that was done twice, after a crash, the later ones."""
    path = Path(folder) / METRICS
    if not path.is_file():
        return []
    epochs: dict[int, dict[str, Any]] = {}
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            figures = json.loads(line)
            epochs[figures["epoch"]] = figures
        except (ValueError, KeyError, TypeError):
            continue  # torn by a crash; that epoch was done again
    return [epochs[epoch] for epoch in sorted(epochs)]


def save_model(model: Model, folder: Path) -> None:
    """Writes `config.json` and `model.safetensors`, as model hubs expect them; the folder appears whole.

    Raises:
        OSError: the disk is full, say; what was there stays.
    """
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    net = model.net
    config = {
        "network": net.configuration.name,
        "crop": net.crop,
        "width": net.width,
        "batch_norm": net.batch_norm,
        "dropout": net.dropout,
        "scale": model.scale,
        "flip": model.flip,
        "classes": list(model.classes),
        **({"drawn": list(model.drawn)} if model.drawn else {}),
    }
    if model.regression is not None:
        config["boxes"] = model.regression
    weights = {name: value.detach().cpu().contiguous() for name, value in net.state_dict().items()}
    try:
        with atomic.new_folder(folder) as aside:
            save_file(weights, aside / WEIGHTS, metadata={"format": "pt"})
            config["weights_sha256"] = file_sha256(aside / WEIGHTS)
            text = json.dumps(config, indent=2, ensure_ascii=False) + "\n"
            (aside / CONFIG).write_bytes(text.encode(errors="backslashreplace"))  # what is no text becomes \udcXX
    except (OSError, SafetensorError) as error:
        size = sum(value.nbytes for value in weights.values())
        raise OSError(f"cannot write the model {folder} ({size:,} bytes): {error}") from error


def load_model(folder: str | Path) -> Model:
    """The model of a run, or of a folder with `config.json` and `model.safetensors`, ready to use, on the CPU.

    Everywhere a RUN can also be `hub:NAME`, a model of the Hugging Face hub that `push` or `save` made.

    Raises:
        ValueError: no such folder, a training that has not ended, weights that are damaged or do not fit the
            configuration, or a network that predicts boxes.
        OSError: the hub cannot be reached.
    """
    model = _load_model(folder)
    if model.regression is not None:
        raise ValueError(f"{folder} predicts boxes, not classes: it is for verydeep localise")
    return model


def load_box_model(folder: str | Path) -> Model:
    """The same of a run of `verydeep localise train`.

    Raises:
        ValueError: as `load_model`, and for a network that predicts classes.
    """
    model = _load_model(folder)
    if model.regression is None:
        raise ValueError(f"{folder} predicts classes, not boxes: verydeep localise train makes a run that does")
    return model


def outputs(classes: int, regression: Regression | None) -> int:
    """Of fc8: a score for each class, the four numbers of a box, or those for each class."""
    return {None: classes, "shared": 4, "per-class": 4 * classes}[regression]


def _load_model(folder: str | Path) -> Model:
    import torch
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    from verydeep.networks.vgg import VGG

    found = _model_folder(folder)
    try:
        config = _config(found)
        classes, scale, flip = tuple(config.pop("classes")), config.pop("scale"), config.pop("flip")
        regression = config.pop("boxes", None)
        if regression not in (None, *get_args(Regression)):
            raise ValueError(f"boxes are {' or '.join(get_args(Regression))}, not {regression!r}")
        drawn = tuple(map(str, config.pop("drawn", ())))
        scale_range(scale)
        weights = file_sha256(found / WEIGHTS)
        if config.pop("weights_sha256", None) not in (None, weights):
            raise ValueError(f"{WEIGHTS} is not what was saved: its SHA-256 differs")
        with torch.device("meta"):
            net = VGG(configuration(config.pop("network")), classes=outputs(len(classes), regression), **config)
        net.load_state_dict(load_file(found / WEIGHTS), assign=True)
    except (OSError, KeyError, TypeError, ValueError, SafetensorError, RuntimeError) as error:
        raise ValueError(f"{found} does not hold a usable model: {' '.join(str(error).split())}") from error
    return Model(
        net=net.eval(),
        classes=classes,
        scale=scale,
        flip=flip,
        weights_sha256=weights,
        regression=regression,
        drawn=drawn,
    )


def warnings_of(name: str, model: Model) -> tuple[str, ...]:
    """What somebody who reads the outputs of the run `name` has to know."""
    if not model.drawn:
        return ()
    layers = ", ".join(model.drawn)
    return (f"{name} was imported without {layers}, which are random: it is for features and --finetune",)


def load_config(folder: str | Path) -> dict[str, Any]:
    """What `config.json` of a run's model says.

    Raises:
        ValueError: the folder has no model.
    """
    return _config(_model_folder(folder))


def weights_fingerprint(folder: str | Path) -> str:
    """SHA-256 of a run's final weights.

    Raises:
        ValueError: the folder has no model.
    """
    return file_sha256(_model_folder(folder) / WEIGHTS)


def file_sha256(path: Path) -> str:
    """Hexadecimal SHA-256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _config(found: Path) -> dict[str, Any]:
    config: dict[str, Any] = json.loads((found / CONFIG).read_text(encoding="utf-8"))
    return config


def _model_folder(folder: str | Path) -> Path:
    """Where `config.json` and `model.safetensors` lie; of a model of the hub, where they were downloaded to."""
    if model_hub.is_named(folder):
        found = model_hub.downloaded(str(folder), (CONFIG,))
        if not (found / CONFIG).is_file() or "network" not in _config(found):
            raise ValueError(f"{folder} is no model of verydeep: verydeep import {folder} --out RUN may read it")
        return model_hub.downloaded(str(folder), (WEIGHTS,), beside=found)
    for path in (atomic.standing(Path(folder) / MODEL), atomic.standing(Path(folder))):
        if (path / CONFIG).is_file():
            return path
    refuse_classifier(folder)
    reason = "has no model yet: finish it with --resume" if has_record(folder) else "is not a run: no model in it"
    raise ValueError(f"{folder} {reason}")


def refuse_classifier(folder: str | Path) -> None:
    """Where a run is looked for.

    Raises:
        ValueError: the folder holds a classifier of features.
    """
    if (atomic.standing(Path(folder)) / CLASSIFIER).is_file():
        raise ValueError(
            f"{folder} is a classifier of features, not a run: verydeep predict takes it (in Python verydeep.classify)"
        )


def model_files(folder: str | Path) -> dict[str, Path]:
    """`config.json` and `model.safetensors` of a run's model, by their names.

    Raises:
        ValueError: the folder has no model.
    """
    return {name: _model_folder(folder) / name for name in (CONFIG, WEIGHTS)}


def load(folder: str | Path) -> "VGG":
    """The network of a run, or of `hub:NAME`, whether it predicts classes or boxes."""
    return _load_model(folder).net


def save(
    net: "VGG",
    folder: str | Path,
    *,
    classes: Sequence[str] | None = None,
    scale: str = TEST_SCALE,
    flip: bool = True,
) -> Path:
    """Writes a network's `config.json` and `model.safetensors` for `load`, `push` and all that takes a RUN.

    Args:
        net: the network.
        folder: replaced if it holds a model, made if it is not there.
        classes: a name for each output; `class 0`, `class 1`, ... if not said.
        scale: S for a crop of 224, from which the test scales follow.
        flip: whether tests average over the mirror image.

    Raises:
        ValueError: other than one name for each output, the same name twice, an impossible scale, or a folder that
            holds other things than a model.
        OSError: it cannot be written.
    """
    from verydeep.networks.class_names import numbered_classes

    path = Path(folder)
    names = numbered_classes(net.classes) if classes is None else tuple(classes)
    if len(names) != net.classes or len(set(names)) < len(names):
        raise ValueError(f"{net.classes:,} different class names are needed, not {len(set(names)):,}")
    scale_range(scale)
    if path.exists() and (not path.is_dir() or {file.name for file in path.iterdir()} - {CONFIG, WEIGHTS}):
        raise ValueError(f"{path} holds other things than a model: choose another folder")
    save_model(Model(net=net, classes=names, scale=scale, flip=flip), path)
    return path
