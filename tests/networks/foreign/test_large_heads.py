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
        ([layer(2, CHANNELS), layer(MANY, 2)], "two layers of its head are together one of 3,000,000 x 64 numbers"),
        ([layer(MANY, CHANNELS, relu=True), layer(2, MANY)], "3,000,000 units, where fc6 and fc7 have 512"),
        ([layer(MANY, CHANNELS * 49)], "6,000,000 units, where fc6 and fc7 have 512"),
    ],
    ids=["thin between", "wide", "split by sign"],
)
def test_a_head_that_is_wide_by_itself_or_where_two_layers_meet(layers, message):
    with pytest.raises(ValueError, match=message):
        written_head(CONVOLUTIONS, Head(layers=tuple(layers)), network=None, crop=224)


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
    with pytest.raises(ValueError, match="norm is a scale where the paper's networks have none"):
        from_layers(steps, "onnx", side=None, notes=())
