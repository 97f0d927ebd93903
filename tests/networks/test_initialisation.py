"""First weights against the distributions and the rule that the paper states."""

import math

import pytest
import torch
from scipy import stats

from verydeep import initialise, vgg

# PAPER.md: A's first four convolutional layers, matched by name, and the three fully connected ones.
FROM_A = ("conv1_1", "conv2_1", "conv3_1", "conv3_2", "fc6", "fc7", "fc8")


def tiny(name, **options):
    return vgg(name, classes=5, crop=32, width=0.25, **options)


def weights_of(net):
    return {
        name: layer.weight
        for name, layer in net.named_children()
        if isinstance(layer, torch.nn.Conv2d | torch.nn.Linear)
    }


def test_glorot_is_uniform_with_the_bound_of_equation_16():
    net = tiny("D")
    initialise(net, "glorot", generator=torch.Generator().manual_seed(0))
    for name, weight in weights_of(net).items():
        window = weight[0, 0].numel() if weight.ndim == 4 else 1
        bound = math.sqrt(6 / (weight.shape[1] * window + weight.shape[0] * window))
        fit = stats.kstest(weight.detach().flatten().numpy(), stats.uniform(-bound, 2 * bound).cdf)
        assert fit.pvalue > 1e-4, name
        assert net.get_submodule(name).bias.eq(0).all()


@pytest.mark.parametrize(("scheme", "variance"), [("paper", 1e-4), ("paper-variance", 1e-2)])
def test_paper_is_normal_with_standard_deviation_001_or_that_variance(scheme, variance):
    net = tiny("D")
    initialise(net, scheme, generator=torch.Generator().manual_seed(0))
    for name, weight in weights_of(net).items():
        fit = stats.kstest(weight.detach().flatten().numpy(), stats.norm(0, math.sqrt(variance)).cdf)
        assert fit.pvalue > 1e-4, name
        assert net.get_submodule(name).bias.eq(0).all()


@pytest.mark.parametrize("scheme", ["glorot", "paper"])
def test_the_same_generator_gives_the_same_weights(scheme):
    first, second = tiny("A"), tiny("A")
    for net in (first, second):
        initialise(net, scheme, generator=torch.Generator().manual_seed(3))
    for name, weight in weights_of(first).items():
        assert torch.equal(weight, weights_of(second)[name])


@pytest.mark.parametrize("name", ["B", "C", "D", "E"])
@pytest.mark.parametrize("batch_norm", [False, True])
def test_deeper_networks_copy_from_a_what_the_paper_says(name, batch_norm):
    a, net = tiny("A", batch_norm=batch_norm), tiny(name, batch_norm=batch_norm)
    for value in a.state_dict().values():
        if value.is_floating_point():
            value.copy_(torch.rand_like(value))
    done = initialise(net, "glorot", seed_from=a)
    copied = {layer for layer in done.copied if not layer.startswith("bn")}
    assert copied == set(FROM_A)
    assert {layer for layer in done.copied if layer.startswith("bn")} == (
        {"bn1_1", "bn2_1", "bn3_1", "bn3_2"} if batch_norm else set()
    )
    for layer, state in ((layer, net.get_submodule(layer).state_dict()) for layer in net.layer_names):
        for key, value in state.items():
            same = layer in a.layer_names and torch.equal(a.state_dict().get(f"{layer}.{key}", torch.empty(0)), value)
            if value.is_floating_point():
                assert same == (layer in done.copied), f"{layer}.{key}"
    assert set(done.copied) | set(done.random) == {
        layer for layer in net.layer_names if net.get_submodule(layer).state_dict()
    }
    assert not set(done.copied) & set(done.random)
    assert "copied: conv1_1" in str(done)


def test_what_does_not_fit_is_refused_by_name_and_nothing_is_changed():
    a, net = tiny("A"), tiny("B-5x5")
    before = {name: value.clone() for name, value in net.state_dict().items()}
    with pytest.raises(ValueError, match="cannot seed B-5x5 from this A") as caught:
        initialise(net, seed_from=a)
    assert "conv1_1 is [16, 3, 3, 3] there and [16, 3, 5, 5] here" in str(caught.value)
    assert "conv3_2 is missing in B-5x5" in str(caught.value)
    for name, value in net.state_dict().items():
        assert torch.equal(value, before[name])


def test_no_layers_to_copy_are_none_and_those_that_the_trained_network_lacks_are_refused():
    assert initialise(tiny("B"), seed_from=tiny("A"), layers=[]).copied == ()
    with pytest.raises(ValueError, match="conv1_2 is missing in A; relu1_1 is missing in B"):
        initialise(tiny("B"), seed_from=tiny("A"), layers=["conv1_2", "relu1_1"])


def test_another_number_of_classes_or_another_width_is_refused():
    with pytest.raises(ValueError, match=r"fc8 is \[6, 1024\] there and \[5, 1024\] here"):
        initialise(tiny("D"), seed_from=vgg("A", classes=6, crop=32, width=0.25))
    with pytest.raises(ValueError, match="conv1_1"):
        initialise(tiny("D"), seed_from=vgg("A", classes=5, crop=32, width=0.5))
    with pytest.raises(ValueError, match="batch normalisation"):
        initialise(tiny("D"), seed_from=tiny("A", batch_norm=True))


def test_an_unknown_scheme_is_refused():
    with pytest.raises(ValueError, match="unknown initialisation 'kaiming': choose glorot, paper, paper-variance"):
        initialise(tiny("A"), "kaiming")
