"""Options as the command line takes them: groups, images, files that can be written, files of options, numbers."""

import itertools
import os
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, get_args

from cyclopts import App, ArgumentCollection, Parameter
from cyclopts.config import Toml

from verydeep.evaluation.protocols import Scales
from verydeep.images.tolerance import Tolerance
from verydeep.machine.runtime import Execution, Runtime
from verydeep.training.recipe import Recipe

RecipeOptions = Annotated[Recipe, Parameter(name="*", group="Recipe (defaults are the paper's)")]
ImageOptions = Annotated[Tolerance, Parameter(name="*", group="Images")]
RuntimeOptions = Annotated[Runtime, Parameter(name="*", group="Runtime")]
ExecutionOptions = Annotated[Execution, Parameter(name="*", group="Execution")]


@dataclass(frozen=True, kw_only=True)
class RecipeChanges:
    """What a whole grid may have otherwise than the recipe that it stands on; None leaves it."""

    crop: int | None = None
    """Side of the input in pixels, a multiple of 32."""

    width: float | None = None
    """Factor on the channels of every hidden layer."""

    batch: int | None = None
    """Images per step."""

    learning_rate: float | None = None
    """At the start of the trainings at S = 256; a tenth of it for those that go on from them."""

    epochs: int | None = None
    """At most, for each network."""

    patience: int | None = None
    """Epochs without a new best validation error after which the rate is lowered."""

    seed: int | None = None
    """The first; others count on from it."""

    def applied(self, recipe: Recipe) -> Recipe:
        """The recipe with these changes."""
        return replace(recipe, **{name: value for name, value in vars(self).items() if value is not None})


ChangeOptions = Annotated[RecipeChanges, Parameter(name="*", group="Recipe (where not said, the paper's, or quick's)")]


def _file_or_hyphen(_kind: object, value: Path | None) -> None:
    """Refuses, before any work, what is neither `-` (standard output) nor a place where a file can be written."""
    if value is None or str(value) == "-":
        return
    if str(value).startswith("-"):
        raise ValueError("name a file, or - for standard output")
    if value.is_dir():
        raise ValueError(f"{value} is a folder: name a file in it")
    if not value.parent.is_dir():
        raise ValueError(f"there is no folder {value.parent}")


def _file(kind: object, value: Path | None) -> None:
    """The same for what can only be a file."""
    if str(value) == "-":
        raise ValueError("name a file: it is not written to standard output")
    _file_or_hyphen(kind, value)


def _folder(_kind: object, value: Path | None) -> None:
    """Refuses, before any work, what cannot become a folder."""
    if value is None:
        return
    above = next(folder for folder in (value, *value.absolute().parents) if folder.exists())
    if not above.is_dir():
        raise ValueError(f"{above} is a file: name a folder")
    if not os.access(above, os.W_OK):
        raise ValueError(f"nothing can be written in {above}")


def _toml_file(_kind: object, value: Path | None) -> None:
    if value is not None and not value.is_file():
        raise ValueError(f"there is no file {value}")


ConfigFile = Annotated[Path | None, Parameter(name="--config", validator=_toml_file)]
"""Read by `main`, before a verb's own options."""

BoxFiles = Annotated[list[Path], Parameter(negative="", consume_multiple=False)]
"""An option that may come several times."""

OutputFile = Annotated[Path | None, Parameter(validator=_file)]
RequiredFile = Annotated[Path, Parameter(validator=_file)]
OutputFolder = Annotated[Path | None, Parameter(validator=_folder)]
JsonFile = Annotated[Path | None, Parameter(name="--json", allow_leading_hyphen=True, validator=_file_or_hyphen)]
ImageArgument = Annotated[Path, Parameter(json_list=False, allow_leading_hyphen=True)]
LinesFile = Annotated[Path | None, Parameter(allow_leading_hyphen=True, validator=_file_or_hyphen)]


def options_file(tokens: Sequence[str]) -> tuple[Toml, ...]:
    """The file of options that a command line names, for `App.config`; nothing if it names none.

    Raises:
        ValueError: not TOML, or it names another file of options.
    """
    pairs = itertools.zip_longest(tokens, tokens[1:], fillvalue="")
    given = {option: value or next_one for token, next_one in pairs for option, _, value in [token.partition("=")]}
    file = given.get("--config", "")
    if not Path(file).is_file():  # the verb refuses it
        return ()
    try:
        table = tomllib.loads(Path(file).read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{file} is not TOML: {error}") from error
    if "config" in table:
        raise ValueError(f"{file} names another file of options: one is read, the one on the command line")
    return (Toml(file, use_commands_as_keys=False),)


def refuse_fractions(_app: App, _commands: Sequence[str], arguments: ArgumentCollection) -> None:
    """The library would round them; the last part of `App.config`, when all arguments of a verb are known.

    Raises:
        ValueError: a fraction for what takes whole numbers, on the command line or in a file of options.
    """
    for argument in arguments:
        kinds = (argument.hint, *get_args(argument.hint))
        if int in kinds and float not in kinds:
            for token in argument.tokens:
                if "." in token.value:
                    raise ValueError(f"{argument.name} is a whole number, not {token.value}")


def whole_numbers(text: str, option: str) -> list[int]:
    """`256,384` as numbers.

    Raises:
        ValueError: something else.
    """
    try:
        return [int(part) for part in text.split(",")]
    except ValueError:
        raise ValueError(f"{option} takes whole numbers with commas between them, not {text!r}") from None


def named_scales(text: str) -> list[int] | Scales:
    """`paper`, `single`, or `256,384` as numbers.

    Raises:
        ValueError: something else.
    """
    named = next((name for name in get_args(Scales) if name == text), None)
    return named or whole_numbers(text, "--scales")
