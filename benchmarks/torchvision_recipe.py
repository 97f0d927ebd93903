"""Train VGG-16 for a stated time by a plain script with torchvision's reference recipe, and test it once: prints JSON.

What somebody would run who has PyTorch and not this package. The network is torchvision's (poolings to 7 x 7, fully
connected layers of 4,096, its random weights); the recipe is that of its reference scripts for VGG: batches of 32,
rate 0.01 (0.1 with batch normalisation), momentum 0.9, weight decay 1e-4, the rate a tenth after each third of the
epochs; crops of 8 to 100% of the image's area, mirrored or not; tested on the centre crop of images whose shorter side
is 256/224 of the crop. Source: https://github.com/pytorch/vision/tree/main/references/classification. There it
trains for 90 epochs; here for as many as the first one says that the time has room for.

    python benchmarks/torchvision_recipe.py PHOTOGRAPHS [--crop 128] [--minutes 120] [--batch-norm] [--seed 0]
"""

import argparse
import json
import math
import os
import random
import sys
import time
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

PLAN = (64, 64, "M", 128, 128, "M", 256, 256, 256, "M", 512, 512, 512, "M", 512, 512, 512, "M")
MEAN, DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
BATCH, RATE, RATE_WITH_BATCH_NORM, DROPS = 32, 1e-2, 1e-1, 3
SUFFIXES = {".jpg", ".jpeg", ".png"}


def vgg16(classes: int, *, batch_norm: bool) -> nn.Sequential:
    """Return torchvision's VGG-16 with its random weights."""
    layers: list[nn.Module] = []
    channels = 3
    for item in PLAN:
        if isinstance(item, str):
            layers.append(nn.MaxPool2d(2))
            continue
        layers.append(nn.Conv2d(channels, item, 3, padding=1))
        layers += [nn.BatchNorm2d(item)] if batch_norm else []
        layers.append(nn.ReLU(inplace=True))
        channels = item
    head = [nn.Linear(512 * 49, 4096), nn.ReLU(inplace=True), nn.Dropout(), nn.Linear(4096, 4096)]
    head += [nn.ReLU(inplace=True), nn.Dropout(), nn.Linear(4096, classes)]
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
        self.classes = sorted(path.name for path in folder.iterdir() if path.is_dir())
        self.images = [
            (path, label)
            for label, name in enumerate(self.classes)
            for path in sorted((folder / name).iterdir())
            if path.suffix.lower() in SUFFIXES
        ]
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


def train_epoch(net: nn.Module, images: DataLoader[tuple[Tensor, Tensor]], optimiser: torch.optim.SGD) -> float:
    """Train one epoch; return its mean loss."""
    net.train()
    losses = []
    for batch, labels in images:
        optimiser.zero_grad()
        loss = F.cross_entropy(net(batch), labels)
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    return sum(losses) / len(losses)


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
    """Train for the time, test once, print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("photographs", type=Path, help="a folder with train/CLASS and val/CLASS")
    parser.add_argument("--crop", type=int, default=128)
    parser.add_argument("--minutes", type=float, default=120)
    parser.add_argument("--batch-norm", action="store_true")
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args()
    random.seed(asked.seed)
    torch.manual_seed(asked.seed)
    training = Photographs(asked.photographs / "train", crop=asked.crop, training=True)
    testing = Photographs(asked.photographs / "val", crop=asked.crop, training=False)
    images = DataLoader(training, BATCH, shuffle=True)
    net = vgg16(len(training.classes), batch_norm=asked.batch_norm)
    rate = RATE_WITH_BATCH_NORM if asked.batch_norm else RATE
    optimiser = torch.optim.SGD(net.parameters(), lr=rate, momentum=0.9, weight_decay=1e-4)
    losses: list[float] = []
    began, epochs = time.perf_counter(), 1
    while len(losses) < epochs:
        for group in optimiser.param_groups:
            group["lr"] = rate * 0.1 ** (len(losses) * DROPS // epochs)
        losses.append(train_epoch(net, images, optimiser))
        taken = time.perf_counter() - began
        if len(losses) == 1:
            epochs = max(1, int(60 * asked.minutes / taken))
        print(f"epoch {len(losses)}/{epochs}: loss {losses[-1]:.3f}, {taken / 60:.1f} minutes", file=sys.stderr)
    found = errors(net, DataLoader(testing, BATCH))
    cores = len(os.sched_getaffinity(0))
    print(
        json.dumps({**vars(asked), "cores": cores, "seconds": taken, "losses": losses, **found}, default=str, indent=2)
    )


if __name__ == "__main__":
    main()
