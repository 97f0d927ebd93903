"""Options of `train` that follow from others: from the RUN or WEIGHTS to go on from, --quick, and the run to resume."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, fields
from pathlib import Path
from typing import Annotated, Any

from cyclopts import App, ArgumentCollection, Parameter, Token

from verydeep.images.sources.default import DIGITS
from verydeep.machine.errors import say
from verydeep.machine.torchrun import rank_of_environment
from verydeep.numbers import trimmed
from verydeep.training.recipe import Recipe

QUICK: Mapping[str, Any] = {
    "network": "A",
    "crop": 64,
    "width": 0.25,
    "batch": 32,
    "learning_rate": 2.5e-3,
    "epochs": 40,
}
"""A training of minutes on a CPU, for a few hundred photographs."""

QuickOption = Annotated[
    bool,
    Parameter(
        help=f"Train a small network in minutes: {QUICK['network']} at crop {QUICK['crop']} and width "
        f"{trimmed(QUICK['width'])}, batch {QUICK['batch']}, learning rate {trimmed(QUICK['learning_rate'])} and "
        f"{QUICK['epochs']} epochs, unless told otherwise."
    ),
]

_STARTS = {"--finetune": "finetune", "--from": "weights"}
"""Options that name the RUN or WEIGHTS to go on from, and their fields of `Recipe`."""

_OFF = {"no", "n", "0", "false", "f"}
"""Values that Cyclopts reads as false."""


def follow_from_start(_app: App, commands: Sequence[str], arguments: ArgumentCollection) -> None:
    """Give options that are not given the values that follow from --from, --finetune, --quick and --resume alone.

    A function for `App.config`.

    Raises:
        ValueError: unusable weights, no run to resume, or both --quick and a start, which has a size of its own.
        OSError: the weights cannot be read.
    """
    if not commands or commands[-1] != "train":
        return
    given = {argument.name: argument.tokens for argument in arguments if argument.tokens}
    start = {field: given[option][-1].value for option, field in _STARTS.items() if option in given}
    quick = "--quick" in given and _is_on(given["--quick"][-1])
    if quick and start:
        raise ValueError("--quick begins with random weights: leave it out, or leave out --from and --finetune")
    follows = _quick(given) if quick else _from_start(start, given) if start else {}
    if commands[0] == "train" and not (quick or start):
        follows = _from_run(given)
    for argument in arguments:
        if not argument.tokens and argument.name in follows:
            argument.tokens = [Token(keyword=argument.name, value=str(follows[argument.name]), source="follows")]


def _quick(given: Mapping[str, Sequence[Token]]) -> dict[str, Any]:
    """Return the options of --quick; digits are not mirrored, since the mirror image of a digit is not a digit."""
    source = given["--source"][-1].value if "--source" in given else DIGITS
    return {_option(name): value for name, value in QUICK.items()} | ({"--flip": False} if source == DIGITS else {})


def _from_run(given: Mapping[str, Sequence[Token]]) -> dict[str, Any]:
    """Return all options of the run that is resumed, if none is given of those that have to be as before.

    Where any of them is given, all are: a training is not resumed with settings that its command line hides.
    """
    settings = {"--network", "--held-out", *(_option(field.name) for field in fields(Recipe))} & given.keys()
    if not _resumes(given) or "--network" in settings:
        return {}
    from verydeep.runs.record import is_finished
    from verydeep.training.start import begun_by_train, options_begun_by

    out = Path(given["--out"][-1].value)
    record = begun_by_train(out)
    finished = is_finished(out)
    if settings:
        longer = f", or train further in another folder with --finetune {out}" if finished else ""
        options = ", ".join(sorted(settings))
        raise ValueError(f"{out} goes on with all settings as they were: leave out {options}{longer}")
    follows = {_option(name): value for name, value in options_begun_by(record).items() if value is not None}
    named = "" if "--source" in given else f", on the images of {record.source} (moved ones may be named as SOURCE)"
    if not rank_of_environment():
        say(f"{out} is finished" if finished else f"{out} goes on as it was begun{named}")
    return follows


def _resumes(given: Mapping[str, Sequence[Token]]) -> bool:
    return "--resume" in given and _is_on(given["--resume"][-1]) and "--out" in given


def _from_start(start: Mapping[str, str], given: Mapping[str, Sequence[Token]]) -> dict[str, Any]:
    from verydeep.training.start import FEW_PHOTOGRAPHS, fitting, options_begun_with, options_from_start

    recipe = Recipe(finetune=start.get("finetune"), weights=start.get("weights"))
    taken_over = options_begun_with(Path(given["--out"][-1].value), recipe) if _resumes(given) else None
    taken_over = taken_over or options_from_start(recipe)
    follows = {} if taken_over is None else asdict(taken_over)
    if "weights" in start:
        names = {option.removeprefix("--").replace("-", "_"): tokens[-1].value for option, tokens in given.items()}
        follows |= fitting(FEW_PHOTOGRAPHS, names)
    return {_option(name): value for name, value in follows.items()}


def _option(field: str) -> str:
    named = {name: option for option, name in _STARTS.items()}
    return named.get(field, f"--{field.replace('_', '-')}")


def _is_on(token: Token) -> bool:
    """Return whether a flag is given as such, and not as `--no-...`, `--quick=no` or false in a file of options."""
    return token.value.lower() not in _OFF and token.implicit_value is not False
