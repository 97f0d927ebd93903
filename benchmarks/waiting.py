"""Share of a training on two cores that is spent waiting for images: prints JSON.

Trains A at full width, crop 64, batch 32, as `verydeep train` does, and reads the share of waiting in each epoch
from the run's metrics.jsonl. The first epoch includes the start of the loader's processes.

    python benchmarks/waiting.py IMAGES [EPOCHS]

IMAGES is any SOURCE of `verydeep train`; a thousand photographs make 32 steps an epoch. Needs 2 cores for itself.
"""

import json
import os
import sys
import tempfile
from pathlib import Path

import torch

import verydeep
from verydeep.runs.record import read_metrics, read_record, versions

CORES, WORKERS = 2, 2
EPOCHS = 2


def main() -> None:
    """Train and print the result."""
    source, epochs = sys.argv[1], int(sys.argv[2]) if len(sys.argv) > 2 else EPOCHS
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:CORES])
    torch.set_num_threads(CORES)
    recipe = verydeep.Recipe(crop=64, batch=32, epochs=epochs, learning_rate=0.0025)
    runtime = verydeep.Runtime(device="cpu", workers=WORKERS)
    with tempfile.TemporaryDirectory() as folder:
        run = verydeep.train(source, network="A", out=Path(folder) / "run", recipe=recipe, runtime=runtime)
        images = read_record(run).images
        lines = read_metrics(run)
    result = {
        "images": images,
        "cores": CORES,
        "workers": WORKERS,
        "versions": versions(),
        "waiting_percent": [round(line.waiting, 2) for line in lines],
        "images_per_second": [round(line.images_per_second, 1) for line in lines],
    }
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
