"""Seconds of `verydeep train` alone, several at once, and alone on one thread: prints JSON.

Trains on the digits, which need no decoding worth mentioning, from the start of the process to its end. They alternate,
round by round; figures are medians over the rounds.

    python benchmarks/at_once.py [--network D] [--width 0.25] [--crop 32] [--epochs 3] [--at-once 2] [--rounds 5]
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time


def seconds(asked: argparse.Namespace, count: int, extra: list[str]) -> float:
    """Return the seconds until so many trainings, started together, have all ended."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "verydeep", "train", "digits", "--network", asked.network]
        command += ["--width", str(asked.width), "--crop", str(asked.crop), "--epochs", str(asked.epochs)]
        command += ["--batch", "32", "--learning-rate", "0.0025", "--no-flip", *extra]
        began = time.perf_counter()
        trainings = [
            subprocess.Popen(
                [*command, "--out", f"{folder}/{number}"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
            )
            for number in range(count)
        ]
        if any(training.wait() for training in trainings):
            raise SystemExit("a training failed")
        return time.perf_counter() - began


def main() -> None:
    """Time all and print the result."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--network", default="D")
    parser.add_argument("--width", type=float, default=0.25)
    parser.add_argument("--crop", type=int, default=32)
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--at-once", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=5)
    asked = parser.parse_args()
    kinds = {
        "alone": (1, []),
        "one_thread": (1, ["--threads", "1"]),
        "all_threads": (1, ["--threads", str(len(os.sched_getaffinity(0)))]),
        "at_once": (asked.at_once, []),
    }
    taken: dict[str, list[float]] = {kind: [] for kind in kinds}
    for number in range(asked.rounds):
        print(f"round {number + 1} of {asked.rounds}", file=sys.stderr)
        for kind, (count, extra) in kinds.items():
            taken[kind].append(seconds(asked, count, extra))
    found = {
        kind: {"seconds": round(statistics.median(its), 1), "least": round(min(its), 1), "greatest": round(max(its), 1)}
        for kind, its in taken.items()
    }
    ratios = {
        kind: round(statistics.median(its[at] / taken["alone"][at] for at in range(asked.rounds)), 2)
        for kind, its in taken.items()
    }
    print(json.dumps({**vars(asked), **found, "of_alone": ratios}, indent=2))


if __name__ == "__main__":
    main()
