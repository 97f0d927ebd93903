"""Train VGG-16 for a stated time by a plain script with torchvision's reference recipe, and test it once: prints JSON.

What somebody would run who has PyTorch and not this package. The network is torchvision's (poolings to 7 x 7, fully
connected layers of 4,096, its random weights); the recipe is that of its reference scripts for VGG: momentum 0.9,
weight decay 1e-4, rate 0.01 (0.1 with batch normalisation) for the 256 images of a step of its eight processes, here in
proportion for a step of 32, a tenth after each third of the training; crops of 8 to 100% of the image's area, mirrored
or not; tested on the centre crop of images whose shorter side is 256/224 of the crop. Source:
https://github.com/pytorch/vision/tree/main/references/classification. There it trains for 90 epochs; here until the
time is over, and the rate falls by the time too. Images are loaded by a process for each core, as the reference scripts
load them (by 16); `waiting` is the share of the time in which the loop waited for them. `--width` makes the layers as
narrow as ours (fc6, of 7 x 7 positions, is still larger at crops below 224), `--bf16` takes products in bfloat16, and
`--rate` another rate. A training whose loss is still chance's after half of the time is ended, and said to be.
`--trial` only trains, and to the end: to choose a rate by `last_loss`.

    python benchmarks/torchvision_recipe.py PHOTOGRAPHS [--crop 128] [--minutes 120] [--batch-norm] [--seed 0]
        [--width 0.5] [--bf16] [--rate 0.01] [--trial]
"""

import argparse
import json
import math
import os
import random
import sys
import time
from collections import deque
from pathlib import Path
from statistics import fmean

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from plain_training import in_vain, labelled_files
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

PLAN = (64, 64, "M", 128, 128, "M", 256, 256, 256, "M", 512, 512, 512, "M", 512, 512, 512, "M")
MEAN, DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
BATCH, RATE, RATE_WITH_BATCH_NORM, DROPS = 32, 1e-2, 1e-1, 3
IMAGES_OF_A_STEP = 8 * BATCH
"""Images of all processes, for which the rates are."""
LAST_STEPS = 100
"""Steps whose mean loss says how far a training has come."""


def vgg16(classes: int, *, batch_norm: bool, width: float = 1) -> nn.Sequential:
    """Return torchvision's VGG-16 with its random weights, its hidden layers `width` times as wide."""
    layers: list[nn.Module] = []
    channels = 3
    for item in PLAN:
        if isinstance(item, str):
            layers.append(nn.MaxPool2d(2))
            continue
        outputs = round(item * width)
        layers.append(nn.Conv2d(channels, outputs, 3, padding=1))
        layers += [nn.BatchNorm2d(outputs)] if batch_norm else []
        layers.append(nn.ReLU(inplace=True))
        channels = outputs
    hidden = round(4096 * width)
    head = [nn.Linear(channels * 49, hidden), nn.ReLU(inplace=True), nn.Dropout(), nn.Linear(hidden, hidden)]
    head += [nn.ReLU(inplace=True), nn.Dropout(), nn.Linear(hidden, classes)]
    net = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(7), nn.Flatten(), *head)
    for module in net.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
            nn.init.zeros_(module.bias)  # type: ignore[arg-type]
        elif isinstance(module, nn.Linear):
            nn.init.normal_(module.weight, 0, 0.01)
            nn.init.zeros_(module.bias)
    return net


class Photographs(Dataset[tuple[Tensor, Tensor]]):
    """Images of a folder, CLASS/*.jpg, as random crops or as centre crops."""

    def __init__(self, folder: Path, *, crop: int, training: bool) -> None:
        self.classes, self.images = labelled_files(folder)
        self.crop, self.training = crop, training

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        path, label = self.images[index]
        with Image.open(path) as file:
            image = file.convert("RGB")
        image = random_crop(image, self.crop) if self.training else centre_crop(image, self.crop)
        pixels = torch.from_numpy(np.array(image)).permute(2, 0, 1).float() / 255
        return (pixels - torch.tensor(MEAN)[:, None, None]) / torch.tensor(DEVIATION)[:, None, None], torch.tensor(
            label
        )


def random_crop(image: Image.Image, crop: int) -> Image.Image:
    """Return 8 to 100% of an image's area, with sides from 3:4 to 4:3, rescaled to the crop, mirrored or not."""
    width, height = image.size
    box = (0, 0, width, height)
    for _ in range(10):
        area = width * height * random.uniform(0.08, 1)
        ratio = math.exp(random.uniform(math.log(3 / 4), math.log(4 / 3)))
        w, h = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
        if 0 < w <= width and 0 < h <= height:
            left, top = random.randint(0, width - w), random.randint(0, height - h)
            box = (left, top, left + w, top + h)
            break
    image = image.resize((crop, crop), Image.Resampling.BILINEAR, box=box)
    return image.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if random.random() < 0.5 else image


def centre_crop(image: Image.Image, crop: int) -> Image.Image:
    """Return the centre of an image whose shorter side is 256/224 of the crop."""
    factor = round(crop * 256 / 224) / min(image.size)
    image = image.resize([round(side * factor) for side in image.size], Image.Resampling.BILINEAR)
    left, top = ((side - crop) // 2 for side in image.size)
    return image.crop((left, top, left + crop, top + crop))


def train(
    net: nn.Module,
    images: DataLoader[tuple[Tensor, Tensor]],
    *,
    rate: float,
    seconds: float,
    bf16: bool,
    classes: int,
    trial: bool,
) -> dict[str, object]:
    """Train until the time is over or, unless it is a trial, in vain.

    Returns how far it came: steps, and mean losses of each epoch and of the end.
    """
    net.train()
    optimiser = torch.optim.SGD(net.parameters(), lr=rate, momentum=0.9, weight_decay=1e-4)
    last: deque[float] = deque(maxlen=LAST_STEPS)
    epochs: list[list[float]] = []
    began, waited = time.perf_counter(), 0.0
    while True:
        epochs.append([])
        ready = time.perf_counter()
        for batch, labels in images:
            waited += time.perf_counter() - ready
            passed = (time.perf_counter() - began) / seconds
            vain = bool(last) and not trial and in_vain(fmean(last), passed=passed, classes=classes)
            if vain or (last and passed >= 1):
                losses = [fmean(epoch) for epoch in epochs if epoch]
                waiting = waited / (time.perf_counter() - began)
                course = {"steps": sum(map(len, epochs)), "losses": losses, "last_loss": fmean(last)}
                return {**course, "used": passed, "waiting": waiting, "in_vain": vain}
            for group in optimiser.param_groups:
                group["lr"] = rate * 0.1 ** int(DROPS * passed)
            optimiser.zero_grad()
            with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
                scores = net(batch)
            loss = F.cross_entropy(scores.float(), labels)
            loss.backward()
            optimiser.step()
            epochs[-1].append(loss.item())
            last.append(loss.item())
            ready = time.perf_counter()
        print(f"epoch {len(epochs)}: loss {fmean(epochs[-1]):.3f}, {100 * passed:.0f}% of the time", file=sys.stderr)


def errors(net: nn.Module, images: DataLoader[tuple[Tensor, Tensor]]) -> dict[str, float]:
    """Return top-1 and top-5 error in percent."""
    net.eval()
    wrong, wrong5, seen = 0, 0, 0
    with torch.no_grad():
        for batch, labels in images:
            scores = net(batch)
            best = scores.topk(min(5, scores.shape[1])).indices == labels[:, None]
            wrong += int((~best[:, 0]).sum())
            wrong5 += int((~best.any(1)).sum())
            seen += len(labels)
    return {"top1_error": 100 * wrong / seen, "top5_error": 100 * wrong5 / seen, "n": seen}


def main() -> None:
    """Train for the time, test once unless it is a trial, print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("photographs", type=Path, help="a folder with train/CLASS and val/CLASS")
    parser.add_argument("--crop", type=int, default=128)
    parser.add_argument("--minutes", type=float, default=120)
    parser.add_argument("--batch-norm", action="store_true")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--width", type=float, default=1)
    parser.add_argument("--bf16", action="store_true")
    parser.add_argument("--rate", type=float, help="learning rate (default: the recipe's in proportion)")
    parser.add_argument("--trial", action="store_true", help="only train, and to the end")
    asked = parser.parse_args()
    random.seed(asked.seed)
    torch.manual_seed(asked.seed)
    training = Photographs(asked.photographs / "train", crop=asked.crop, training=True)
    testing = Photographs(asked.photographs / "val", crop=asked.crop, training=False)
    net = vgg16(len(training.classes), batch_norm=asked.batch_norm, width=asked.width)
    rate = asked.rate or (RATE_WITH_BATCH_NORM if asked.batch_norm else RATE) * BATCH / IMAGES_OF_A_STEP
    cores = len(os.sched_getaffinity(0))
    images = DataLoader(training, BATCH, shuffle=True, num_workers=cores, persistent_workers=True)
    course = train(
        net,
        images,
        rate=rate,
        seconds=60 * asked.minutes,
        bf16=asked.bf16,
        classes=len(training.classes),
        trial=asked.trial,
    )
    found = {} if asked.trial else errors(net, DataLoader(testing, BATCH))
    print(json.dumps({**vars(asked), "cores": cores, "rate": rate, **course, **found}, default=str, indent=2))


if __name__ == "__main__":
    main()
