"""What the command line's library leaves to us: files of options, and whole numbers that are whole."""

import itertools
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import fields
from pathlib import Path

from cyclopts.config import Toml

from verydeep.images.tolerance import Tolerance
from verydeep.runtime import Execution, Runtime
from verydeep.training.recipe import Recipe


def options_file(tokens: Sequence[str]) -> tuple[Toml, ...]:
    """The file of options that a command line names, for `App.config`; nothing if it names none.

    Raises:
        ValueError: not TOML, or a fraction for an option that takes whole numbers, there or on the command line.
    """
    pairs = itertools.zip_longest(tokens, tokens[1:], fillvalue="")
    given = {option: value or next_one for token, next_one in pairs for option, _, value in [token.partition("=")]}
    _refuse_fractions(given)
    file = given.get("--config", "")
    if not Path(file).is_file():  # the verb refuses it
        return ()
    try:
        table = tomllib.loads(Path(file).read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{file} is not TOML: {error}") from error
    if "config" in table:
        raise ValueError(f"{file} names another file of options: one is read, the one on the command line")
    _refuse_fractions({f"--{key.replace('_', '-')}": str(value) for key, value in table.items()})
    return (Toml(file, use_commands_as_keys=False),)


def _refuse_fractions(options: Mapping[str, str]) -> None:
    """The library would round them."""
    for settings in (Recipe, Execution, Runtime, Tolerance):
        for field in fields(settings):
            option = f"--{field.name.replace('_', '-')}"
            if field.type in (int, int | None) and "." in options.get(option, ""):
                raise ValueError(f"{option} is a whole number, not {options[option]}")
