"""A run made from a file of weights, of this package or another library, that is used like any other."""

from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from rich.table import Table
from rich.text import Text

from verydeep.machine import atomic
from verydeep.machine.documents import read_json
from verydeep.networks.architecture import configuration
from verydeep.networks.class_names import names_of_classes
from verydeep.networks.foreign.layouts import TakenWeights, TrainedPreprocessing, Triple
from verydeep.networks.foreign.state_dicts import SHARDS_INDEX
from verydeep.networks.foreign.torchvision import timm_config
from verydeep.networks.foreign.weight_files import files_of_weights, read_weights
from verydeep.numbers import counted, decimal, number, trimmed
from verydeep.presentation.terminal import table_with
from verydeep.runs import model_hub
from verydeep.runs.files import CONFIG, MODEL, refuse_classifier
from verydeep.runs.foreign_model import (
    ForeignModel,
    foreign_model,
    imported_layers,
    refuse_parts,
    refuse_preprocessing,
)
from verydeep.runs.model import files_sha256, load_config, load_model, model_files, save_model, warnings_of
from verydeep.runs.record import Record, command, has_record, is_finished, versions, write_record

_HUB_WEIGHTS = ("model.safetensors", "pytorch_model.bin")
"""Files of weights in a folder of the hub; the first that is there is read."""

_BESIDE_CONFIG = (*_HUB_WEIGHTS, f"model{SHARDS_INDEX}")
"""Files of weights in a folder, beside which a `config.json` tells of them; the first that is there is read."""


@dataclass(frozen=True, kw_only=True)
class Imported:
    """A run that was made from a file of weights."""

    run: str
    file: str
    beside: tuple[str, ...]
    """Names of further files that its arrays come from."""
    sha256: str
    """SHA-256 of the file, or of the list of the SHA-256 of it and those beside."""
    layout: str
    network: str
    batch_norm: bool
    width: float
    crop: int
    classes: int
    mean_rgb: Triple
    """Mean in 0..255 that is subtracted inside the network."""
    notes: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """Return all fields as a plain dictionary, ready for JSON."""
        return asdict(self)


def import_weights(
    weights: str | Path,
    out: str | Path,
    *,
    network: str | None = None,
    class_names: str | None = None,
    trained: TrainedPreprocessing = TrainedPreprocessing(),
    taken: TakenWeights = TakenWeights(),
) -> Imported:
    """Make a run from weights of torchvision, timm, Keras, ONNX, Caffe, MatConvNet or this package.

    RGB bytes get the same scores as in that library: order of channels, mean, std and the order of fc6's inputs are
    folded into the weights and the run's mean. Network, width, crop, batch normalisation and classes are recognised by
    names and shapes. Fully connected layers that the file lacks, or that are not numbers in it (files for features
    only), are initialised at random, which is noted. The run is tested as if trained at S = 256 and on mirrored images.

    Args:
        weights: a file, a run, a folder with `config.json` and weights, or `hub:NAME`.
        out: the run folder to make.
        network: `A-LRN`, whose weights cannot be told from A's; another name is checked against the recognised one.
        class_names: `words` or `wnids` of ILSVRC's classes for 1,000 outputs, or a file with a name per line. By
            default this package's own models keep their names, and others get `words`.
        trained: preprocessing other than that of the library's own weights.
        taken: the convolutions alone, the crop of a head that fits several, or averaged weights.

    Raises:
        ValueError: not weights, those of another network, damaged, or an option that does not fit; one line says which.
        OSError: a file cannot be read or written, or the hub cannot be reached.
    """
    folder = Path(out)
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ValueError(f"{folder} exists: choose another folder")
    imported, files = read_model(weights, network=network, class_names=class_names, trained=trained, taken=taken)
    return _write(imported, folder, str(weights), files)


def read_model(
    weights: str | Path,
    *,
    network: str | None = None,
    class_names: str | None = None,
    trained: TrainedPreprocessing = TrainedPreprocessing(),
    taken: TakenWeights = TakenWeights(),
) -> tuple[ForeignModel, tuple[Path, ...]]:
    """Return the model of a file of weights, in memory, and its files; arguments and errors as for `import_weights`.

    The files are as `weights_files` returns them.
    """
    file = _weights_file(weights)
    config = file.with_name(CONFIG)
    told = read_json(config, dict[str, Any]) if file.name in _BESIDE_CONFIG and config.is_file() else {}
    try:
        if "network" in told:
            refuse_parts(taken)
            return _own_model(file.parent, network, class_names, trained), (file,)
        arrays = replace(read_weights(file, taken), **timm_config(told))
        found = foreign_model(arrays, network=network, names=class_names, trained=trained, taken=taken)
        return found, (file, *arrays.beside)
    except ValueError as error:
        reason = str(error)
        raise ValueError(reason if str(file) in reason else f"{file}: {reason}") from error


def weights_files(weights: str | Path) -> tuple[Path, ...]:
    """Return the file of weights, then those beside it that its arrays come from, by name.

    Raises:
        ValueError: a folder without weights, no such model of the hub, or a package is missing to read the file.
        OSError: the file cannot be read, or the hub cannot be reached.
    """
    return files_of_weights(_weights_file(weights))


def _weights_file(weights: str | Path) -> Path:
    """Return the file of weights; of a folder the one that hubs know, beside which there may be a `config.json`.

    Raises:
        ValueError: a folder without weights, or no such model of the hub.
        OSError: the hub cannot be reached.
    """
    if model_hub.is_named(weights):
        folder = _downloaded(str(weights))
    elif Path(weights).is_dir():
        folder = Path(weights)
        if has_record(folder) or is_finished(folder):
            folder = model_files(folder)[CONFIG].parent
    else:
        return Path(weights)
    for name in _BESIDE_CONFIG:
        if (folder / name).is_file():
            return folder / name
    refuse_classifier(folder)
    looked_for = _BESIDE_CONFIG if Path(weights).is_dir() else _HUB_WEIGHTS
    raise ValueError(f"{weights} has neither {' nor '.join(looked_for)}")


def _downloaded(name: str) -> Path:
    """Return the folder of a model of the hub, with its `config.json` and the first file of weights that it has."""
    folder = model_hub.downloaded(name, (CONFIG,))
    for file in _HUB_WEIGHTS:
        if (model_hub.downloaded(name, (file,), beside=folder) / file).is_file():
            break
    return folder


def _own_model(folder: Path, network: str | None, names: str | None, trained: TrainedPreprocessing) -> ForeignModel:
    """Return the model of an earlier run, with its classes, scale and mirror."""
    model = load_model(folder)
    if network is not None and configuration(network) != model.net.architecture.configuration:
        raise ValueError(f"it is {model.net.architecture.network}, not {network}")
    refuse_preprocessing(trained)
    classes = model.classes if names is None else names_of_classes(model.net.architecture.classes, names, model.classes)
    return ForeignModel(
        model=replace(model, classes=classes),
        layout="verydeep",
        initialisation=imported_layers(model.net, model.random_layers),
        preprocessing=None,
        notes=warnings_of("it", model),
    )


def _write(imported: ForeignModel, folder: Path, source: str, files: tuple[Path, ...]) -> Imported:
    """Write the run, its record and its model."""
    model, architecture = imported.model, imported.model.net.architecture
    (file, *others), sha256 = files, files_sha256(files)
    beside = tuple(other.name for other in others)
    told = asdict(imported.preprocessing) if imported.preprocessing else {}
    record = Record(
        network=architecture.network,
        recipe={},
        runtime={},
        source=source,
        fingerprints={"weights": sha256},
        images={},
        classes=model.classes,
        initialisation=imported.initialisation,
        command=command(),
        versions=versions(),
        imported={
            "file": file.name,
            **({"beside": list(beside)} if beside else {}),
            "sha256": sha256,
            "layout": imported.layout,
            **told,
        },
    )
    with atomic.new_folder(folder) as aside:
        save_model(model, aside / MODEL)
        write_record(aside, record)
    red, green, blue = model.net.mean_rgb.tolist()
    return Imported(
        run=str(folder),
        file=file.name,
        beside=beside,
        sha256=sha256,
        layout=imported.layout,
        network=architecture.network,
        batch_norm=architecture.batch_norm,
        width=architecture.width,
        crop=architecture.crop,
        classes=architecture.classes,
        mean_rgb=(red, green, blue),
        notes=imported.notes,
    )


def next_command(imported: Imported) -> tuple[str, ...]:
    """Return a command that uses the run: the network's scores, or its convolutions where the rest is random."""
    if load_config(imported.run).drawn:
        return ("verydeep", "features", imported.run, "photos", "--layers", "pool5", "--out", "photos.safetensors")
    return ("verydeep", "predict", imported.run, "picture.jpg")


def import_table(imported: Imported) -> Table:
    """Return a table of the origin of an imported run."""
    table = table_with(f"{imported.run}, from {imported.file}", left=("", ""), right=())
    norm = " with batch normalisation" if imported.batch_norm else ""
    width = "" if imported.width == 1 else f", width {trimmed(imported.width)}"
    rows = {
        "layout": imported.layout,
        "network": f"{imported.network}{norm}{width}, crop {imported.crop}",
        "classes": number(imported.classes),
        "mean RGB": ", ".join(decimal(value, 3) for value in imported.mean_rgb),
        f"SHA-256 of {counted(1 + len(imported.beside), 'file')}" if imported.beside else "SHA-256": imported.sha256,
    }
    table.show_header = False
    for name, value in rows.items():
        table.add_row(name, Text(value))
    table.caption = Text(" ".join(f"{note}." for note in imported.notes))
    return table
