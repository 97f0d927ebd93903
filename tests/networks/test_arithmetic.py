"""Counts against the paper, against the built modules, and against gradients."""

import pytest
import torch

from verydeep import CONFIGURATIONS, describe, describe_stack, vgg


def layer(description, name):
    return next(layer for layer in description.layers if layer.name == name)


def test_d_at_224_costs_what_is_known_of_it():
    d = describe("D")
    assert d.parameters == 138_357_544
    assert round(d.macs / 1e9, 2) == 15.47
    assert layer(d, "conv5_3").receptive_field == 196
    assert layer(d, "pool5").receptive_field == 212
    assert d.weight_layers == 16


def test_parameters_and_layers_of_table_2():
    millions = {name: round(describe(name).parameters / 1e6) for name in CONFIGURATIONS}
    assert {name: millions[name] for name in ("A", "A-LRN", "B", "C", "D", "E")} == {
        "A": 133,
        "A-LRN": 133,
        "B": 133,
        "C": 134,
        "D": 138,
        "E": 144,
    }
    assert {name: describe(name).weight_layers for name in CONFIGURATIONS} == {
        "A": 11,
        "A-LRN": 11,
        "B": 13,
        "B-5x5": 8,
        "C": 16,
        "D": 16,
        "E": 19,
    }


@pytest.mark.parametrize("name", CONFIGURATIONS)
@pytest.mark.parametrize("options", [{}, {"batch_norm": True}, {"width": 0.3}])
def test_shapes_parameters_and_multiply_adds_are_those_of_the_module(name, options):
    """Hooks on a running network count each output element's products from the weights' own shapes."""
    net = vgg(name, classes=11, crop=64, **{"width": 0.1, **options}).eval()
    described = describe(name, input=64, classes=11, batch=3, **{"width": 0.1, **options})
    seen = {}
    for layer_name, module in net.named_children():
        module.register_forward_hook(lambda _m, _i, output, name=layer_name: seen.update({name: output}))
    net(torch.zeros(3, 3, 64, 64))
    for row in described.layers:
        output, module = seen[row.name], net.get_submodule(row.name)
        positions = output[0, 0].numel()
        weighted = isinstance(module, torch.nn.Conv2d | torch.nn.Linear)
        assert list(row.output) == [*output.shape[1:], 1, 1][:3], row.name
        assert row.parameters == sum(p.numel() for p in module.parameters()), row.name
        assert row.macs == (module.weight.numel() * positions if weighted else 0), row.name
        assert row.activation_bytes == output.numel() * output.element_size(), row.name
    assert described.parameters == sum(p.numel() for p in net.parameters())


@pytest.mark.parametrize("name", CONFIGURATIONS)
def test_receptive_field_is_where_gradients_reach(name):
    """With positive weights and average pooling every pixel inside has a gradient and none outside."""
    side = 320
    net = vgg(name, classes=2, crop=32, width=1 / 64, mean_rgb=(0.0, 0.0, 0.0)).double().eval()
    for parameter in net.parameters():
        parameter.data.fill_(1.0)
    for layer_name in net.layer_names:
        if layer_name.startswith("pool"):
            setattr(net, layer_name, torch.nn.AvgPool2d(2))
        if layer_name.startswith("lrn"):
            setattr(net, layer_name, torch.nn.Identity())
    described = describe(name, input=32)
    for layer_name in ("conv2_1", "pool3", "conv4_1", "pool5"):
        images = torch.ones(1, 3, side, side, dtype=torch.float64, requires_grad=True)
        output = net.activations(images, [layer_name])[layer_name]
        middle = output.shape[2] // 2
        output[0, 0, middle, middle].backward()
        rows = images.grad[0, 0].abs().sum(dim=1).nonzero().flatten()
        assert len(rows) == rows[-1] - rows[0] + 1
        assert len(rows) == layer(described, layer_name).receptive_field, layer_name


def test_three_3x3_layers_against_one_7x7():
    stack = describe_stack((3, 3, 3), channels=512)
    assert stack.receptive_field == 7
    assert stack.weights_per_square_channel == 27
    assert stack.weights == 27 * 512**2
    assert stack.single_weights == 49 * 512**2
    assert round(stack.single_extra_percent) == 81
    assert round(stack.fewer_percent) == 45


@pytest.mark.parametrize(("kernels", "sees"), [((3, 3), 5), ((5,), 5), ((1, 3, 1), 3), ((3, 5, 7), 13)])
def test_receptive_field_of_any_stack(kernels, sees):
    assert describe_stack(kernels, channels=1).receptive_field == sees


@pytest.mark.parametrize("kernels", [(), (2, 3), (3, -1)])
def test_what_is_no_stack_is_refused(kernels):
    with pytest.raises(ValueError, match="a stack is odd kernel sizes"):
        describe_stack(kernels, channels=3)


def test_json_has_the_agreed_keys():
    described = describe("C", input=64, classes=5).to_dict()
    assert {
        "network",
        "input",
        "classes",
        "parameters",
        "macs",
        "activation_bytes",
        "receptive_field",
    } < described.keys()
    first = described["layers"][0]
    assert {"name", "kind", "output", "parameters", "macs", "receptive_field"} < first.keys()
    assert (first["name"], first["kind"], first["output"]) == ("conv1_1", "conv", (64, 64, 64))
