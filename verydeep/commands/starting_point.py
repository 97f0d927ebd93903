"""Options of `train` that follow from others: from the RUN or WEIGHTS to go on from, and from --quick."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

from cyclopts import App, ArgumentCollection, Parameter, Token

from verydeep.images.sources.default import DIGITS
from verydeep.numbers import trimmed

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
    """Give options that are not given the values that follow from --from, --finetune and --quick; for `App.config`.

    Raises:
        ValueError: unusable weights, or both --quick and a start, which has a size of its own.
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
    for argument in arguments:
        if not argument.tokens and argument.name in follows:
            argument.tokens = [Token(keyword=argument.name, value=str(follows[argument.name]), source="follows")]


def _quick(given: Mapping[str, Sequence[Token]]) -> dict[str, Any]:
    """Return the options of --quick; digits are not mirrored, since the mirror image of a digit is not a digit."""
    source = given["--source"][-1].value if "--source" in given else DIGITS
    return {_option(name): value for name, value in QUICK.items()} | ({"--flip": False} if source == DIGITS else {})


def _from_start(start: Mapping[str, str], given: Mapping[str, Sequence[Token]]) -> dict[str, Any]:
    from verydeep.training.recipe import Recipe
    from verydeep.training.start import FEW_PHOTOGRAPHS, fitting, options_begun_with, options_from_start

    recipe = Recipe(finetune=start.get("finetune"), weights=start.get("weights"))
    resumes = "--resume" in given and _is_on(given["--resume"][-1]) and "--out" in given
    taken_over = options_begun_with(Path(given["--out"][-1].value), recipe) if resumes else None
    taken_over = taken_over or options_from_start(recipe)
    follows = {} if taken_over is None else asdict(taken_over)
    if "weights" in start:
        names = {option.removeprefix("--").replace("-", "_"): tokens[-1].value for option, tokens in given.items()}
        follows |= fitting(FEW_PHOTOGRAPHS, names)
    return {_option(name): value for name, value in follows.items()}


def _option(field: str) -> str:
    return f"--{field.replace('_', '-')}"


def _is_on(token: Token) -> bool:
    """Return whether a flag is given as such, and not as `--no-...`, `--quick=no` or false in a file of options."""
    return token.value.lower() not in _OFF and token.implicit_value is not False
