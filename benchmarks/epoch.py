"""From a folder of photographs to trained weights, decoding included, all of it and its epochs: prints JSON.

Ours against a loop that one would write with PyTorch's DataLoader and Pillow, with the same network, batch, S and
threads, on the first images of each class. Each training is a process of its own, with an empty cache; they alternate,
round by round. `all` is from the list of images to the weights after the last epoch. Of epochs, images a second: the
first has a figure of its own, since ours keeps decoded images from then on; the later ones have their median. Ratios
are taken within a round: above 1 ours is faster.

- ours: `verydeep.train`, with all that it chooses. Only in `all` is what it does before the first step, reading every
  image for its colours and measuring precision and threads, and what it saves and validates (8 images).
- plain: float32, all threads, images loaded in the main process. plain_workers: by a worker process for each core.

The plain loops rescale, crop and mirror as ours does, and shift no colours.

    python benchmarks/epoch.py PHOTOGRAPHS [--network D] [--width 0.25] [--crop 64] [--images 1200] [--rounds 3]
"""

import argparse
import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from training import plain_network  # beside this file

import verydeep
from verydeep.images.open import open_for_training
from verydeep.images.sources.source import Source, subset
from verydeep.images.sources.splits import Splits
from verydeep.networks.vgg import ILSVRC_MEAN_RGB
from verydeep.runs.record import read_metrics

S, CROP = 256, 224
"""For this crop; S scales with the crop."""

KINDS = ("ours", "plain", "plain_workers")


class Photographs(Dataset[tuple[Tensor, int]]):
    """Random crops of a folder's images."""

    def __init__(self, folder: Path, source: Source, crop: int) -> None:
        self.files = [(folder / "train" / source.paths(at)[0].path, source.labels[at]) for at in range(len(source))]
        self.crop, self.scale = crop, round(S * crop / CROP)

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        path, label = self.files[index]
        image = Image.open(path).convert("RGB")
        factor = self.scale / min(image.size)
        image = image.resize([max(self.scale, round(side * factor)) for side in image.size], Image.Resampling.BILINEAR)
        left, top = (random.randint(0, side - self.crop) for side in image.size)
        image = image.crop((left, top, left + self.crop, top + self.crop))
        if random.random() < 0.5:
            image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        return torch.from_numpy(np.array(image)).permute(2, 0, 1).float(), label


def plain(asked: argparse.Namespace, source: Source, workers: int) -> list[float]:
    """Train by a tutorial's loop; return the images a second of each epoch."""
    net = verydeep.vgg(asked.network, classes=len(source.classes), crop=asked.crop, width=asked.width)
    net = plain_network(net)
    optimiser = torch.optim.SGD(net.parameters(), lr=asked.rate, momentum=0.9, weight_decay=5e-4)
    mean = torch.tensor(ILSVRC_MEAN_RGB)[:, None, None]
    images = Photographs(asked.photographs, source, asked.crop)
    loader = DataLoader(
        images, asked.batch, shuffle=True, num_workers=workers, persistent_workers=workers > 0, drop_last=False
    )
    rates = []
    for _ in range(asked.epochs):
        began = time.perf_counter()
        for batch, labels in loader:
            optimiser.zero_grad()
            loss = F.cross_entropy(net(batch - mean), labels)
            loss.backward()
            optimiser.step()
            loss.item()
        rates.append(len(images) / (time.perf_counter() - began))
    return rates


def ours(asked: argparse.Namespace, source: Source) -> list[float]:
    """Train by `verydeep.train`; return the images a second of each epoch."""
    splits = Splits(name="photographs", sources={"train": source, "val": subset(source, range(8))})
    recipe = verydeep.Recipe(
        crop=asked.crop, width=asked.width, batch=asked.batch, epochs=asked.epochs, learning_rate=asked.rate
    )
    with tempfile.TemporaryDirectory() as folder:
        run = verydeep.train(splits, network=asked.network, out=Path(folder) / "run", recipe=recipe)
        return [line.images_per_second for line in read_metrics(run)]


def work(asked: argparse.Namespace) -> None:
    """Train one competitor and print its images a second: in all, then of each epoch."""
    source = open_for_training(str(asked.photographs)).source("train")
    order = np.argsort([np.sum(np.asarray(source.labels[:at]) == label) for at, label in enumerate(source.labels)])
    some = subset(source, sorted(order[: asked.images].tolist()))
    workers = len(os.sched_getaffinity(0)) if asked.worker == "plain_workers" else 0
    began = time.perf_counter()
    rates = ours(asked, some) if asked.worker == "ours" else plain(asked, some, workers)
    print(json.dumps([asked.epochs * len(some) / (time.perf_counter() - began), *rates]))


def trained(kind: str, arguments: list[str]) -> list[float]:
    """Return the rates of a competitor, trained in a process of its own as a user's script or our command is."""
    environment = {name: value for name, value in os.environ.items() if name != "OMP_WAIT_POLICY"}
    if kind == "ours":
        environment["OMP_WAIT_POLICY"] = "passive"  # as the command has it
    command = [sys.executable, __file__, *arguments, "--worker", kind]
    with tempfile.TemporaryDirectory() as cache:
        environment["VERYDEEP_CACHE"] = cache
        done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=True)
    return [float(rate) for rate in json.loads(done.stdout.splitlines()[-1])]


def main() -> None:
    """Time all and print the result, or train one."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("photographs", type=Path, help="a folder with train/CLASS/*.jpg")
    parser.add_argument("--network", default="D")
    parser.add_argument("--width", type=float, default=0.25)
    parser.add_argument("--crop", type=int, default=64)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--rate", type=float, default=1e-3)
    parser.add_argument("--images", type=int, default=1200)
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--worker", choices=KINDS, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.worker is not None:
        work(asked)
        return
    rounds = []
    for number in range(asked.rounds):
        print(f"round {number + 1} of {asked.rounds}", file=sys.stderr)
        rounds.append({kind: trained(kind, sys.argv[1:]) for kind in KINDS})
    print(json.dumps({**vars(asked), "cores": len(os.sched_getaffinity(0)), **figures(rounds)}, indent=2, default=str))


def figures(rounds: list[dict[str, list[float]]]) -> dict[str, Any]:
    """Return rates in all, of the first and of later epochs, and how many times as fast ours is, with the spread."""
    parts = {
        "all": lambda rates: rates[0],
        "first_epoch": lambda rates: rates[1],
        "later_epochs": lambda rates: statistics.median(rates[2:]),
    }
    found: dict[str, Any] = {}
    for part, of in parts.items():
        rates = {kind: [of(one[kind]) for one in rounds] for kind in KINDS}
        found[part] = {"images_per_second": {kind: round(statistics.median(its), 1) for kind, its in rates.items()}}
        for kind in KINDS[1:]:
            ratios = [mine / theirs for mine, theirs in zip(rates["ours"], rates[kind], strict=True)]
            found[part][f"against_{kind}"] = {
                "median": round(statistics.median(ratios), 2),
                "least": round(min(ratios), 2),
                "greatest": round(max(ratios), 2),
            }
    return found


if __name__ == "__main__":
    main()
