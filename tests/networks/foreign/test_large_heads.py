"""Small files whose layers would become large matrices are refused before these are made."""

import pytest
import torch

from verydeep.networks.architecture import STAGE_CHANNELS
from verydeep.networks.foreign.heads import Affine, Head, written_head
from verydeep.networks.foreign.layers_in_order import LayerStep, from_layers
from verydeep.networks.initialisation import vgg

MANY = 3_000_000
"""A square of so many numbers has 36 TB; tensors here repeat one number, which takes no memory."""

CONVOLUTIONS = {name: value for name, value in vgg("A", classes=2, width=0.125).state_dict().items() if "conv" in name}
CHANNELS = 64


def same(*shape):
    return torch.ones(1).expand(*shape)


def layer(outputs, inputs, *, relu=False):
    return Affine(weight=same(outputs, inputs), bias=same(outputs), relu=relu)


@pytest.mark.parametrize(
    ("layers", "message"),
    [
        ([layer(2, CHANNELS), layer(10 * MANY, 2)], "its head would become a layer of 30,000,000 x 64 numbers"),
        ([layer(MANY, CHANNELS, relu=True), layer(2, MANY)], "3,000,000 units, where fc6 and fc7 have 512"),
        ([layer(MANY, CHANNELS * 49)], "one layer of 3,000,000 outputs, of which fc6, fc7 and fc8 can have 256"),
        ([layer(1, CHANNELS, relu=True), layer(MANY, 1)], "its head would become a layer of 3,000,000 x 512 numbers"),
    ],
    ids=["thin between", "wide", "split by sign", "fc8"],
)
def test_a_head_that_is_wide_by_itself_or_where_two_layers_meet(layers, message):
    with pytest.raises(ValueError, match=message):
        written_head(CONVOLUTIONS, Head(layers=tuple(layers)), network=None, crop=224)


def test_a_mean_over_more_positions_than_any_crop_has():
    head = Head(layers=(layer(512, CHANNELS, relu=True), layer(2, 512)), pooled="mean")
    with pytest.raises(ValueError, match="its head would become a layer of 512 x 64,000,000 numbers"):
        written_head(CONVOLUTIONS, head, network=None, crop=32_000)


def steps_with(*more):
    """The layers of A up to pool5, then others."""
    inputs, steps = 3, []
    for channels in STAGE_CHANNELS:
        steps += [LayerStep(kind="conv", name="c", weight=same(channels, inputs, 3, 3), bias=same(channels))]
        steps += [LayerStep(kind="relu", name="r"), LayerStep(kind="pool", name="p")]
        inputs = channels
    return [*steps, *more]


def test_a_normalisation_of_many_numbers():
    norm = LayerStep(kind="scale", name="norm", weight=same(MANY), bias=same(MANY))
    steps = steps_with(LayerStep(kind="flatten_chw", name="f"), norm, LayerStep(kind="relu", name="r"))
    with pytest.raises(ValueError, match="its head multiplies 3,000,000 numbers, each by its own"):
        from_layers(steps, "onnx", side=None, notes=())


def test_a_normalisation_of_more_channels_than_its_convolution_has():
    steps = steps_with()
    steps.insert(1, LayerStep(kind="scale", name="norm", weight=same(MANY), bias=same(MANY)))
    with pytest.raises(ValueError, match="norm has 3,000,000 channels, conv1_1 64"):
        from_layers(steps, "onnx", side=None, notes=())
