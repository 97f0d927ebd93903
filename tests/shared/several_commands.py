"""Command lines on several processes: torchrun starts this file with a list of them."""

import json
import os
import sys
from contextlib import contextmanager
from pathlib import Path
from unittest.mock import patch

import several_processes
import torch

import verydeep.descriptors.extraction
from verydeep.cli import main


@contextmanager
def images_at_once(number):
    """Put so many images into a chunk of a file of features."""
    with patch.object(verydeep.descriptors.extraction, "IMAGES_AT_ONCE_ON_CPU", number):
        yield


def together(processes, commands, folder, *, images_at_once):
    """Run command lines one after the other; return the exit statuses of each, by rank, and what was printed."""
    file = Path(folder) / "commands.json"
    file.write_text(json.dumps([list(map(str, command)) for command in commands]))
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes)]
    status, said, _ = several_processes.started([*launcher, __file__, str(file), str(images_at_once)], 100)
    assert status == 0, said
    by_rank = [json.loads(file.with_suffix(f".{rank}.json").read_text()) for rank in range(processes)]
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


if __name__ == "__main__":
    torch.set_num_threads(1)
    place = Path(sys.argv[1])
    with images_at_once(int(sys.argv[2])):
        found = [status_of(*command) for command in json.loads(place.read_text())]
    place.with_suffix(f".{os.environ['RANK']}.json").write_text(json.dumps(found))
