"""Options that a training takes over: from the RUN or WEIGHTS that it goes on from, or from the run that is resumed."""

import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from functools import lru_cache
from pathlib import Path
from typing import Any

from verydeep.images.tolerance import Tolerance
from verydeep.machine.regular_files import file_stamp
from verydeep.machine.runtime import Execution, Runtime
from verydeep.networks.architecture import Architecture
from verydeep.networks.foreign.layouts import TakenWeights, TrainedPreprocessing
from verydeep.runs.import_weights import read_model, weights_files
from verydeep.runs.model import Model, load_config
from verydeep.runs.record import Record, has_record, is_begun, read_record
from verydeep.training.recipe import Recipe, network_asked_for, recipe_from

FEW_PHOTOGRAPHS: Mapping[str, Any] = {
    "trainable": "fc",
    "views": 2,
    "batch": 32,
    "epochs": 12,
    "schedule": "cosine",
}
"""Options for few photographs on a CPU, for a training from WEIGHTS: the convolutional layers see each view once."""

IMPORTED = "was imported, so there is nothing to resume: go on from it with --finetune"
"""The end of a message about a run."""

_OPTIONS_OF_IMPORT = {
    f"--{field.name.replace('_', '-')}" for options in (TrainedPreprocessing, TakenWeights) for field in fields(options)
}
"""Options of import, for facts that a file of weights may lack."""


@dataclass(frozen=True, kw_only=True)
class StartOptions:
    """Options that are taken over from a RUN or WEIGHTS: its network, and fields of `Recipe`."""

    network: str
    crop: int
    width: float
    batch_norm: bool
    scale: str
    flip: bool

    @property
    def recipe_fields(self) -> dict[str, Any]:
        """The fields of `Recipe` among them."""
        return {name: value for name, value in vars(self).items() if name != "network"}


def options_from_start(recipe: Recipe) -> StartOptions | None:
    """Return the options of the RUN or WEIGHTS that a recipe goes on from; None if it goes on from none.

    Raises:
        ValueError: there is no such run, or no such weights.
        OSError: the file cannot be read, or the hub cannot be reached.
    """
    if recipe.taken_over is None:
        return None
    if recipe.weights is None:
        config = load_config(recipe.taken_over)
        architecture, scale, flip = config.architecture, config.scale, config.flip
    else:
        model = _model(recipe.weights)
        architecture, scale, flip = model.net.architecture, model.scale, model.flip
    return StartOptions(
        network=architecture.network,
        crop=architecture.crop,
        width=architecture.width,
        batch_norm=architecture.batch_norm,
        scale=scale,
        flip=flip,
    )


def network_of(network: str | None, recipe: Recipe, out: Path) -> str:
    """Return the network's name in the paper; if none is given that of the RUN or WEIGHTS that a recipe goes on from.

    If `out` was begun from there, those need not be there any more.

    Raises:
        ValueError: there is no such network, run or weights, or they are of another network than is asked for.
        OSError: the weights cannot be read.
    """
    named = network_asked_for(network, recipe)
    if recipe.taken_over is None:
        assert named is not None  # without a network there is something to go on from
        return named
    theirs = options_begun_with(out, recipe) or options_from_start(recipe)
    assert theirs is not None  # there is something to go on from
    check_goes_on(named or theirs.network, recipe, theirs)
    return theirs.network


def check_goes_on(network: str, recipe: Recipe, theirs: StartOptions | Architecture) -> None:
    """Check that the network to train is that of the RUN or WEIGHTS that the recipe goes on from.

    Raises:
        ValueError: network, crop, width or batch normalisation differ.
    """
    ours = _network_options(network, recipe)
    if (begun := _network_options(theirs.network, theirs)) != ours:
        shallower = theirs.network == "A" != network and recipe.finetune
        copied = f", or --init {recipe.finetune}, which copies A's first layers" if shallower else ""
        start = recipe.taken_over
        raise ValueError(f"cannot go on from {start}, which is {begun}, with {ours}: give the same options{copied}")


def _network_options(network: str, options: StartOptions | Architecture | Recipe) -> str:
    norm = " --batch-norm" if options.batch_norm else ""
    return f"--network {network} --crop {options.crop} --width {options.width:g}{norm}"


def options_begun_with(out: Path, recipe: Recipe) -> StartOptions | None:
    """Return the result of `options_from_start` when a run was begun from where this recipe goes on.

    None if there is no such run. The weights that it went on from need not be there any more.

    Raises:
        ValueError: its record is damaged.
    """
    if not (has_record(out) and is_begun(out)):
        return None
    record = read_record(out)
    began = recipe_from(record.recipe)
    if (began.finetune, began.weights) != (recipe.finetune, recipe.weights):
        return None
    return StartOptions(
        network=record.network,
        crop=began.crop,
        width=began.width,
        batch_norm=began.batch_norm,
        scale=began.scale,
        flip=began.flip,
    )


def begun_by_train(out: Path) -> Record:
    """Read the record of a run that can be resumed.

    Raises:
        ValueError: there is no such run, its record is damaged or lacks settings, it was imported, or learns boxes.
    """
    if not has_record(out):
        raise ValueError(
            f"{out} has no training to go on with: say what to train there, SOURCE and --network, --quick or --from"
        )
    record = read_record(out)
    if record.imported is not None:
        raise ValueError(f"{out} {IMPORTED}")
    if record.regression is not None:
        raise ValueError(f"{out} learns boxes: repeat its command with --resume ({record.command})")
    if "max_bad" not in record.runtime and ("train_whole" in record.fingerprints or "--max-" in record.command):
        raise ValueError(
            f"{out} was begun by an earlier version, which did not note all settings: repeat its command with --resume "
            f"({record.command})"
        )
    return record


def options_begun_by(record: Record) -> dict[str, Any]:
    """Return what a training was begun with: its network, source and held_out, and fields of its options.

    These are `Recipe`, `Runtime`, `Execution` and `Tolerance`. Threads are left out: a process that resumes a training
    alone takes as many as the record has, if there are so many.

    Raises:
        ValueError: a newer version wrote its recipe.
    """
    computed = {field.name for options in (Runtime, Execution, Tolerance) for field in fields(options)} - {"threads"}
    return {
        "network": record.network,
        "source": record.source,
        "held_out": record.held_out,
        **asdict(recipe_from(record.recipe)),
        **{name: value for name, value in record.runtime.items() if name in computed},
    }


def starting_model(weights: str) -> Model:
    """Return the model of WEIGHTS; a file that was read for its options is not read again, nor kept any longer.

    Raises:
        ValueError: unusable weights.
        OSError: the file cannot be read, or the hub cannot be reached.
    """
    model = _model(weights)
    _read.cache_clear()
    return model


def _model(weights: str) -> Model:
    files = weights_files(weights)
    try:
        return _read(weights, tuple(map(file_stamp, files)))
    except ValueError as error:
        if not _OPTIONS_OF_IMPORT & set(re.findall(r"--[a-z-]+", str(error))):
            raise
        raise ValueError(f"{error} (options of verydeep import, whose run --from takes)") from error


@lru_cache(maxsize=1)
def _read(weights: str, _stamps: tuple[tuple[int, ...], ...]) -> Model:
    """Read a file, which may have half a GB, once for its options and for its weights, if nothing in it has changed."""
    return read_model(weights)[0].model


def recipe_from_weights(weights: str, **changes: Any) -> Recipe:
    """Return the recipe of `verydeep train --from WEIGHTS`, for `train`, with fields of `Recipe` changed.

    Raises:
        ValueError: unusable weights, or an impossible value.
        OSError: the file cannot be read, or the hub cannot be reached.
    """
    theirs = options_from_start(Recipe(weights=weights))
    taken = {} if theirs is None else theirs.recipe_fields
    return Recipe(**{"weights": weights, **taken, **fitting(FEW_PHOTOGRAPHS, changes), **changes})


def fitting(options: Mapping[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
    """Return the options that go with those that are given, of names as in `Recipe`.

    Where all layers learn, fixed views would save nothing.
    """
    left_out = {"trainable"} if "freeze" in given else set()
    if given.get("trainable") == "all":
        left_out.add("views")
    return {name: value for name, value in options.items() if name not in left_out | given.keys()}
