"""Of two trainings into one folder one is refused, by the other's name; the folder of one that was killed is free."""

import itertools
import json
import os
import re
import signal
import socket

import pytest

from verydeep.runs.record import is_finished, read_metrics

TRAINING = """
import sys, time
from pathlib import Path
import tiny
from torch.optim.optimizer import register_optimizer_step_post_hook
from verydeep import train
from verydeep.machine.errors import one_line

out, resume, ready = sys.argv[1:]
def wait_for_the_other(*_):
    while not Path(ready).with_name("go").exists():
        time.sleep(0.001)

register_optimizer_step_post_hook(wait_for_the_other)
Path(ready).touch()
while len(list(Path(ready).parent.glob("ready-*"))) < 2:  # both begin together
    time.sleep(0.001)
try:
    train(tiny.splits(), network="A", out=out, recipe=tiny.recipe(2), resume=bool(resume))
except OSError as error:
    print(one_line(error), file=sys.stderr)
    sys.exit(1)
"""


@pytest.fixture
def pair(python, tmp_path):
    """Run two trainings that start at the same moment; return the one that trained, and what the other was told."""

    def start(number, out, *, resume, kill):
        ready = tmp_path / f"pair-{number}"
        ready.mkdir()
        both = [python(TRAINING, out, resume, ready / f"ready-{one}") for one in range(2)]
        winner, loser = next(
            (winner, loser) for winner, loser in itertools.cycle([both, both[::-1]]) if loser.wait(0.05) is not None
        )
        if not kill:
            (ready / "go").touch()
        else:
            os.kill(winner.pid, signal.SIGKILL)
        assert winner.wait() == (-signal.SIGKILL if kill else 0)
        return winner, loser.errors.strip()

    return start


def test_one_of_two_trainings_is_refused_and_a_killed_one_holds_nothing(pair, python, tmp_path, battery, figure):
    """Of each pair the winner is killed, or ends; two that resume are a pair as well."""
    times = 20 if battery else 2
    for number in range(times):
        out, resume = tmp_path / f"run-{number // 2}", "resume" if number % 2 else ""
        winner, told = pair(number, out, resume=resume, kill=not resume)
        host = re.escape(socket.gethostname())
        assert re.fullmatch(rf"{out} is being written by process {winner.pid} on {host}, since .*: wait for .*", told)
        if number % 2:
            assert is_finished(out)
            assert [line.epoch for line in read_metrics(out)] == [1, 2]
            assert len((out / "metrics.jsonl").read_text().splitlines()) == 2
            assert json.loads((out / "run.json").read_text())["images"] == {"train": 10, "val": 6}
    figure(27, "two at once", f"{times} pairs of trainings: one of each was refused by the other's name")
