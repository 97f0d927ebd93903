"""Convolutions whose weights' gradient is one product, and poolings that come before a ReLU."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from verydeep.networks.architecture import Architecture
from verydeep.networks.convolution import Convolution
from verydeep.networks.vgg import VGG


def in_bfloat16(convolution, x, gradient):
    """Return the output, the gradients of input, weights and bias, and whether the gradient is one product."""
    x = x.clone().requires_grad_()
    with torch.autocast("cpu", torch.bfloat16):
        y = convolution(x)
    y.backward(gradient.to(y.dtype))
    return (y, x.grad, convolution.weight.grad, convolution.bias.grad), "_Convolved" in type(y.grad_fn).__name__


@pytest.mark.parametrize(("kernel", "height", "width"), [(1, 4, 4), (3, 2, 2), (3, 8, 5), (3, 1, 7), (5, 4, 6)])
def test_gradients_are_those_of_a_convolution(kernel, height, width):
    torch.manual_seed(0)
    convolution = Convolution(64, 72, kernel).to(memory_format=torch.channels_last)
    x = torch.randn(3, 64, height, width).to(memory_format=torch.channels_last)
    gradient = torch.randn(3, 72, height, width)
    got, as_product = in_bfloat16(convolution, x, gradient)
    assert as_product

    exact = [value.detach().bfloat16().double().requires_grad_() for value in (x, *convolution.parameters())]
    y = F.conv2d(*exact, padding=kernel // 2)
    y.backward(gradient.bfloat16().double())
    for ours, true in zip(got, [y, *(value.grad for value in exact)], strict=True):
        # Numbers are rounded by up to 2**-9, and by processors without products in bfloat16 some sums on the way, too.
        assert (ours.double() - true).norm() <= 2**-7 * true.norm()
    assert convolution.weight.grad.dtype == torch.float32
    assert convolution.weight.grad.stride() == convolution.weight.stride()


@pytest.mark.parametrize(
    ("channels", "side", "frozen", "bf16"),
    [(64, 9, False, True), (32, 4, False, True), (64, 4, True, True), (64, 4, False, False)],
)
def test_other_convolutions_are_left_alone(channels, side, frozen, bf16):
    convolution = Convolution(channels, 64, 3).requires_grad_(not frozen)
    x = torch.randn(2, channels, side, side, requires_grad=True)
    with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
        y = convolution(x)
        assert "_Convolved" not in type(y.grad_fn).__name__
        assert torch.equal(y, F.conv2d(x, convolution.weight, convolution.bias, padding=1))


@pytest.mark.parametrize("network", ["A", "A-LRN", "C"])
@pytest.mark.parametrize("batch_norm", [False, True])
def test_pooling_before_the_relu_changes_no_bit(network, batch_norm):
    torch.manual_seed(1)
    net = VGG(Architecture(network=network, classes=3, crop=32, width=1 / 16, batch_norm=batch_norm), dropout=0)
    images = torch.randint(0, 256, (4, 3, 32, 32)).float()
    x = images - net.mean_rgb[:, None, None]
    for name in net.layer_names:  # one after the other, as the paper has them
        x = getattr(net, name)(x.flatten(1) if name == "fc6" else x)
    x.square().sum().backward()
    expected = {name: value.grad.clone() for name, value in net.named_parameters()}
    net.zero_grad()
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.reset_running_stats()
    logits = net(images)
    logits.square().sum().backward()
    assert torch.equal(logits, x)
    assert all(torch.equal(value.grad, expected[name]) for name, value in net.named_parameters())


def test_what_somebody_asks_for_keeps_its_place():
    net = VGG(Architecture(network="A", classes=3, crop=32, width=1 / 16)).train()
    images = torch.randint(0, 256, (2, 3, 32, 32)).float()
    for names in (["relu1_1", "pool1"], ["relu1_1"], ["pool1"]):
        got = net.activations(images, names)
        assert all(value.min() >= 0 for value in got.values())
        assert torch.equal(got[names[-1]], net.eval().activations(images, names)[names[-1]])
        net.train()
