"""The module against definitions written out here: the paper's table, naive loops, sliding windows."""

import re

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from verydeep import CONFIGURATIONS, vgg

# PAPER.md's exact counts, which are also torchvision's for A, B, D and E.
PARAMETERS = {
    "A": 132_863_336,
    "A-LRN": 132_863_336,
    "B": 133_047_848,
    "C": 133_638_952,
    "D": 138_357_544,
    "E": 143_667_240,
}

TABLE_1 = {
    "A": "3-64 M 3-128 M 3-256 3-256 M 3-512 3-512 M 3-512 3-512 M",
    "A-LRN": "3-64 L M 3-128 M 3-256 3-256 M 3-512 3-512 M 3-512 3-512 M",
    "B": "3-64 3-64 M 3-128 3-128 M 3-256 3-256 M 3-512 3-512 M 3-512 3-512 M",
    "B-5x5": "5-64 M 5-128 M 5-256 M 5-512 M 5-512 M",
    "C": "3-64 3-64 M 3-128 3-128 M 3-256 3-256 1-256 M 3-512 3-512 1-512 M 3-512 3-512 1-512 M",
    "D": "3-64 3-64 M 3-128 3-128 M 3-256 3-256 3-256 M 3-512 3-512 3-512 M 3-512 3-512 3-512 M",
    "E": "3-64 3-64 M 3-128 3-128 M 3-256 3-256 3-256 3-256 M 3-512 3-512 3-512 3-512 M 3-512 3-512 3-512 3-512 M",
}


def tiny(name, crop=64, **options):
    torch.manual_seed(0)
    return vgg(name, classes=7, crop=crop, width=0.05, **options).eval()


def photographs(*shape, seed=0):
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed)) * 255


def relative_difference(a, b):
    return ((a - b).abs().max() / b.abs().max()).item()


@pytest.mark.parametrize("name", PARAMETERS)
def test_parameters_are_exactly_the_papers(name):
    with torch.device("meta"):
        net = vgg(name)
    assert sum(p.numel() for p in net.parameters()) == PARAMETERS[name]


@pytest.mark.parametrize("name", CONFIGURATIONS)
def test_layers_are_those_of_table_1(name):
    with torch.device("meta"):
        net = vgg(name)
    found = []
    for layer_name, layer in net.named_children():
        if isinstance(layer, torch.nn.Conv2d):
            assert layer.stride == (1, 1)
            assert layer.padding == (layer.kernel_size[0] // 2,) * 2
            found.append(f"{layer.kernel_size[0]}-{layer.out_channels}")
        elif isinstance(layer, torch.nn.MaxPool2d):
            assert (layer.kernel_size, layer.stride) == (2, 2)
            found.append("M")
        elif layer_name.startswith("lrn"):
            found.append("L")
    assert " ".join(found) == TABLE_1[name]
    assert [net.fc6.in_features, net.fc6.out_features] == [7 * 7 * 512, 4096]
    assert [net.fc7.out_features, net.fc8.out_features] == [4096, 1000]


@pytest.mark.parametrize("name", CONFIGURATIONS)
@pytest.mark.parametrize("batch_norm", [False, True])
def test_forward_is_the_plain_computation(name, batch_norm):
    """Convolution, (normalisation), ReLU, LRN by loops, pooling, matrix products, written out one after the other."""
    net = tiny(name, batch_norm=batch_norm, mean_rgb=(10.0, 20.0, 30.0))
    weights = dict(net.state_dict())
    images = photographs(2, 3, 64, 64)
    x = images - torch.tensor([10.0, 20.0, 30.0]).reshape(1, 3, 1, 1)
    for stage, entry in enumerate(TABLE_1[name].split(" M")[:5], 1):
        for place, layer in enumerate((e for e in entry.split() if e != "L"), 1):
            weight, bias = weights[f"conv{stage}_{place}.weight"], weights[f"conv{stage}_{place}.bias"]
            x = F.conv2d(x, weight, bias, padding=int(layer[0]) // 2)
            if batch_norm:
                x = x / (1 + 1e-5) ** 0.5  # statistics are still 0 and 1, scale 1, shift 0
            x = x.clamp(min=0)
        if "L" in entry:
            x = naive_lrn(x)
        x = F.max_pool2d(x, 2)
    x = x.reshape(2, -1)
    for fc in ("fc6", "fc7"):
        x = (x @ weights[f"{fc}.weight"].T + weights[f"{fc}.bias"]).clamp(min=0)
    expected = x @ weights["fc8.weight"].T + weights["fc8.bias"]
    assert relative_difference(net(images), expected) < 1e-5


def naive_lrn(a, n=5, alpha=1e-4, beta=0.75, k=2.0):
    """Krizhevsky et al. 2012, section 3.3, channel by channel."""
    channels = a.shape[1]
    b = torch.empty_like(a)
    for i in range(channels):
        total = torch.zeros_like(a[:, i])
        for j in range(max(0, i - n // 2), min(channels - 1, i + n // 2) + 1):
            total += a[:, j] ** 2
        b[:, i] = a[:, i] / (k + alpha * total) ** beta
    return b


def test_lrn_is_krizhevskys_and_not_the_librarys():
    from verydeep.networks.vgg import LocalResponseNorm

    a = photographs(2, 9, 4, 3)
    ours = LocalResponseNorm()(a)
    assert relative_difference(ours, naive_lrn(a)) < 1e-6
    assert relative_difference(ours, F.local_response_norm(a, 5, alpha=1e-4, beta=0.75, k=2.0)) > 0.1
    assert LocalResponseNorm()(a[:0]).shape == (0, 9, 4, 3)


def test_a_program_of_lrn_goes_to_any_device():
    """No tensor in it is made on the device of the example."""
    from verydeep.networks.vgg import LocalResponseNorm

    program = torch.export.export(LocalResponseNorm(), (torch.zeros(2, 9, 4, 3),))
    assert [node.name for node in program.graph.nodes if "device" in node.kwargs] == []
    assert program.module().to("meta")(torch.zeros(2, 9, 4, 3, device="meta")).device.type == "meta"


@pytest.mark.parametrize("name", CONFIGURATIONS)
@pytest.mark.parametrize("crop", [32, 64, 96])
def test_score_map_of_a_crop_is_forward(name, crop):
    net, images = tiny(name, crop), photographs(3, 3, crop, crop)
    assert net.score_map(images).shape == (3, 7, 1, 1)
    assert relative_difference(net.score_map(images)[:, :, 0, 0], net(images)) < 1e-5


def test_score_map_of_a_crop_is_forward_for_the_papers_own_d():
    torch.manual_seed(0)
    net, images = vgg("D").eval(), photographs(1, 3, 224, 224)
    with torch.inference_mode():
        assert relative_difference(net.score_map(images)[:, :, 0, 0], net(images)) < 1e-5


@pytest.mark.parametrize("name", CONFIGURATIONS)
@pytest.mark.parametrize("size", [(64, 64), (128, 96), (97, 131), (127, 64), (160, 191)])
def test_each_position_of_the_score_map_is_the_linear_head_on_its_window(name, size):
    net, images = tiny(name), photographs(2, 3, *size)
    pool5 = net.activations(images, ["pool5"], dense=True)["pool5"]
    assert pool5.shape[2:] == (size[0] // 32, size[1] // 32)
    score_map = net.score_map(images)
    assert score_map.shape[2:] == (size[0] // 32 - 1, size[1] // 32 - 1)
    for i in range(score_map.shape[2]):
        for j in range(score_map.shape[3]):
            window = pool5[:, :, i : i + 2, j : j + 2].reshape(2, -1)
            expected = net.fc8(F.relu(net.fc7(F.relu(net.fc6(window)))))
            assert relative_difference(score_map[:, :, i, j], expected) < 1e-5


@settings(max_examples=25)
@given(height=st.integers(32, 200), width=st.integers(32, 200))
def test_the_grid_of_the_score_map_is_centred(height, width):
    """Max-pooling alone (identity convolutions) shows which pixels each position of pool5 stands for."""
    net = vgg("B-5x5", classes=2, crop=32, width=1 / 64, mean_rgb=(0.0, 0.0, 0.0)).eval()
    with torch.no_grad():
        for stage in range(1, 6):
            conv = getattr(net, f"conv{stage}_1")
            conv.weight.zero_()
            conv.weight[0, 0, 2, 2] = 1.0
    images = photographs(1, 3, height, width)
    found = net.activations(images, ["pool5"], dense=True)["pool5"][0, 0]
    top, left = (height % 32) // 2, (width % 32) // 2
    for i in range(height // 32):
        for j in range(width // 32):
            block = images[0, 0, top + 32 * i : top + 32 * (i + 1), left + 32 * j : left + 32 * (j + 1)]
            assert found[i, j] == block.max()


def test_pixels_outside_the_grid_still_reach_the_score_map():
    net, images = tiny("D", crop=32), photographs(1, 3, 45, 45)
    changed = images.clone()
    changed[:, :, 0] = 255 - changed[:, :, 0]
    assert not torch.equal(net.score_map(images), net.score_map(changed))


def test_activations_before_and_after_relu_are_kept_apart():
    net, images = tiny("D"), photographs(2, 3, 64, 64)
    names = ["relu3_2", "conv3_2", "pool3", "fc7", "relu7", "fc8"]
    found = net.activations(images, names)
    assert list(found) == names
    assert found["conv3_2"].min() < 0
    assert torch.equal(found["relu3_2"], found["conv3_2"].clamp(min=0))
    assert torch.equal(found["relu7"], found["fc7"].clamp(min=0))
    assert torch.equal(found["fc8"], net(images))


def test_every_layers_activation_is_what_a_hook_sees():
    net, images = tiny("A-LRN"), photographs(2, 3, 64, 64)
    seen = {}
    for name, layer in net.named_children():
        layer.register_forward_hook(lambda _m, _i, output, name=name: seen.update({name: output.clone()}))
    net(images)
    found = net.activations(images, net.layer_names)
    assert found.keys() == seen.keys()
    for name, value in seen.items():
        assert torch.equal(found[name], value)


def test_activations_stop_at_the_deepest_layer_asked_for():
    net = tiny("D")
    net.conv3_1.register_forward_hook(lambda *_: pytest.fail("conv3_1 was computed for conv2_2"))
    assert net.activations(photographs(1, 3, 40, 50), ["conv2_2"])["conv2_2"].shape[2:] == (20, 25)


def test_bytes_and_floats_give_the_same_scores():
    net = tiny("A")
    images = photographs(2, 3, 64, 64).to(torch.uint8)
    assert torch.equal(net(images), net(images.float()))


def test_mean_and_crop_are_part_of_the_network():
    net = tiny("A", mean_rgb=(1.0, 2.0, 3.0))
    assert net.architecture.crop == 64
    assert net.state_dict()["mean_rgb"].tolist() == [1.0, 2.0, 3.0]


def test_width_scales_every_hidden_layer():
    net = vgg("D", classes=10, crop=32, width=0.25)
    assert [net.conv1_1.out_channels, net.conv5_3.out_channels] == [16, 128]
    assert [net.fc6.in_features, net.fc6.out_features, net.fc7.out_features] == [128, 1024, 1024]
    assert net.fc8.out_features == 10


def test_dropout_acts_in_training_only():
    net, images = tiny("A", dropout=0.5), photographs(2, 3, 64, 64)
    assert torch.equal(net(images), net(images))
    net.train()
    assert not torch.equal(net(images), net(images))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"name": "F"}, "unknown network 'F': choose one of A, A-LRN, B, B-5x5, C, D, E"),
        ({"name": "vgg16"}, "unknown network 'vgg16': the paper calls it D"),
        (
            {"name": "VGG16_BN"},
            "unknown network 'VGG16_BN': the paper calls it D; _bn is batch_norm here (--batch-norm)",
        ),
        ({"name": "D", "crop": 112}, "crop 112 is not a multiple of 32 (five poolings halve it): try 128"),
        ({"name": "D", "crop": 0}, "crop 0 is not a multiple of 32 (five poolings halve it): try 32"),
        ({"name": "D", "crop": 8224}, "crop 8224 is larger than 8,192 pixels, the most that are computed at once"),
        ({"name": "D", "classes": 1}, "a network needs at least 2 classes to tell apart, not 1"),
        ({"name": "D", "width": 0.0}, "width must be a positive number up to 100, not 0.0"),
        ({"name": "D", "dropout": 1.0}, "dropout must be at least 0 and below 1, not 1.0"),
    ],
)
def test_unusable_options_are_refused_in_one_line(options, message):
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        vgg(**options)


def test_a_grid_that_does_not_exist_is_refused():
    with pytest.raises(ValueError, match="grid is one of centred, floor, ceil, not 'Floor'"):
        tiny("A").score_map(photographs(1, 3, 70, 70), grid="Floor")


def test_images_of_the_wrong_size_are_refused():
    net = tiny("A")
    with pytest.raises(ValueError, match="use score_map"):
        net(photographs(1, 3, 96, 96))
    with pytest.raises(ValueError, match="smaller than the crop of 64"):
        net.score_map(photographs(1, 3, 63, 96))
    with pytest.raises(ValueError, match=r"must be \[B, 3, H, W\]"):
        net(photographs(3, 64, 64))
    with pytest.raises(ValueError, match="no layer 'conv6_1'"):
        net.activations(photographs(1, 3, 64, 64), ["conv6_1"])
    with pytest.raises(ValueError, match="dense=True"):
        net.activations(photographs(1, 3, 96, 96), ["fc7"])
