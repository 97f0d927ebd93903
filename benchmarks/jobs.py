"""Training steps of a whole CPU, images a second: one training a core as `reproduce` does it, or one on all cores.

Prints JSON. Each competitor has processes of its own, which wait while the others compute; they are timed in turn,
round by round. Figures are medians over the rounds, and ratios are taken within a round: above 1 ours is faster. All
have the same network and see a batch of noise that lies in memory already (benchmarks/epoch.py measures what comes
before).

- ours: as many trainings as cores, a thread each, in the precision that `verydeep train` chooses.
- ours_alone: one training, with the threads and the precision that it chooses.
- plain: one loop that one would write in PyTorch, float32, all threads (benchmarks/training.py).
- before, with --before FOLDER: one training of another version of this code (git worktree add FOLDER COMMIT), all
  threads.

    python benchmarks/jobs.py [--network D] [--width 0.25] [--crop 64] [--batch 32] [--rounds 9] [--before FOLDER]
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parents[1]
WARM_UP = 3


@dataclass(kw_only=True)
class Competitor:
    """Processes that compute steps when they are told to."""

    code: Path
    kind: str
    """`ours` or `plain`."""
    processes: int
    threads: int
    chooses_threads: bool = False
    asleep: bool = True
    """Whether threads that wait sleep, as the command has it."""
    running: list["subprocess.Popen[str]"] = field(default_factory=list)
    rates: list[float] = field(default_factory=list)
    """Images a second of all processes together, of each round."""
    told: dict[str, Any] = field(default_factory=dict)

    def start(self, arguments: list[str], stack: ExitStack) -> None:
        """Start the processes, and wait until each has warmed up."""
        environment = {name: value for name, value in os.environ.items() if name != "OMP_WAIT_POLICY"}
        environment["OMP_NUM_THREADS"] = str(self.threads)
        environment["PYTHONPATH"] = os.pathsep.join((str(self.code), str(self.code / "benchmarks")))
        if self.asleep:
            environment["OMP_WAIT_POLICY"] = "passive"
        command = [sys.executable, "-P", __file__, "--worker", self.kind, *arguments]
        if self.chooses_threads:
            command.append("--choose-threads")
        for _ in range(self.processes):
            process = subprocess.Popen(
                command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=self.code
            )
            stack.callback(process.kill)
            self.running.append(process)
        for process in self.running:
            self.told = json.loads(read(process))

    def measure(self, seconds: float) -> None:
        """Let all compute at once for so long."""
        for process in self.running:
            assert process.stdin is not None
            print(seconds, file=process.stdin, flush=True)
        self.rates.append(sum(float(read(process)) for process in self.running))


def read(process: "subprocess.Popen[str]") -> str:
    """Return the next line that a process writes."""
    assert process.stdout is not None
    line = process.stdout.readline()
    if not line:
        raise SystemExit(f"a competitor ended with status {process.wait()}")
    return line


def work(asked: argparse.Namespace, stack: ExitStack) -> None:
    """Be a competitor: read seconds from standard input, compute so long, and print the images a second."""
    import torch
    import training  # of the version that is measured

    from verydeep.machine.runtime import Execution, Runtime

    torch.manual_seed(0)
    if asked.worker == "ours":
        with suppress(ImportError):  # of an earlier version
            from verydeep.machine.memory import freed_memory_kept

            stack.enter_context(freed_memory_kept())  # as `train` has it
    task = training.Task(
        recipe=training.Recipe(crop=asked.crop, width=asked.width, batch=asked.batch, learning_rate=training.RATE),
        net=training.vgg(asked.network, classes=training.CLASSES, crop=asked.crop, width=asked.width),
        device=torch.device("cpu"),
        images=torch.randint(0, 256, (asked.batch, 3, asked.crop, asked.crop)).float(),
        labels=torch.randint(0, training.CLASSES, (asked.batch,)),
    )
    if asked.worker == "plain":
        step = training.plain(task)
    elif asked.choose_threads:
        step = training.ours(task, Execution())
    else:
        runtime = {"runtime": Runtime(threads=torch.get_num_threads())} if "threads" in vars(Runtime()) else {}
        step = training.ours(task, Execution(), **runtime)
    for _ in range(WARM_UP):
        step()
    print(json.dumps({"threads": torch.get_num_threads()}), flush=True)
    for line in sys.stdin:
        steps, began = 0, time.perf_counter()
        while (taken := time.perf_counter() - began) < float(line):
            step()
            steps += 1
        print(asked.batch * steps / taken, flush=True)


def competitors(cores: int, before: Path | None) -> dict[str, Competitor]:
    """Return all, none of them started."""
    found = {
        "ours": Competitor(code=HERE, kind="ours", processes=cores, threads=1),
        "ours_alone": Competitor(code=HERE, kind="ours", processes=1, threads=cores, chooses_threads=True),
        "plain": Competitor(code=HERE, kind="plain", processes=1, threads=cores, asleep=False),
    }
    if before is not None:
        code = before.resolve()
        found["before"] = Competitor(code=code, kind="ours", processes=1, threads=cores, asleep=False)
    return found


def main() -> None:
    """Time all and print the result, or be a competitor."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--network", default="D")
    parser.add_argument("--crop", type=int, default=64)
    parser.add_argument("--width", type=float, default=0.25)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--seconds", type=float, default=4.0, help="of each competitor in each round")
    parser.add_argument("--before", type=Path)
    parser.add_argument("--worker", choices=("ours", "plain"), help=argparse.SUPPRESS)
    parser.add_argument("--choose-threads", action="store_true", help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.worker is not None:
        with ExitStack() as stack:
            work(asked, stack)
        return
    cores = len(os.sched_getaffinity(0))
    network = [f"--{name}={getattr(asked, name)}" for name in ("network", "crop", "width", "batch")]
    all_of_them = competitors(cores, asked.before)
    with ExitStack() as stack:
        for one in all_of_them.values():
            one.start(network, stack)
        for number in range(asked.rounds):
            print(f"round {number + 1} of {asked.rounds}", file=sys.stderr)
            for one in all_of_them.values():
                one.measure(asked.seconds)
    mine = all_of_them["ours"].rates
    print(json.dumps({**vars(asked), **figures(all_of_them, mine), "cores": cores}, indent=2, default=str))


def figures(found: dict[str, Competitor], mine: list[float]) -> dict[str, Any]:
    """Return rates and how many times as fast `mine` are, with their spread over the rounds."""
    rates, ratios = {}, {}
    for name, one in found.items():
        rates[name] = {
            "images_per_second": round(statistics.median(one.rates), 1),
            "least": round(min(one.rates), 1),
            "greatest": round(max(one.rates), 1),
            "processes": one.processes,
            **one.told,
        }
        within = [ours / theirs for ours, theirs in zip(mine, one.rates, strict=True)]
        ratios[name] = {
            "median": round(statistics.median(within), 2),
            "least": round(min(within), 2),
            "greatest": round(max(within), 2),
        }
    del ratios["ours"]
    return {"rates": rates, "ours_against": ratios}


if __name__ == "__main__":
    main()
