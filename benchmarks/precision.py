"""Errors of networks trained in bfloat16 and in float32, seed by seed: prints JSON.

Each seed trains twice, with the same first weights, order and crops, on one thread; several trainings run side by side.
Tested densely at one scale on the test images. What bfloat16 costs is the mean difference over the seeds, with its 95%
interval (Student's t).

    python benchmarks/precision.py digits --network D --crop 32 --epochs 14 --learning-rate 0.0025
    python benchmarks/precision.py PHOTOGRAPHS --network A --epochs 10
"""

import argparse
import json
import multiprocessing
import os
import statistics
import tempfile
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

from scipy.stats import t

from verydeep import Execution, Recipe, Runtime, evaluate, train
from verydeep.images.open import open_for_training
from verydeep.machine.threads import wait_asleep
from verydeep.runs.record import versions
from verydeep.statistics import CONFIDENCE

wait_asleep()

PRECISIONS = ("fp32", "bf16")


def error(task: tuple[argparse.Namespace, str, int]) -> float:
    """Train with a precision and a seed; return the top-1 error in percent on the test images."""
    asked, precision, seed = task
    splits = open_for_training(asked.source)
    recipe = Recipe(
        crop=asked.crop,
        width=asked.width,
        batch=32,
        learning_rate=asked.learning_rate,
        schedule="cosine",
        epochs=asked.epochs,
        flip=asked.source != "digits",
        seed=seed,
    )
    with tempfile.TemporaryDirectory() as folder:
        out, runtime, execution = Path(folder) / "run", Runtime(threads=1), Execution(precision=precision)
        run = train(splits, network=asked.network, out=out, recipe=recipe, runtime=runtime, execution=execution)
        tested = evaluate(run, data=splits, split=splits.testing, scales="single", runtime=runtime, cache=False)
        return tested.top1_error


def summary(errors: dict[str, list[float]]) -> dict[str, object]:
    """Return the means, the spread over seeds, and the mean difference with its interval, in percentage points."""
    differences = [low - full for full, low in zip(errors["fp32"], errors["bf16"], strict=True)]
    mean, seeds = statistics.mean(differences), len(differences)
    half = t.ppf((1 + CONFIDENCE) / 2, seeds - 1) * statistics.stdev(differences) / seeds**0.5
    return {
        "errors": {precision: [round(value, 2) for value in its] for precision, its in errors.items()},
        "mean": {precision: round(statistics.mean(its), 2) for precision, its in errors.items()},
        "spread_over_seeds": {precision: round(statistics.stdev(its), 2) for precision, its in errors.items()},
        "bf16_minus_fp32": round(mean, 2),
        "ci95": [round(mean - half, 2), round(mean + half, 2)],
    }


def main() -> None:
    """Train with all seeds and print the result."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("source")
    parser.add_argument("--network", default="A")
    parser.add_argument("--width", type=float, default=0.25)
    parser.add_argument("--crop", type=int, default=64)
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--learning-rate", type=float, default=0.005)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--jobs", type=int, default=len(os.sched_getaffinity(0)))
    asked = parser.parse_args()
    tasks = [(asked, precision, seed) for seed in range(asked.seeds) for precision in PRECISIONS]
    with ProcessPoolExecutor(asked.jobs, mp_context=multiprocessing.get_context("spawn")) as pool:
        found = list(pool.map(error, tasks))
    errors = {precision: found[number :: len(PRECISIONS)] for number, precision in enumerate(PRECISIONS)}
    print(json.dumps({**vars(asked), **summary(errors), "versions": versions()}, indent=2))


if __name__ == "__main__":
    main()
