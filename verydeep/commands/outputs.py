"""Outputs beside inputs: those that would replace an input, or lie among the images, are refused before any work."""

import itertools
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from cyclopts import App, ArgumentCollection

from verydeep.exported_networks.formats import files_of
from verydeep.machine.atomic import followed
from verydeep.machine.errors import say
from verydeep.machine.torchrun import rank_of_environment
from verydeep.presentation.report_files import EVALUATION, LOCALISATION, TRANSFER

_FILES, _FOLDERS = ("--json", "--predictions", "--plot"), ("--report", "--map", "--draw")
OUTPUTS = frozenset({"--out", *_FILES, *_FOLDERS})
"""Options that name outputs."""

_WITH_FILE_AS_OUT = ("export", "features", "predict")
"""Verbs whose `--out` is a file; that of others is a folder."""

_POSITIONAL_INPUTS = {"--source", "--run", "RUNS", "--weights", "IMAGES", "--first", "--second", "--folder"}
_STARTS = {"--init", "--finetune", "--from"}
_FILES_READ = {"--class-names", "--config", "--labels", "--test-images", "--boxes"}
INPUTS = frozenset({*_POSITIONAL_INPUTS, *_STARTS, *_FILES_READ, "--data", "--classifier"})
"""Arguments and options that may name inputs."""

_HOW_MADE = {"--method": "--map", "--language": "--report"}
"""Options that say how an output is made, a folder, and the option that asks for it; some verbs make it anyway."""

_WRITTEN_AGAIN = (
    ".json",
    ".jsonl",
    ".csv",
    ".parquet",
    ".safetensors",
    ".onnx",
    ".xml",
    ".param",
    ".pt2",
    ".pth",
    ".pt",
)
"""Endings of files that an earlier command may have left beside images, and that may be replaced."""


def refuse_overwriting(_app: App, commands: Sequence[str], arguments: ArgumentCollection) -> None:
    """Refuse outputs that would replace inputs, each other or a run's own files, or lie among images; for `App.config`.

    Raises:
        ValueError: one would; the message names it and what it would do.
    """
    outputs = list(_paths(arguments, OUTPUTS))
    exported = [path for option, path in outputs if option == "--out"] if commands and commands[-1] == "export" else []
    outputs += [("--out", beside) for path in exported for beside in files_of(path)[1:]]
    own = {beside for path in exported if path.is_file() for beside in files_of(path)}
    inputs = [path for _, path in _paths(arguments, INPUTS) if path.exists()]
    files = (*_FILES, *(("--out",) if commands and commands[-1] in _WITH_FILE_AS_OUT else ()))
    for (one, first), (other, second) in itertools.permutations(outputs, 2):
        if followed(first) == followed(second) and not _is_stream(first):
            raise ValueError(f"{first} cannot hold both {one} and {other}: name another file")
        if (inside := _within(second, first)) and inside[0] in _names_written_by(one):
            raise ValueError(f"{other} {second} is one of {first}'s own files: name another")
    for option, output in outputs:
        for read in inputs:
            if harm := _harm(output, read, is_file=option in files, is_own=output in own):
                raise ValueError(f"{option} {output} {harm}: name another place")


def refuse_without_output(_app: App, _commands: Sequence[str], arguments: ArgumentCollection) -> None:
    """Refuse options that say how an output is made where that output is not asked for; for `App.config`.

    Raises:
        ValueError: one is given alone; the message names the option that it goes with.
    """
    given = {argument.name for argument in arguments if argument.tokens}
    there = {argument.name for argument in arguments}
    for option, output in _HOW_MADE.items():
        if option in given and output in there - given:
            raise ValueError(f"{option} goes with {output}: add {output} FOLDER, or leave out {option}")


def say_replaced(*outputs: Path | None) -> None:
    """Say which outputs are there already, and what becomes of them; in the first process only."""
    for path in outputs:
        if path is not None and path.is_file() and not rank_of_environment():
            say(f"{path} already exists and will be replaced, unless this fails before")


def _paths(arguments: ArgumentCollection, names: frozenset[str]) -> Iterator[tuple[str, Path]]:
    for argument in arguments:
        if argument.name in names:
            yield from ((argument.name, Path(token.value)) for token in argument.tokens if token.value != "-")


def _harm(output: Path, read: Path, *, is_file: bool, is_own: bool) -> str | None:
    """Say what harm an output, which is a file of the same export that is made again or not, would do to an input.

    None if it does none.
    """
    if followed(output) == followed(read):
        return None if _is_stream(output) else "would replace an input"
    inside = _within(output, read)
    if not inside or (output.is_file() and not is_file):  # the verb says that it is not a folder
        return None
    if any((read / name).is_file() for name in _own_names()):
        return f"is one of {read}'s own files" if inside[0] in _names_written_by("--out") else None
    if is_file and len(inside) == 1:
        foreign = output.is_file() and not is_own and output.suffix.lower() not in _WRITTEN_AGAIN
        return f"would replace a file of {read}" if foreign else None
    splits = _split_names() & set(os.listdir(read))
    return f"would lie among the images of {read}" if not splits or inside[0] in splits else None


def _names_written_by(option: str) -> set[str]:
    """Return names in the folder of an output, of files and folders in which another output must not replace any."""
    from verydeep.reproduction.files import EVALUATIONS, HTML, MARKDOWN, RUNS, STUDIES

    if option == "--report":
        return {*EVALUATION, *LOCALISATION, *TRANSFER}
    return {*_own_names(), HTML, MARKDOWN, RUNS, EVALUATIONS, STUDIES} if option == "--out" else set()


def _own_names() -> set[str]:
    """Return names that tell the folders of runs, models, classifiers and experiments, whose files are read later."""
    from verydeep.reproduction.files import OUTCOMES, PLAN, RESULTS
    from verydeep.runs import files

    run = {files.RECORD, files.METRICS, files.CHECKPOINTS, files.MODEL, files.QUARANTINE, files.TENSORBOARD, files.BEST}
    return run | {files.NORMS, files.CONFIG, files.WEIGHTS, files.CLASSIFIER, PLAN, RESULTS, OUTCOMES}


def _split_names() -> frozenset[str]:
    from verydeep.images.sources.splits import SPLIT_NAMES

    return SPLIT_NAMES


def _within(inner: Path, outer: Path) -> tuple[str, ...]:
    """Return the parts of a path below another one; none if it does not lie there."""
    one, two = followed(inner), followed(outer)
    return one.relative_to(two).parts if one.is_relative_to(two) else ()


def _is_stream(path: Path) -> bool:
    """Return whether there is a device or a pipe, which is written to, not replaced."""
    return path.exists() and not path.is_file() and not path.is_dir()
