"""The folder in which the blocks of pages run: what a reader who follows them has, but small."""

import numpy as np
import pytest
import torch
from PIL import Image

import verydeep

CLASSES = ("cat", "dog")
NETWORKS = {"runs/a": "A", "runs/d": "D", "runs/e": "E", "runs/mine": "A"}


@pytest.fixture(scope="session")
def workplace(tmp_path_factory):
    """Make photographs of cats and dogs, boxes and labels of them, runs, and a file of another library's weights."""
    place = tmp_path_factory.mktemp("reader")
    rng = np.random.default_rng(0)
    names = [f"{label}/{number}.jpg" for label in CLASSES for number in range(6)]
    for name in [f"photos/{name}" for name in names] + ["some/picture.jpg", "picture.jpg", "more-photos/1.jpg"]:
        file = place / name
        file.parent.mkdir(parents=True, exist_ok=True)
        pixels = rng.integers(0, 90, (44, 52, 3)) + 120 * ("dog" in name)
        Image.fromarray(pixels.astype(np.uint8)).save(file)
    (place / "boxes.csv").write_text("".join(f"{name},4,4,40,36,{name[:3]}\n" for name in names))
    (place / "labels.csv").write_text("".join(f"{name},{name[:3]}\n" for name in names))
    (place / "names.txt").write_text("cat\ndog\n")
    torch.manual_seed(0)
    for run, network in NETWORKS.items():
        net = verydeep.vgg(network, classes=2, crop=32, width=0.02)
        verydeep.save(net, place / run, classes=list(CLASSES))
    verydeep.save(sure_of_itself(), place / "for-file", classes=["a", "b"])
    verydeep.write_weights(place / "for-file", place / "vgg16.pth", "torchvision")
    return place


def sure_of_itself():
    """Return a network whose outputs vary from picture to picture, as those of trained ones do."""
    net = verydeep.vgg("D", classes=2, crop=32, width=0.02)
    with torch.no_grad():
        for module in net.modules():
            if isinstance(module, torch.nn.Conv2d | torch.nn.Linear):
                module.weight.normal_(0, (2 / module.weight[0].numel()) ** 0.5)
        net.conv1_1.weight /= 64
        net.fc8.weight *= 3
    return net
