"""Options of a verb as words of the command that it names as the next one."""

from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

from verydeep.commands.options import option_name


def given_options(options: Any) -> list[Path | str]:
    """Return the words that give a group of options its values once more; those at their defaults are left out."""
    values = [(option_name(field.name), getattr(options, field.name), field.default) for field in fields(options)]
    return [word for name, value, default in values if value != default for word in _words(f"--{name}", value)]


def _words(option: str, value: Any) -> list[Path | str]:
    if value is True:
        return [option]
    if isinstance(value, Path | str) or not isinstance(value, Sequence):
        return [option, value if isinstance(value, Path) else str(value)]
    if all(isinstance(one, int) for one in value):
        return [option, ",".join(map(str, value))]
    return [word for one in value for word in (option, one)]
