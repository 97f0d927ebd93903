"""A run whose net tells images apart, and pictures of several sizes."""

import numpy as np
import pytest
import torch
from PIL import Image

from verydeep import TransferOptions, transfer, vgg
from verydeep.runs.model import Model, load_model, save_model

CLASSES = ("ant", "bee", "cow", "dog", "elk", "fox", "gnu")
SIZES = ((40, 50), (37, 37), (50, 40), (40, 50), (64, 41))

SPREAD = 0.3
"""Standard deviation of scores. Random nets find images much alike: with more of it rounding would exceed 1e-6."""


@pytest.fixture(scope="session")
def run(tmp_path_factory):
    """A run's folder; activations keep their variance from layer to layer, so scores differ from image to image."""
    torch.manual_seed(1)
    net = vgg("B", classes=len(CLASSES), crop=32, width=0.1).eval()
    with torch.no_grad():
        for module in net.modules():
            if isinstance(module, torch.nn.Conv2d | torch.nn.Linear):
                module.weight.normal_(0, (2 / module.weight[0].numel()) ** 0.5)
                module.bias.normal_(0, 0.1)
        net.conv1_1.weight /= 64
        scores = net(torch.from_numpy(np.stack([pixels(seed, (32, 32)) for seed in range(50)])).permute(0, 3, 1, 2))
        net.fc8.weight *= SPREAD / scores.std(dim=0)[:, None]
        net.fc8.bias -= SPREAD * scores.mean(dim=0) / scores.std(dim=0)
    folder = tmp_path_factory.mktemp("runs") / "run"
    save_model(Model(net=net, classes=CLASSES, scale="256", flip=True), folder / "model")
    return folder


@pytest.fixture(scope="session")
def model(run):
    return load_model(run)


def pixels(seed, size):
    """Return a colour with grain, unlike its mirror image."""
    rng = np.random.default_rng(seed)
    grain = rng.integers(-60, 61, (*size, 3)) + np.linspace(-30, 30, size[1])[:, None]
    return (rng.integers(0, 256, 3) + grain).clip(0, 255).astype(np.uint8)


@pytest.fixture(scope="session")
def photos(tmp_path_factory):
    """Eleven pictures in two folders; their order is not that of their sizes."""
    folder = tmp_path_factory.mktemp("photos")
    for number in range(11):
        file = folder / CLASSES[number % 2] / f"{number}.png"
        file.parent.mkdir(exist_ok=True)
        Image.fromarray(pixels(number, SIZES[number % len(SIZES)])).save(file)
    return folder


@pytest.fixture(scope="session")
def classifier(run, photos, tmp_path_factory):
    """A classifier of ants and bees, by the features of one network at two scales."""
    folder = tmp_path_factory.mktemp("classifiers") / "classifier"
    options = TransferOptions(train=3, test=2, splits=1, scales=(256, 300))
    transfer([run], data=str(photos), options=options, out=folder)
    return folder
