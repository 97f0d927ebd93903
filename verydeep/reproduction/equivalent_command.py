"""An experiment in one line: the command line that is equivalent to a call in Python."""

import dataclasses
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

from verydeep.images.sources.splits import Splits
from verydeep.presentation.translation import DEFAULT_LANGUAGE, Language
from verydeep.reproduction.grid import GRID_OPTIONS, Jobs
from verydeep.training.recipe import Recipe

_NO_OPTIONS = ("scale", "init_rest", "finetune", "weights", "freeze", "trainable", "views", "class_weights", "balanced")
"""Fields of the recipe that `verydeep reproduce` has no option for."""

_CALL = "verydeep.reproduce("
"""How a call in Python begins. No command line does: a shell's quotes stand before and after a bracket."""


def equivalent_command(
    source: str | Path | Splits, out: Path, *settings: Any, jobs: Jobs = None, language: Language = DEFAULT_LANGUAGE
) -> str:
    """Return the command line of `verydeep reproduce` with these settings; if there is none, the call in Python.

    There is none for images that were opened before, or for a recipe with settings that are not options.

    Args:
        source: SOURCE, or its splits.
        out: folder of the experiment.
        settings: dataclasses of options; those with their default are left out.
        jobs: trainings at once, if that was said.
        language: language of the report.
    """
    changed = {type(one).__name__: _changed(one) for one in settings}
    further: dict[str, object] = {"jobs": jobs} if jobs else {}
    if language != DEFAULT_LANGUAGE:
        further["language"] = language
    if isinstance(source, Splits) or changed.get(Recipe.__name__, {}).keys() & set(_NO_OPTIONS):
        images = f"<splits of {source.name!r}>" if isinstance(source, Splits) else repr(str(source))
        values = [
            f"{kind.lower()}=verydeep.{kind}({', '.join(f'{field}={value!r}' for field, value in its.items())})"
            for kind, its in changed.items()
            if its
        ]
        values += [f"{name}={value!r}" for name, value in further.items()]
        return f"{_CALL}{', '.join([images, f'out={str(out)!r}', *values])})"
    words = [word for its in (*changed.values(), further) for word in _options(its)]
    return shlex.join(["verydeep", "reproduce", str(source), "--out", str(out), *words])


def with_options(command: str, given: Any, wanted: Any) -> str:
    """Return a command line of `verydeep reproduce` with options in which one dataclass differs from that given."""
    words = _options({name: getattr(wanted, name) for name in differing(given, wanted)})
    return " ".join([command, *([shlex.join(words)] if words else [])])


def differing(one: Any, other: Any) -> list[str]:
    """Return the names of the fields in which two dataclasses of a kind differ."""
    return [field.name for field in dataclasses.fields(one) if getattr(one, field.name) != getattr(other, field.name)]


def is_call(command: str) -> bool:
    """Return whether the recorded command of an experiment is a call in Python."""
    return command.startswith(_CALL)


def _changed(settings: Any) -> dict[str, Any]:
    """Return the fields whose values are not their defaults."""
    fields = dataclasses.fields(settings)
    return {one.name: value for one in fields if (value := getattr(settings, one.name)) != one.default}


def _options(values: Mapping[str, object]) -> list[str]:
    return [word for field, value in values.items() for word in _option(field, value)]


def _option(field: str, value: object) -> Sequence[str]:
    name = GRID_OPTIONS.get(field, field.replace("_", "-"))
    if field == "studies":
        return [word for study in cast(tuple[str, ...], value) for word in (f"--{name}", study)]
    if isinstance(value, bool):
        return [f"--{name}" if value else f"--no-{name}"]
    return [f"--{name}", ",".join(map(str, value)) if isinstance(value, tuple | list) else str(value)]
