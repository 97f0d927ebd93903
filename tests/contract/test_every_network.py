"""What holds of every network, with and without batch normalisation: it learns, travels and counts, in every view."""

import copy
from typing import get_args

import pytest
import torch

from verydeep import CONFIGURATIONS, load, vgg
from verydeep.evaluation.pixel_limits import NO_LIMITS
from verydeep.evaluation.protocols import ViewName, view_named
from verydeep.runs.model import Model, load_model, save_model

CLASSES = ("a", "b", "c", "d", "e", "f")

every_network = pytest.mark.parametrize(
    ("name", "batch_norm"), [(name, batch_norm) for name in CONFIGURATIONS for batch_norm in (False, True)]
)


def tiny(name, batch_norm):
    torch.manual_seed(0)
    return vgg(name, classes=6, crop=64, width=0.05, batch_norm=batch_norm, mean_rgb=(100.0, 120.0, 90.0))


def images(*size):
    return torch.rand(3, 3, *size, generator=torch.Generator().manual_seed(1)) * 255


@every_network
def test_a_step_changes_every_weight(name, batch_norm):
    net = tiny(name, batch_norm).train()
    before = {key: value.clone() for key, value in net.named_parameters()}
    torch.nn.functional.cross_entropy(net(images(64, 64)), torch.tensor([0, 1, 2])).backward()
    torch.optim.SGD(net.parameters(), lr=1e-2, weight_decay=0.1).step()
    frozen = {key for key, value in net.named_parameters() if torch.equal(value, before[key])}
    # In front of a batch normalisation a bias has no effect and so no gradient; it starts at 0.
    assert all(key.startswith("conv") and key.endswith("bias") for key in frozen)
    assert batch_norm or not frozen


@every_network
def test_weights_travel_and_scores_stay(name, batch_norm, tmp_path):
    net = tiny(name, batch_norm)
    net(images(64, 64))  # gives batch normalisations their statistics
    net.eval()
    save_model(Model(net=net, classes=CLASSES, scale="256:512", flip=False), tmp_path / "model")
    found = load_model(tmp_path / "model")
    assert (found.classes, found.scale, found.flip) == (CLASSES, "256:512", False)
    assert not found.net.training
    assert torch.equal(found.net(images(64, 64)), net(images(64, 64)))
    assert torch.equal(found.net.score_map(images(70, 99)), net.score_map(images(70, 99)))
    assert {key: (value.shape, value.dtype) for key, value in found.net.state_dict().items()} == {
        key: (value.shape, value.dtype) for key, value in net.state_dict().items()
    }


def test_class_names_that_are_no_text_travel_too(tmp_path):
    """As a folder of a file system without UTF-8 has them."""
    classes = ("caf\udce9", *CLASSES[1:])
    save_model(Model(net=tiny("A", False), classes=classes, scale="256", flip=True), tmp_path / "model")
    assert load_model(tmp_path / "model").classes == classes


@pytest.mark.parametrize("view", get_args(ViewName))
@every_network
def test_posteriors_are_probabilities(name, batch_norm, view):
    posterior = view_named(view).posteriors(
        tiny(name, batch_norm), images(67, 101), mirror=view != "centre", limits=NO_LIMITS
    )
    assert posterior.shape == (3, 6)
    assert posterior.min() >= 0
    assert torch.allclose(posterior.sum(dim=1), torch.ones_like(posterior[:, 0]))


@every_network
def test_images_do_not_see_each_other(name, batch_norm):
    net = tiny(name, batch_norm).eval()
    together = net.score_map(images(70, 99))
    alone = torch.cat([net.score_map(image[None]) for image in images(70, 99)])
    assert (together - alone).abs().max() < 1e-5 * alone.abs().max()


@every_network
def test_copies_are_independent(name, batch_norm):
    net = tiny(name, batch_norm).eval()
    other = copy.deepcopy(net)
    torch.nn.init.zeros_(other.fc8.weight)
    assert not torch.equal(net(images(64, 64)), other(images(64, 64)))


@every_network
def test_memory_layout_does_not_matter(name, batch_norm):
    net = tiny(name, batch_norm).eval()
    expected = net(images(64, 64))
    laid_out = copy.deepcopy(net).to(memory_format=torch.channels_last)
    found = laid_out(images(64, 64).to(memory_format=torch.channels_last))
    assert (found - expected).abs().max() < 1e-5 * expected.abs().max()


def test_load_refuses_what_is_no_model(tmp_path):
    with pytest.raises(ValueError, match="is not a run"):
        load(tmp_path)
    save_model(Model(net=tiny("A", False), classes=CLASSES, scale="256", flip=True), tmp_path / "model")
    weights = bytearray((tmp_path / "model" / "model.safetensors").read_bytes())
    weights[-1] ^= 1
    (tmp_path / "model" / "model.safetensors").write_bytes(weights)
    with pytest.raises(ValueError, match="its SHA-256 differs"):
        load(tmp_path)
    (tmp_path / "model" / "config.json").write_text(
        '{"network": "B", "crop": 64, "width": 0.05, "scale": "256", "flip": true, "classes": ["a", "b"]}'
    )
    with pytest.raises(ValueError, match="does not hold a usable model"):
        load(tmp_path)
    (tmp_path / "model" / "model.safetensors").write_bytes(b"\x80\x04 pickled things")
    with pytest.raises(ValueError, match="does not hold a usable model"):
        load(tmp_path)
