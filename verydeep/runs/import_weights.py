"""Other libraries' weights to a run that is used like any other."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from verydeep.machine import atomic
from verydeep.networks.class_names import WORDS, names_of_classes, numbered_classes
from verydeep.networks.configurations import configuration
from verydeep.networks.foreign.layouts import Trained, Triple
from verydeep.networks.foreign.named_arrays import NamedArrays
from verydeep.networks.foreign.preprocessing import PREPROCESSING, TORCHVISION_FEATURES, Preprocessing, fold
from verydeep.networks.foreign.recognition import HEAD, architecture_of
from verydeep.networks.foreign.torchvision import timm_config
from verydeep.networks.foreign.weight_files import in_our_layout, read_weights
from verydeep.networks.initialisation import initialise, layers_with_weights
from verydeep.networks.vgg import VGG
from verydeep.runs import model_hub
from verydeep.runs.files import CONFIG, MODEL, refuse_classifier
from verydeep.runs.model import TEST_SCALE, Model, file_sha256, load_model, model_files, save_model, warnings_of
from verydeep.runs.record import Record, command, has_record, is_finished, versions, write_record

HUB_WEIGHTS = ("model.safetensors", "pytorch_model.bin")
"""In a folder of the hub; the first that is there."""

FIRST_WEIGHTS_SEED = 0
"""For layers that the file does not have."""


@dataclass(frozen=True, kw_only=True)
class Imported:
    """A run that was made of a file of weights."""

    run: str
    file: str
    sha256: str
    layout: str
    network: str
    batch_norm: bool
    width: float
    crop: int
    classes: int
    mean_rgb: Triple
    """0..255; subtracted inside the network."""
    notes: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """The same as a plain dictionary, ready for JSON."""
        return asdict(self)


@dataclass(frozen=True, kw_only=True)
class _Converted:
    model: Model
    layout: str
    initialisation: str
    preprocessing: Preprocessing | None
    """None where the mean was in the weights already: they are this package's own."""
    notes: tuple[str, ...] = ()


def import_weights(
    weights: str | Path,
    out: str | Path,
    *,
    network: str | None = None,
    class_names: str | None = None,
    trained: Trained = Trained(),
) -> Imported:
    """Makes a run of weights of torchvision, timm, Keras, Caffe, MatConvNet or this package.

    The same RGB bytes get the same scores as in that library: order of channels, mean, std and the order of fc6's
    inputs are folded into the weights and the run's mean. Network, width, crop, batch normalisation and classes are
    recognised by names and shapes. Fully connected layers that the file lacks, or that are not numbers in it (files
    for features only), are drawn anew, which is noted. Tests of the run follow from S = 256 and the mirror.

    Args:
        weights: a file, a run, a folder with `config.json` and weights, or `hub:NAME`.
        out: the run folder to make.
        network: `A-LRN`, whose weights cannot be told from A's; another name is checked against what is found.
        class_names: `words` or `wnids` of ILSVRC's classes for 1,000 outputs, or a file with a name per line. If not
            said, this package's own models keep their names, and of others it is `words`.
        trained: preprocessing other than that of the library's own weights.

    Raises:
        ValueError: not weights, of another network, damaged, an option that does not fit; one line says what.
        OSError: a file cannot be read or written, or the hub cannot be reached.
    """
    folder = Path(out)
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ValueError(f"{folder} exists: choose another folder")
    file, config = _found(weights)
    told = {} if config is None else _read_config(config)
    try:
        if "network" in told:
            converted = _own(file.parent, network, class_names, trained)
        else:
            arrays = replace(read_weights(file), **timm_config(told))
            converted = converted_weights(arrays, network=network, names=class_names, trained=trained)
    except ValueError as error:
        reason = str(error)
        raise ValueError(reason if str(file) in reason else f"{file}: {reason}") from error
    return _written(converted, folder, str(weights), file)


def converted_weights(
    arrays: NamedArrays, *, network: str | None = None, names: str | None = None, trained: Trained = Trained()
) -> _Converted:
    """A model of named arrays, in memory.

    Raises:
        ValueError: no network of the paper, or an option that does not fit.
    """
    found = in_our_layout(arrays)
    architecture = architecture_of(found, network)
    weights = {name: value if name.endswith("num_batches_tracked") else value.float() for name, value in found.items()}
    drawn, notes = _unknown(weights)
    preprocessing, more = _preprocessing(arrays, trained, features_only=_features_only(weights))
    if preprocessing is not None:
        weights = fold(weights, preprocessing)
    elif "mean_rgb" not in weights:
        raise ValueError("it has no mean_rgb, which belongs to the weights of this package")
    net = architecture.net()
    if drawn:
        weights |= _first_weights(net, drawn)
    net.load_state_dict(weights, assign=True)
    if drawn and names is None:
        classes = numbered_classes(net.classes)
    else:
        classes = names_of_classes(net.classes, names or WORDS, arrays.classes)
    model = Model(net=net.eval(), classes=classes, scale=TEST_SCALE, flip=True, drawn=drawn)
    copied = [layer for layer in layers_with_weights(net) if layer not in drawn]
    others = f"; glorot initialisation: {', '.join(drawn)}" if drawn else ""
    return _Converted(
        model=model,
        layout=arrays.layout,
        initialisation=f"imported: {', '.join(copied)}{others}",
        preprocessing=preprocessing,
        notes=(*arrays.notes, *more, *notes),
    )


def _found(weights: str | Path) -> tuple[Path, Path | None]:
    """The file of weights and, of a folder, its `config.json`."""
    if model_hub.is_named(weights):
        folder = _fetched(str(weights))
    elif Path(weights).is_dir():
        folder = Path(weights)
        if has_record(folder) or is_finished(folder):
            folder = model_files(folder)[CONFIG].parent
    elif Path(weights).name in HUB_WEIGHTS:
        folder = Path(weights).parent
        return Path(weights), folder / CONFIG if (folder / CONFIG).is_file() else None
    else:
        return Path(weights), None
    for name in HUB_WEIGHTS:
        if (folder / name).is_file():
            return folder / name, folder / CONFIG if (folder / CONFIG).is_file() else None
    refuse_classifier(folder)
    raise ValueError(f"{weights} has neither {' nor '.join(HUB_WEIGHTS)}")


def _read_config(path: Path) -> dict[str, Any]:
    """Return what a `config.json` beside weights says.

    Raises:
        ValueError: not JSON, or not an object.
    """
    try:
        told = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} cannot be read: {error}") from error
    if not isinstance(told, dict):
        raise ValueError(f"{path} cannot be read: it holds a {type(told).__name__}, not an object")
    return told


def _fetched(name: str) -> Path:
    """The folder of a model of the hub with its `config.json` and the first file of weights that it has."""
    folder = model_hub.downloaded(name, (CONFIG,))
    for file in HUB_WEIGHTS:
        if (model_hub.downloaded(name, (file,), beside=folder) / file).is_file():
            break
    return folder


def _own(folder: Path, network: str | None, names: str | None, trained: Trained) -> _Converted:
    """The model of an earlier run, with its classes, scale and mirror."""
    model = load_model(folder)
    if network is not None and configuration(network) != model.net.configuration:
        raise ValueError(f"it is {model.net.configuration.name}, not {network}")
    if trained != Trained():
        raise ValueError("its mean is part of its weights: leave out mean, std, channels and white")
    classes = model.classes if names is None else names_of_classes(model.net.classes, names, model.classes)
    copied = ", ".join(layer for layer in layers_with_weights(model.net) if layer not in model.drawn)
    return _Converted(
        model=replace(model, classes=classes),
        layout="verydeep",
        initialisation=f"imported: {copied}",
        preprocessing=None,
        notes=warnings_of("it", model),
    )


def _preprocessing(
    arrays: NamedArrays, trained: Trained, *, features_only: bool
) -> tuple[Preprocessing | None, tuple[str, ...]]:
    """What is said of the training, else what the file tells, else what the library does; and a word about that."""
    if arrays.layout == "verydeep":
        if trained != Trained():
            raise ValueError("its mean is part of its weights: leave out mean, std, channels and white")
        return None, ()
    of_features = arrays.layout == "torchvision" and features_only
    usual = TORCHVISION_FEATURES if of_features else PREPROCESSING[arrays.layout]
    note = "its mean and std are those of torchvision's weights for features only, which have NaN for a classifier, too"
    notes = (note,) if of_features and None in (trained.mean, trained.std) else ()
    if trained.white not in (None, usual.white) and (trained.mean is None or trained.std is None):
        raise ValueError(f"white {trained.white} is not {arrays.layout}'s: say mean and std in that range, too")
    found = Preprocessing(
        channels=trained.channels or arrays.channels or usual.channels,
        white=trained.white or usual.white,
        mean=trained.mean or arrays.mean or usual.mean,
        std=trained.std or arrays.std or usual.std,
    )
    if not all(0 < value < float("inf") for value in found.std):
        raise ValueError(f"std must be numbers above 0, not {list(found.std)}")
    if not all(0 <= value <= found.white for value in found.mean):
        raise ValueError(f"mean must be numbers from 0 to {found.white}, white in {arrays.layout}'s, not {found.mean}")
    return found, notes


def _unknown(weights: Mapping[str, Tensor]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The fully connected layers that are missing or no numbers, and what is to be said of that.

    Raises:
        ValueError: a convolution that is no numbers, or only some of the fully connected layers.
    """
    bad = {name.partition(".")[0] for name, value in weights.items() if not value.isfinite().all()}
    missing = {layer for layer in HEAD if f"{layer}.weight" not in weights}
    if bad - set(HEAD) or (bad and bad != set(HEAD)):
        raise ValueError(f"{', '.join(sorted(bad))} holds values that are no numbers: damaged")
    if not bad | missing:
        return (), ()
    why = "are no numbers in it" if bad else "are not in it"
    return HEAD, (f"{', '.join(HEAD)} {why} and were drawn at random: it is for features and for --finetune",)


def _features_only(weights: Mapping[str, Tensor]) -> bool:
    """Whether there are fully connected layers, and not a number in them."""
    head = [value for name, value in weights.items() if name.startswith(HEAD)]
    return bool(head) and all(bool(value.isnan().all()) for value in head)


def _first_weights(net: VGG, layers: tuple[str, ...]) -> dict[str, Tensor]:
    """Random weights for whole layers."""
    fresh = net.to_empty(device="cpu")
    initialise(fresh, "glorot", generator=torch.Generator().manual_seed(FIRST_WEIGHTS_SEED))
    return {name: value for name, value in fresh.state_dict().items() if name.partition(".")[0] in layers}


def _written(converted: _Converted, folder: Path, source: str, file: Path) -> Imported:
    model, net = converted.model, converted.model.net
    sha256 = file_sha256(file)
    told = asdict(converted.preprocessing) if converted.preprocessing else {}
    record = Record(
        network=net.configuration.name,
        recipe={},
        runtime={},
        source=source,
        fingerprints={"weights": sha256},
        images={},
        classes=model.classes,
        initialisation=converted.initialisation,
        command=command(),
        versions=versions(),
        imported={"file": file.name, "sha256": sha256, "layout": converted.layout, **told},
    )
    with atomic.new_folder(folder) as aside:
        save_model(model, aside / MODEL)
        write_record(aside, record)
    red, green, blue = net.mean_rgb.tolist()
    return Imported(
        run=str(folder),
        file=file.name,
        sha256=sha256,
        layout=converted.layout,
        network=net.configuration.name,
        batch_norm=net.batch_norm,
        width=net.width,
        crop=net.crop,
        classes=net.classes,
        mean_rgb=(red, green, blue),
        notes=converted.notes,
    )
