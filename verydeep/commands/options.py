"""Options as the command line takes them: groups, lists, files that can be written, files of options."""

import itertools
import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path
from typing import Annotated, Any, Literal, get_args, get_origin

from cyclopts import App, ArgumentCollection, Group, Parameter
from cyclopts.config import Toml

from verydeep.commands.help_pages import common_first
from verydeep.descriptors.descriptor import Descriptor
from verydeep.exported_networks.formats import ExportOptions
from verydeep.images.boxes.options import BoxOptions
from verydeep.images.tolerance import Tolerance
from verydeep.localisation.options import FullProcedure
from verydeep.machine.documents import read_toml
from verydeep.machine.runtime import Execution, Runtime
from verydeep.networks.architecture import InitialisationScheme
from verydeep.networks.foreign.layouts import TakenWeights, TrainedPreprocessing, Triple
from verydeep.prediction.options import MapMethod
from verydeep.presentation.translation import DEFAULT_LANGUAGE, Language
from verydeep.reproduction.grid import GRID_OPTIONS, Grid
from verydeep.training.recipe import Recipe, Schedule
from verydeep.transfer_learning.options import TransferOptions


@dataclass(frozen=True, kw_only=True)
class RecipeChanges:
    """Changes to the recipe of a whole grid; None leaves a value as it is."""

    crop: int | None = None
    """Side of the input in pixels, a multiple of 32."""

    width: float | None = None
    """Factor on the channels of every hidden layer."""

    batch: int | None = None
    """Images per step."""

    learning_rate: float | None = None
    """Learning rate at the start of trainings at S = 256; a tenth of it for those that start from them."""

    epochs: int | None = None
    """Epochs at most, for each network."""

    schedule: Schedule | None = None
    """Learning rate: `plateau`, `step` or `cosine`, as for train."""

    drops: int | None = None
    """How often the learning rate is divided by 10."""

    patience: int | None = None
    """Epochs without a new best validation error after which the rate is lowered."""

    step_epochs: int | None = None
    """For step: epochs between two drops."""

    warm_up: int | None = None
    """For step and cosine: epochs in which the rate rises to its first value."""

    flip: bool | None = None
    """Mirror half of the images, and average over the mirror image in testing."""

    colour_sd: float | None = None
    """Standard deviation of the colour shift, in units of the eigenvalues."""

    batch_norm: bool | None = None
    """Normalise between each convolution and its ReLU (not in the paper)."""

    dropout: float | None = None
    """Share of fc6 and fc7 activations zeroed."""

    momentum: float | None = None
    """Momentum of stochastic gradient descent."""

    weight_decay: float | None = None
    """L2 multiplier, on all weights and biases."""

    label_smoothing: float | None = None
    """Share of the target that is spread over all classes (not in the paper)."""

    init: InitialisationScheme | None = None
    """How random weights are initialised: `glorot`, `paper` (normal, sd 0.01) or `paper-variance` (sd 0.1); trainings
    named after one, such as D-256-glorot, keep theirs."""

    seed: int | None = None
    """The first seed; others count on from it."""

    def applied(self, recipe: Recipe) -> Recipe:
        """Return the recipe with these changes."""
        return replace(recipe, **{name: value for name, value in vars(self).items() if value is not None})


def _file_or_hyphen(_type: object, value: Path | None) -> None:
    """Refuse, before any work, anything but `-` (standard output) and files that can be written."""
    if value is None or str(value) == "-":
        return
    if str(value).startswith("-"):
        raise ValueError("name a file, or - for standard output")
    if value.is_dir():
        raise ValueError(f"{value} is a folder: give a file name inside it")
    if not value.parent.is_dir():
        is_file = value.parent.exists()
        raise ValueError(f"{value.parent} is a file, not a folder" if is_file else f"there is no folder {value.parent}")
    if not value.is_symlink() and (value.is_file() or not value.exists()):  # it appears by renaming
        _check_writable(value.parent)


def _file(type_: object, value: Path | None) -> None:
    """Refuse, before any work, a path that is not a file that can be written."""
    if str(value) == "-":
        raise ValueError("name a file: this output cannot go to standard output")
    _file_or_hyphen(type_, value)


def _folder(_type: object, value: Path | None) -> None:
    """Refuse, before any work, a path that cannot become a folder."""
    if value is None:
        return
    above = next(folder for folder in (value, *value.absolute().parents) if folder.exists())
    if not above.is_dir():
        raise ValueError(f"{above} is a file: name a folder")
    _check_writable(above)


def _check_writable(folder: Path) -> None:
    if not os.access(folder, os.W_OK):
        raise ValueError(f"nothing can be written in {folder}")


def _toml_file(_type: object, value: Path | None) -> None:
    if value is not None and not value.is_file():
        raise ValueError(f"there is no file {value}")


ImageArgument = Annotated[Path, Parameter(json_list=False, allow_leading_hyphen=True)]
ConfigFile = Annotated[Path | None, Parameter(name="--config", validator=_toml_file)]
JsonFile = Annotated[Path | None, Parameter(name="--json", allow_leading_hyphen=True, validator=_file_or_hyphen)]
LinesFile = Annotated[Path | None, Parameter(allow_leading_hyphen=True, validator=_file_or_hyphen)]
OutputFile = Annotated[Path | None, Parameter(validator=_file)]
RequiredFile = Annotated[Path, Parameter(validator=_file)]
RequiredFolder = Annotated[Path, Parameter(validator=_folder)]
OutputFolder = Annotated[Path | None, Parameter(validator=_folder)]


@dataclass(frozen=True, kw_only=True)
class RunFolder:
    """The run folder of a training, and the file of its options."""

    out: RequiredFolder
    """The run folder to make."""

    resume: bool = False

    config: ConfigFile = None
    """TOML file of options (learning_rate = 0.005); the command line overrides it."""

    json_file: JsonFile = None
    """Write the figures of the last and the best epoch to this file as well (- for standard output instead)."""


@dataclass(frozen=True, kw_only=True)
class TestOutputs:
    """Where the figures of a test go, beside the tables that are printed."""

    predictions: OutputFile = None

    report: OutputFolder = None

    language: Language = DEFAULT_LANGUAGE
    """Language of the page of --report: en, or ja (Japanese headings, tables and captions)."""

    json_file: JsonFile = None
    """Write the figures to this file as well (- for standard output instead of the tables)."""


@dataclass(frozen=True, kw_only=True)
class PredictionOutputs:
    """Where predictions go, beside the table that is printed."""

    out: LinesFile = None
    """Write a line for each image to this file instead of the table: .jsonl (JSON lines, as they are computed), .csv or
    .parquet; - for JSON lines on standard output."""

    json_file: JsonFile = None
    """Write all predictions to this file as well (- for standard output instead of the table)."""


@dataclass(frozen=True, kw_only=True)
class MapPictures:
    """Pictures of where in an image its first class is seen."""

    map: OutputFolder = None
    """Write each image, in its own size, with a map of where its first class is seen and a legend into this folder,
    which must have none of the images."""

    method: MapMethod | None = None
    """score-map (the default): the class's probability at each position of the paper's dense score map, which takes the
    place of CAM in these networks; grad-cam: activations of the last convolution (conv5_3 in D), weighted by their
    gradients; finer, but no probabilities (not in the paper)."""


_OPTIONS = {"classifiers": "classifier", "weights": "from", **GRID_OPTIONS}
"""Fields whose options have other names: some are given one by one, some have a word that the code has for something
else, and `from` cannot be a field."""


def option_name(field: str) -> str:
    """Return the name of a field's option, without hyphens before it."""
    return _OPTIONS.get(field, field.replace("_", "-"))


MapOptions = Annotated[MapPictures, Parameter(name="*")]
TESTING = Parameter(group=Group("How images are tested", sort_key=1))
"""Group of a verb's own options; groups that verbs share follow, and options without a group come first."""
FIRST_GROUP = Group("Parameters", sort_key=0)

RunFolderOptions = Annotated[RunFolder, Parameter(name="*")]
TestOutputOptions = Annotated[TestOutputs, Parameter(name="*")]
PredictionOutputOptions = Annotated[PredictionOutputs, Parameter(name="*")]
BoxFileOptions = Annotated[BoxOptions, Parameter(name="*", group=Group("Boxes", sort_key=1))]
DescriptorOptions = Annotated[Descriptor, Parameter(name="*", group=Group("Descriptor", sort_key=1))]
ExportFileOptions = Annotated[
    ExportOptions, Parameter(name="*", negative=(), group=Group("Networks (onnx, openvino, ncnn, torch)", sort_key=1))
]
ExecutionOptions = Annotated[Execution, Parameter(name="*", group=Group("Execution", sort_key=4))]
FullTestOptions = Annotated[
    FullProcedure, Parameter(name="*", group=Group("Full test", sort_key=1), name_transform=option_name)
]
GridOptions = Annotated[Grid, Parameter(name="*", group=Group("Grid", sort_key=1), name_transform=option_name)]
ImageOptions = Annotated[Tolerance, Parameter(name="*", group=Group("Images", sort_key=3))]
TakenOptions = Annotated[TakenWeights, Parameter(name="*", group=Group("What is taken", sort_key=1), n_tokens=1)]
PreprocessingOptions = Annotated[
    TrainedPreprocessing, Parameter(name="*", group=Group("Preprocessing", sort_key=1), n_tokens=1)
]
RecipeChangeOptions = Annotated[
    RecipeChanges,
    Parameter(
        name="*",
        group=Group(
            "Recipe (by default the paper's, or with --quick a small one)", sort_key=1, help_formatter=common_first
        ),
    ),
]
RecipeOptions = Annotated[
    Recipe,
    Parameter(
        name="*",
        group=Group("Recipe (defaults are the paper's)", sort_key=1, help_formatter=common_first),
        name_transform=option_name,
    ),
]
RuntimeOptions = Annotated[Runtime, Parameter(name="*", group=Group("Runtime", sort_key=2))]
TransferTestOptions = Annotated[TransferOptions, Parameter(name="*", group=Group("Descriptor and splits", sort_key=1))]


def _shown_default(value: object) -> str | None:
    """Return a default as `--help` shows it: lists as they are typed, nothing where there is no default."""
    if isinstance(value, tuple):
        return ",".join(map(str, value)) or None
    return None if value is None else str(value)


EVERY_OPTION = Parameter(show_default=_shown_default, negative_iterable=(), consume_multiple=False)
"""For `App.default_parameter`."""


def options_file(tokens: Sequence[str]) -> tuple[Toml, ...]:
    """Return the file of options that a command line names, for `App.config`; nothing if there is no such file.

    Raises:
        ValueError: it is not TOML, it names another file of options, or it has a table, which would not be read.
    """
    pairs = itertools.zip_longest(tokens, tokens[1:], fillvalue="")
    given = {option: value or next_one for token, next_one in pairs for option, _, value in [token.partition("=")]}
    file = os.path.expanduser(given.get("--config", ""))
    if not Path(file).is_file():  # the verb refuses it
        return ()
    options = read_toml(file)
    if "config" in options:
        raise ValueError(f"{file} names another file of options: only the one on the command line is read")
    if tables := [name for name, value in options.items() if isinstance(value, dict)]:
        raise ValueError(f"{file} has a table [{tables[0]}]: write options without one, learning_rate = 0.005")
    return (Toml(file, use_commands_as_keys=False),)


def split_lists(_app: App, _commands: Sequence[str], arguments: ArgumentCollection) -> None:
    """Split the values of options that take lists at commas, `256,384`; for `App.config`.

    Raises:
        ValueError: an option that takes numbers is given something else.
    """
    for argument in arguments:
        kind = _list_kind(argument.hint)
        if kind is not None and argument.index is None:
            words = [word for hint in get_args(argument.hint) if get_origin(hint) is Literal for word in get_args(hint)]
            values = [
                (token, value)
                for token in argument.tokens
                for value in ([token.value] if token.value in words else _values(argument.name, token.value, kind))
            ]
            argument.tokens = [token.evolve(value=value, index=at) for at, (token, value) in enumerate(values)]


def _list_kind(hint: Any) -> type | None:
    """Return the type of a list's values that are separated by commas, str, int or float; None for anything else."""
    for part in (hint, *get_args(hint)):
        held = {str if get_origin(one) is Literal else one for one in get_args(part)} - {Ellipsis}
        if get_origin(part) in (tuple, Sequence) and held in ({str}, {int}, {float}):
            return held.pop()
    return None


def _values(option: str, text: str, kind: type) -> list[str]:
    if kind is str:
        return [part for part in text.split(",") if part]
    try:
        numbers = [int(part) if kind is int else float(Fraction(part.strip())) for part in text.split(",")]
    except (ValueError, ZeroDivisionError, OverflowError):
        numbers = []
    if not numbers or (kind is float and len(numbers) != len(get_args(Triple))):
        which = "whole" if kind is int else "three"
        raise ValueError(f"{option} takes {which} numbers separated by commas, not {text!r}")
    return list(map(repr, numbers))


def refuse_fractions(_app: App, _commands: Sequence[str], arguments: ArgumentCollection) -> None:
    """Refuse fractions where a whole number is expected, which the library would round; for `App.config`.

    Raises:
        ValueError: an option that takes a whole number is given a fraction, in a file of options too.
    """
    for argument in arguments:
        kinds = (argument.hint, *get_args(argument.hint))
        if int in kinds and float not in kinds:
            for token in argument.tokens:
                if "." in token.value:
                    raise ValueError(f"{argument.name} is a whole number, not {token.value}")
