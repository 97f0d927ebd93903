"""An architecture as a value: what it refuses, its layers, its way through files."""

import json
from dataclasses import astuple, fields, replace

import pytest
import torch

from verydeep import describe
from verydeep.networks.architecture import Architecture
from verydeep.networks.arithmetic import describe_architecture
from verydeep.networks.vgg import VGG

TINY = Architecture(network="C", classes=5, crop=64, width=0.05, batch_norm=True)


def test_the_same_architecture_is_written_in_one_way_only():
    other = Architecture(network="c", classes=5, crop=64, width=0.05, batch_norm=1)
    assert (other, hash(other)) == (TINY, hash(TINY))
    assert json.dumps(astuple(other)) == json.dumps(astuple(TINY)) == '["C", 5, 64, 0.05, true, null]'
    assert json.dumps(astuple(Architecture(network="A", width=1))) == '["A", 1000, 224, 1.0, false, null]'


@pytest.mark.parametrize(
    ("change", "error", "reason"),
    [
        ({"network": "F"}, ValueError, "unknown network 'F'"),
        ({"classes": 1}, ValueError, "at least 2 classes"),
        ({"classes": 2.5}, TypeError, "integer"),
        ({"crop": 50}, ValueError, "multiple of 32"),
        ({"crop": "64"}, TypeError, "integer"),
        ({"width": 0}, ValueError, "positive number"),
        ({"width": float("nan")}, ValueError, "positive number"),
        ({"boxes": "one"}, ValueError, "boxes are shared or per-class, not 'one'"),
    ],
)
def test_what_cannot_be_is_refused(change, error, reason):
    with pytest.raises(error, match=reason):
        replace(TINY, **change)


@pytest.mark.parametrize(("boxes", "outputs"), [(None, 5), ("shared", 4), ("per-class", 20)])
def test_fc8_has_an_output_for_each_score_or_number_of_a_box(boxes, outputs):
    architecture = replace(TINY, boxes=boxes)
    net = VGG(architecture).eval()
    assert architecture.outputs == architecture.layers()[-1].outputs == outputs
    assert net(torch.zeros(1, 3, 64, 64)).shape == (1, outputs)


@pytest.mark.parametrize("boxes", [None, "shared"])
def test_files_name_boxes_only_where_there_are_some(boxes):
    named = {"network", "crop", "width", "batch_norm", *(["boxes"] if boxes else [])}
    assert replace(TINY, boxes=boxes).to_json().keys() == named


OTHERS = {"network": "D", "classes": 6, "crop": 32, "width": 0.1, "batch_norm": False, "boxes": "shared"}


def test_every_field_makes_another_network():
    """That each is in every key, which is made of all fields."""
    assert OTHERS.keys() == {field.name for field in fields(Architecture)}
    shapes = {name: {layer: value.shape for layer, value in VGG(net).state_dict().items()} for name, net in nets()}
    assert all(shapes[name] != shapes["none"] for name in OTHERS)
    assert len({json.dumps(astuple(net)) for _, net in nets()}) == 1 + len(OTHERS)


def nets():
    return [("none", TINY), *((name, replace(TINY, **{name: value})) for name, value in OTHERS.items())]


def test_a_name_is_described_as_its_architecture_is():
    described = describe_architecture(TINY)
    assert described == describe("C", input=64, classes=5, width=0.05, batch_norm=True)
    assert described.parameters == sum(value.numel() for value in VGG(TINY).parameters())
    assert describe("D") == describe_architecture(Architecture(network="D", classes=1000, crop=224, width=1.0))


@pytest.mark.parametrize(
    ("field", "said"), [({"width": 1e18}, "up to 100"), ({"classes": 10**18}, "at most 10,000,000")]
)
def test_sizes_that_no_computer_can_count_are_refused(field, said):
    with pytest.raises(ValueError, match=said):
        Architecture(network="A", **{"classes": 10, **field})
