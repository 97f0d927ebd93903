"""Small runs to export, their files, and pictures to check them on."""

from importlib.util import find_spec

import numpy as np
import pytest
import torch
from PIL import Image

from verydeep import vgg
from verydeep.conversion.export import export
from verydeep.exported_networks.formats import ExportOptions
from verydeep.runs.model import Model, load, save_model

FILES = {"onnx": "net.onnx", "openvino": "net.xml", "torch": "net.pt2"}
HAS_NCNN = find_spec("ncnn") is not None
if HAS_NCNN:
    FILES["ncnn"] = "net.ncnn.param"
NCNN = pytest.param("ncnn", marks=pytest.mark.skipif(not HAS_NCNN, reason="ncnn is not installed"))
BESIDE = {"net.xml": "net.bin", "net.ncnn.param": "net.ncnn.bin"}
"""Files of weights beside others."""

CLASSES = ("dark", "grün", "light")


def network(name="D", crop=32, width=1 / 16, classes=3, batch_norm=False):
    """Return a network with random biases and statistics too, so that nothing can be left out unnoticed."""
    torch.manual_seed(1)
    net = vgg(name, classes=classes, crop=crop, width=width, batch_norm=batch_norm, mean_rgb=(120.0, 110.0, 90.0))
    with torch.no_grad():
        for module in net.modules():
            if isinstance(module, torch.nn.Conv2d | torch.nn.Linear):
                module.weight.normal_(0, (2 / module.weight[0].numel()) ** 0.5)
                module.bias.normal_(0, 0.1)
            if isinstance(module, torch.nn.BatchNorm2d):
                module.running_mean.normal_()
                module.running_var.uniform_(0.5, 2)
                module.weight.uniform_(0.5, 2)
        net.conv1_1.weight /= 64
    return net.eval()


def pictures(folder, each=4, size=(40, 46)):
    """Write noise of three brightnesses, as a folder with train and val."""
    rng = np.random.default_rng(0)
    for part in ("train", "val"):
        for label, name in enumerate(CLASSES):
            (folder / part / name).mkdir(parents=True)
            for index in range(each):
                pixels = (rng.integers(0, 90, (*size, 3)) + 80 * label).astype(np.uint8)
                Image.fromarray(pixels).save(folder / part / name / f"{index}.png")
    return str(folder)


def saved(net, folder, classes=CLASSES):
    save_model(Model(net=net, classes=classes, scale="256", flip=True), folder / "model")
    return folder


def exported(folder, data):
    """Return a run, its network and one file of each kind, with the figures of its export."""
    run = saved(network("A", batch_norm=True), folder / "run")
    found = {to: export(run, folder / name, to=to, options=ExportOptions(data=data)) for to, name in FILES.items()}
    return run, load(run), folder, found


def images(batch, height, width, seed=0):
    return torch.rand(batch, 3, height, width, generator=torch.Generator().manual_seed(seed)) * 255


def difference(found, expected):
    assert found.shape == expected.shape
    return ((found - expected).abs().max() / expected.abs().max()).item()
