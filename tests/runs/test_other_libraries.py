"""Against the libraries themselves, where they are installed: the same scores, and weights that load there again."""

import os

import numpy as np
import pytest
import torch
from foreign_weights import lively

from verydeep import import_weights, load, write_weights

RGB = np.random.default_rng(7).integers(0, 256, (1, 3, 224, 224), dtype=np.uint8)


def ours(folder):
    with torch.no_grad():
        return load(folder)(torch.from_numpy(RGB)).numpy()


def normalised():
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    return (torch.from_numpy(RGB) / 255 - mean[:, None, None]) / std[:, None, None]


def check(net, layout, folder):
    """In, computed and out again, into the library's network."""
    with torch.no_grad():
        expected = net(normalised()).numpy()
    assert np.abs(expected).max() > 0.5
    torch.save(net.state_dict(), folder / "net.pth")
    import_weights(folder / "net.pth", folder / "run")
    assert np.abs(ours(folder / "run") - expected).max() < 1e-4
    told = write_weights(folder / "run", folder / "out.pth", layout)
    assert told.notes == ()
    net.load_state_dict(torch.load(folder / "out.pth", weights_only=True))  # strict
    with torch.no_grad():
        assert np.abs(net(normalised()).numpy() - expected).max() < 1e-4
    return told


@pytest.mark.parametrize("name", ["vgg11", "vgg13_bn", "vgg16", "vgg19_bn"])
def test_torchvision(tmp_path, name):
    models = pytest.importorskip("torchvision").models
    net = lively(getattr(models, name)(num_classes=10))
    assert check(net, "torchvision", tmp_path).network == name


@pytest.mark.parametrize("name", ["vgg11_bn", "vgg16"])
def test_timm(tmp_path, name):
    timm = pytest.importorskip("timm")
    net = lively(timm.create_model(name, num_classes=10))
    assert check(net, "timm", tmp_path).network == name


@pytest.mark.parametrize("suffix", [".h5", ".weights.h5", ".keras"])
@pytest.mark.parametrize("name", ["vgg16", "vgg19"])
def test_keras(tmp_path, name, suffix):
    os.environ.setdefault("KERAS_BACKEND", "torch")
    keras = pytest.importorskip("keras")
    module = getattr(keras.applications, name)
    net = getattr(module, name.upper())(weights=None, classes=10, classifier_activation=None)
    file = str(tmp_path / f"net{suffix}")
    net.save_weights(file) if suffix == ".weights.h5" else net.save(file)
    pixels = module.preprocess_input(RGB.transpose(0, 2, 3, 1).astype(np.float32))
    expected = keras.ops.convert_to_numpy(net(pixels, training=False))
    import_weights(file, tmp_path / "run")
    assert np.abs(ours(tmp_path / "run") - expected).max() < 1e-4 * max(1, np.abs(expected).max())
