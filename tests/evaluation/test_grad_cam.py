"""Grad-CAM against its definition, by hooks on the whole network and a loop over channels."""

import numpy as np
import pytest
import torch

from verydeep import vgg
from verydeep.evaluation import grad_cam as module
from verydeep.evaluation.grad_cam import grad_cam, last_convolution
from verydeep.evaluation.score_maps import overlay
from verydeep.images.decode import UnusableImageError


def by_hooks(net, image, label, grid):
    """Weigh each channel of the last convolution by its mean gradient; keep what is above 0; divide by the largest."""
    seen = []
    layer = net.get_submodule(last_convolution(net))
    handles = [
        layer.register_forward_hook(lambda _module, _inputs, output: seen.append(output)),
        layer.register_full_backward_hook(lambda _module, _inputs, gradients: seen.append(gradients[0])),
    ]
    batch = torch.from_numpy(image.transpose(2, 0, 1).copy())[None].float().requires_grad_()
    net.score_map(batch, grid=grid)[0, label].mean().backward()
    for handle in handles:
        handle.remove()
    activations, gradients = (one[0].detach() for one in seen)
    total = torch.zeros(activations.shape[1:])
    for channel, gradient in zip(activations, gradients, strict=True):
        total += gradient.sum() / gradient.numel() * channel
    total = total.clamp(min=0)
    return (total / total.max().clamp(min=1e-30)).numpy()


def lively(name, **more):
    torch.manual_seed(0)
    net = vgg(name, classes=5, crop=32, width=0.1, **more).eval()
    with torch.no_grad():
        for one in net.modules():
            if isinstance(one, torch.nn.Conv2d | torch.nn.Linear):
                one.weight.normal_(0, (2 / one.weight[0].numel()) ** 0.5)
    return net


@pytest.mark.parametrize(
    ("net", "layer", "grid"),
    [
        ("D", "relu5_3", "centred"),
        ("B-5x5", "relu5_1", "floor"),
        ("A-bn", "relu5_2", "ceil"),
        ("A-bn", "relu5_2", "centred"),
    ],
)
def test_it_is_what_hooks_compute(net, layer, grid):
    net = lively(net.removesuffix("-bn"), batch_norm=net.endswith("-bn"))
    image = np.random.default_rng(1).integers(0, 256, (79, 122, 3), dtype=np.uint8)
    assert last_convolution(net) == layer
    seen = []
    for label in range(4):
        found = grad_cam(net, image, label, name="image", grid=grid)
        np.testing.assert_allclose(found.values, by_hooks(net, image, label, grid), atol=1e-5)
        seen.append(found.values)
    assert sum(values.max() == 1 for values in seen) >= 2
    assert found.values.shape == {"centred": (4, 6), "floor": (4, 7), "ceil": (5, 8)}[grid]


def passing_on():
    """A net whose only channel is how red a place is, and whose score is the sum of it."""
    net = vgg("A", classes=2, crop=32, width=0.05, mean_rgb=(0, 0, 0)).eval()
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.zero_()
            if parameter.ndim > 1:
                parameter[(0, 0, 1, 1) if parameter.ndim == 4 else (0, 0)] = 1
    return net


@pytest.mark.parametrize("grid", ["centred", "floor", "ceil"])
@pytest.mark.parametrize("place", [(16, 32), (80, 112), (64, 16)])
def test_it_lies_where_the_object_is(place, grid):
    """A red square that fills one cell of conv5 is brightest in its middle, in the picture too."""
    image = np.zeros((150, 173, 3), np.uint8)
    top, left = (
        offset + (side % 32 // 2 if grid == "centred" else 0) for offset, side in zip(place, (150, 173), strict=True)
    )
    image[top : top + 16, left : left + 16, 0] = 250
    found = grad_cam(passing_on(), image, 0, name="image", grid=grid)
    row, column = np.unravel_index(found.values.argmax(), found.values.shape)
    assert found.first_centre[0] + 16 * row == top + 8
    assert found.first_centre[1] + 16 * column == left + 8
    drawn = overlay(np.zeros((300, 346, 3), np.uint8), found).astype(int)
    brightest = np.unravel_index((drawn[..., 0] - drawn[..., 2]).argmax(), drawn.shape[:2])
    assert np.abs(np.array(brightest) - 2 * np.array([top + 8, left + 8])).max() <= 2


def test_nothing_that_speaks_for_a_class_is_a_map_of_zeros():
    found = grad_cam(passing_on(), np.zeros((40, 40, 3), np.uint8), 1, name="image")
    assert (found.values == 0).all()


def test_an_image_for_which_there_is_no_memory_is_refused(monkeypatch):
    monkeypatch.setattr(module, "largest_image", lambda *_: 40 * 40 - 1)
    with pytest.raises(UnusableImageError, match="choose smaller scales"):
        grad_cam(passing_on(), np.zeros((40, 40, 3), np.uint8), 0, name="image")
