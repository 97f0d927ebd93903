"""Paths as they are typed: `~` is the user's folder; an empty text, and an address, are none."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import get_args

from cyclopts import UNSET, App, Argument, ArgumentCollection, Token

from verydeep.commands.other_tools import display_name
from verydeep.commands.outputs import INPUTS, OUTPUTS
from verydeep.machine.addresses import is_address


def expand_home(_app: App, _commands: Sequence[str], arguments: ArgumentCollection) -> None:
    """Replace `~` by the user's folder where no shell has: after a `=`, and in files of options; for `App.config`.

    A word that stands alone may be the name of a file `~`, which a shell put in place of a pattern.
    """
    for argument in arguments:
        argument.tokens = [
            token.evolve(value=os.path.expanduser(token.value))
            if token.value.startswith("~/") or (token.keyword and token.value.startswith("~"))
            else token
            for token in argument.tokens
        ]


def refuse_what_is_no_path(_app: App, _commands: Sequence[str], arguments: ArgumentCollection) -> None:
    """Refuse empty values, which would be the current folder, and addresses in place of paths; for `App.config`.

    Raises:
        ValueError: there is one; the message has it as it was typed.
    """
    for argument in arguments:
        for token in filter(_is_typed, argument.tokens):
            if not token.value:
                raise ValueError(f"{display_name(argument)} is empty: give it a value (is a shell variable unset?)")
            if _takes_paths(argument) and is_address(token.value):
                out = argument.name in OUTPUTS
                what = "name a place on this computer" if out else "download what is there, and name its file"
                raise ValueError(f"{token.value} is an address: {what}")


def _is_typed(token: Token) -> bool:
    """Return whether a value was typed; that of a flag follows from the option alone."""
    return token.implicit_value is UNSET


def _takes_paths(argument: Argument) -> bool:
    return argument.name in INPUTS | OUTPUTS or Path in (argument.hint, *get_args(argument.hint))
