"""Command lines in this process, and on several: `several_processes.forked` calls this file with a list of them."""

import json
import os
from contextlib import contextmanager
from pathlib import Path
from unittest.mock import patch

import several_processes

import verydeep.descriptors.extraction
from verydeep.cli import main


@contextmanager
def images_at_once(number):
    """Put so many images into a chunk of a file of features."""
    with patch.object(verydeep.descriptors.extraction, "IMAGES_AT_ONCE_ON_CPU", number):
        yield


def together(python, processes, commands, folder, *, images_at_once):
    """Run command lines one after the other; return the exit statuses of each, by rank, and what was printed."""
    folder = Path(folder)
    jobs = {"commands": [list(map(str, each)) for each in commands], "at_once": images_at_once, "out": str(folder)}
    status, said, _ = several_processes.forked(python, processes, jobs, folder, module=__name__, work="run_all")
    assert status == 0, said
    by_rank = [json.loads((folder / f"statuses.{rank}.json").read_text()) for rank in range(processes)]
    return list(zip(*by_rank, strict=True)), said


def status_of(*arguments):
    """Return the exit status of a command line."""
    try:
        main(list(map(str, arguments)))
    except SystemExit as left:
        return left.code or 0
    return 0


def refusal(capsys, *arguments):
    """Return the single line that refuses wrong use."""
    assert status_of(*arguments) == 2
    error = capsys.readouterr().err
    assert error.startswith("verydeep: ")
    assert error.count("\n") == 1
    return error


def run_all(jobs):
    with images_at_once(jobs["at_once"]):
        statuses = [status_of(*command) for command in jobs["commands"]]
    (Path(jobs["out"]) / f"statuses.{os.environ['RANK']}.json").write_text(json.dumps(statuses))
