"""Posteriors against section 3.2 written out here: one image at a time, slices, loops and matrix products."""

import io
import resource
from typing import get_args

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from naive_crops import multi_crop
from PIL import Image

from verydeep import vgg
from verydeep.evaluation.crops import crop_posteriors
from verydeep.evaluation.dense import dense_posteriors
from verydeep.evaluation.passes import Pass, SameSizeBatches
from verydeep.evaluation.pixel_limits import NO_LIMITS, PixelLimits
from verydeep.evaluation.posteriors import posteriors
from verydeep.evaluation.protocols import Protocol, ViewName, chosen_scales, protocol_of, single_scale
from verydeep.images.quarantine import TooManyBadImagesError
from verydeep.images.rescaled import rescaled_images
from verydeep.images.sources.source import Sample, memory_source
from verydeep.networks.scales import scale_in_pixels

STAGES = {  # Table 1: kernel sizes, one group per stage
    "A": ("3", "3", "33", "33", "33"),
    "A-LRN": ("3", "3", "33", "33", "33"),
    "B": ("33", "33", "33", "33", "33"),
    "B-5x5": ("5", "5", "5", "5", "5"),
    "C": ("33", "33", "331", "331", "331"),
    "D": ("33", "33", "333", "333", "333"),
    "E": ("33", "33", "3333", "3333", "3333"),
}
METHODS = ("dense", "crops", "both")
MEAN = (120.0, 110.0, 100.0)
Q_IN_PIXELS = {32: {224: 32, 256: 37, 384: 55, 512: 73}, 64: {256: 73, 384: 110, 512: 146}}


def lively(name, *, crop=32):
    """A tiny network whose scores differ from image to image: random biases, variance kept from layer to layer."""
    torch.manual_seed(1)
    net = vgg(name, classes=7, crop=crop, width=0.05, mean_rgb=MEAN).eval()
    with torch.no_grad():
        for module in net.modules():
            if isinstance(module, torch.nn.Conv2d | torch.nn.Linear):
                module.weight.normal_(0, (2 / module.weight[0].numel()) ** 0.5)
                module.bias.normal_(0, 0.1)
        net.conv1_1.weight /= 64
        probe = torch.from_numpy(picture(crop, crop)).permute(2, 0, 1)[None]
        net.fc8.weight /= net(probe).std() / 2
    return net


def picture(height, width, seed=0):
    """Noise on waves, unlike its mirror image and unlike itself upside down."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[0:height, 0:width]
    waves = [100 + 90 * np.sin(x / 5 + 7 * y / height), 255 * x / width, 160 * y / height]
    return (np.stack(waves, axis=2) + rng.integers(-60, 61, (height, width, 3))).clip(0, 255).astype(np.uint8)


def source_of(*images):
    samples = []
    for number, image in enumerate(images):
        buffer = io.BytesIO()
        Image.fromarray(image).save(buffer, "PNG")
        samples.append(Sample(buffer.getvalue(), 0, f"image {number}"))
    return memory_source(classes=tuple("abcdefg"), samples=tuple(samples))


def naive_dense(net, name, image, *, scales, mirror=True, grid="centred", softmax_first=False):
    """The dense posterior of one image, in double precision."""
    found = []
    for view in naive_rescaled(net, image, scales=scales, mirror=mirror):
        scores = torch.stack(naive_scores(net, name, view, grid=grid))
        found.append(scores.softmax(dim=1).mean(dim=0) if softmax_first else scores.mean(dim=0).softmax(dim=0))
    return torch.stack(found).mean(dim=0).numpy()


def naive_crops(net, name, image, *, scales, mirror=True, steps=5):
    """The multi-crop posterior of one image, in double precision: one crop after the other."""
    found = []
    for scale in scales:
        whole, side = naive_rescaled(net, image, scales=(scale,), mirror=False)[0], net.architecture.crop
        for top in np.linspace(0, whole.shape[0] - side, steps).round().astype(int):
            for left in np.linspace(0, whole.shape[1] - side, steps).round().astype(int):
                crop = whole[top : top + side, left : left + side]
                for view in (crop, crop[:, ::-1]) if mirror else (crop,):
                    (scores,) = naive_scores(net, name, view, grid="floor")
                    found.append(scores.softmax(dim=0))
    assert len(found) == len(scales) * steps**2 * (1 + mirror)
    return torch.stack(found).mean(dim=0).numpy()


def naive_rescaled(net, image, *, scales, mirror):
    views = []
    for scale in scales:
        shorter, (height, width) = Q_IN_PIXELS[net.architecture.crop][scale], image.shape[:2]
        size = (round(height * shorter / min(height, width)), round(width * shorter / min(height, width)))
        pixels = torch.from_numpy(image).permute(2, 0, 1)[None]
        rescaled = F.interpolate(pixels, size=size, mode="bilinear", antialias=True)[0].permute(1, 2, 0).numpy()
        views.append(rescaled)
        if mirror:
            views.append(rescaled[:, ::-1])
    return views


def naive_scores(net, name, pixels, *, grid):
    """Class scores of every window, by loops; poolings by floor and ceil are PyTorch's."""
    weights = {key: value.double() for key, value in net.state_dict().items()}
    height, width = pixels.shape[:2]
    x = torch.from_numpy(pixels.astype(np.float64) - np.array(MEAN)).permute(2, 0, 1)
    top, left = (height % 32 // 2, width % 32 // 2) if grid == "centred" else (0, 0)
    for stage, kernels in enumerate(STAGES[name], 1):
        for place, kernel in enumerate(kernels, 1):
            layer = f"conv{stage}_{place}"
            padding = (int(kernel) - 1) // 2
            x = F.conv2d(x[None], weights[f"{layer}.weight"], weights[f"{layer}.bias"], padding=padding)[0].clamp(min=0)
        if name == "A-LRN" and stage == 1:
            x = naive_lrn(x)
        if grid == "centred":
            x = naive_pooling(x, first_row=(top >> (stage - 1)) & 1, first_column=(left >> (stage - 1)) & 1)
        else:
            x = F.max_pool2d(x, kernel_size=2, stride=2, ceil_mode=grid == "ceil")
    assert x.shape[1:] == ((-(-height // 32), -(-width // 32)) if grid == "ceil" else (height // 32, width // 32))
    window = net.architecture.crop // 32
    scores = []
    for i in range(x.shape[1] - window + 1):
        for j in range(x.shape[2] - window + 1):
            features = x[:, i : i + window, j : j + window].flatten()
            for layer in ("fc6", "fc7"):
                features = (weights[f"{layer}.weight"] @ features + weights[f"{layer}.bias"]).clamp(min=0)
            scores.append(weights["fc8.weight"] @ features + weights["fc8.bias"])
    return scores


def naive_lrn(x):
    """Krizhevsky et al. 2012: k = 2, n = 5, alpha = 1e-4, beta = 0.75."""
    neighbours = [x[max(0, c - 2) : c + 3].square().sum(dim=0) for c in range(len(x))]
    return torch.stack([x[c] / (2 + 1e-4 * total) ** 0.75 for c, total in enumerate(neighbours)])


def naive_pooling(x, *, first_row, first_column):
    x = x[:, first_row:, first_column:]
    rows, columns = x.shape[1] // 2 * 2, x.shape[2] // 2 * 2
    corners = [x[:, i:rows:2, j:columns:2] for i in (0, 1) for j in (0, 1)]
    return torch.stack(corners).amax(dim=0)


# the protocols


@pytest.mark.parametrize("name", STAGES)
def test_posteriors_are_those_of_the_paper_written_out(name):
    net, scales = lively(name), (256, 384, 512) if name == "D" else (256, 512)
    images = [picture(61, 47, 0), picture(61, 47, 3), picture(35, 101, 4)]
    dense = np.stack([naive_dense(net, name, image, scales=scales) for image in images])
    crops = np.stack([naive_crops(net, name, image, scales=scales) for image in images])
    found = {method: posteriors(net, source_of(*images), Protocol(method=method, scales=scales)) for method in METHODS}
    assert {posterior.shape for posterior in found.values()} == {(len(images), 7)}
    assert np.abs(found["dense"] - dense).max() < 1e-5
    assert np.abs(found["crops"] - crops).max() < 1e-5
    assert np.abs(found["both"] - (dense + crops) / 2).max() < 1e-5
    assert np.abs(dense - crops).max() > 1e-3


@pytest.mark.parametrize("name", ["A", "D"])
@pytest.mark.parametrize("mirror", [True, False])
def test_posteriors_with_a_larger_window_and_with_or_without_the_mirror(name, mirror):
    net, scales = lively(name, crop=64), (256, 512)
    images = [picture(61, 47, 0), picture(90, 131, 1)]
    found = posteriors(net, source_of(*images), Protocol(scales=scales, mirror=mirror))
    expected = np.stack([naive_dense(net, name, image, scales=scales, mirror=mirror) for image in images])
    assert np.abs(found - expected).max() < 1e-5
    cropped = posteriors(net, source_of(images[0]), Protocol(method="crops", scales=(256,), mirror=mirror))
    assert np.abs(cropped - naive_crops(net, name, images[0], scales=(256,), mirror=mirror)).max() < 1e-5


@pytest.mark.parametrize("grid", ["floor", "ceil"])
@pytest.mark.parametrize(("name", "crop"), [("A", 32), ("D", 64)])
def test_posteriors_on_the_grids_of_other_libraries(name, crop, grid):
    net, scales, images = lively(name, crop=crop), (256, 512), [picture(61, 47, 0), picture(90, 131, 1)]
    found = posteriors(net, source_of(*images), Protocol(scales=scales, grid=grid))
    expected = np.stack([naive_dense(net, name, image, scales=scales, grid=grid) for image in images])
    assert np.abs(found - expected).max() < 1e-5


def test_a_grid_is_that_of_dense_evaluation():
    assert Protocol(method="both", scales=(256,), grid="ceil").views == ("dense by ceil", "crops")
    assert Protocol(method="crops", scales=(256,)).grid_used is None
    with pytest.raises(ValueError, match="grid is one of centred, floor, ceil, not round"):
        Protocol(scales=(256,), grid="round")
    with pytest.raises(ValueError, match="with --protocol crops leave out --grid"):
        Protocol(method="crops", scales=(256,), grid="floor")


@pytest.mark.parametrize("mirror", [False, True])
@pytest.mark.parametrize("view", get_args(ViewName))
def test_pixels_and_passes_of_a_view_are_those_that_go_through_the_first_layer(view, mirror):
    net, seen = lively("A"), []
    net.conv1_1.register_forward_hook(lambda layer, inputs, output: seen.extend(image[0] for image in inputs[0]))
    image = torch.from_numpy(picture(61, 90)).permute(2, 0, 1)
    one = Pass(net=net, view=view, side=61, mirror=mirror)
    posteriors, scores = one.posteriors_and_map(torch.stack([image, image]), NO_LIMITS)
    assert posteriors.shape == (2, 7)
    assert sum(plane.numel() for plane in seen) == 2 * one.pixels((61, 90))
    assert len(seen) == 2 * one.forward_passes
    assert (scores is None) == (view in ("crops", "centre"))


@pytest.mark.parametrize("size", [(32, 32), (32, 39), (61, 32)])
def test_crops_that_coincide_count_as_often_as_the_grid_has_them(size):
    net, image = lively("A"), picture(*size)
    found = posteriors(net, source_of(image), Protocol(method="crops", scales=(224,)))
    assert np.abs(found - naive_crops(net, "A", image, scales=(224,))).max() < 1e-5


@pytest.mark.parametrize(("name", "crop"), [("A", 32), ("D", 64)])
def test_centre_crops_are_the_network_on_the_pixels_in_the_middle(name, crop):
    net, scales, images = lively(name, crop=crop), (256, 512), [picture(61, 47, 0), picture(90, 131, 1)]
    protocol = Protocol(method="centre", scales=scales, mirror=False)
    expected = []
    for image in images:
        found = []
        for view in naive_rescaled(net, image, scales=scales, mirror=False):
            top, left = ((side - crop) // 2 for side in view.shape[:2])
            middle = torch.from_numpy(view[top : top + crop, left : left + crop].copy()).permute(2, 0, 1)[None]
            found.append(net(middle)[0].detach().softmax(dim=0))
        expected.append(torch.stack(found).mean(dim=0))
    assert np.abs(posteriors(net, source_of(*images), protocol) - torch.stack(expected).numpy()).max() < 1e-6


def test_centre_crops_are_at_256_unless_told_and_never_mirrored():
    chosen = {"trained": "384", "mirror": True}
    assert protocol_of("centre", None, usual="paper", **chosen).scales == (256,)
    assert protocol_of("centre", "single", usual="paper", **chosen).scales == (384,)
    assert not protocol_of("centre", "paper", usual="single", **chosen).mirror
    assert protocol_of("dense", None, usual="single", **chosen) == Protocol(scales=(384,))
    with pytest.raises(ValueError, match="without their mirror image"):
        Protocol(method="centre", scales=(256,))


@pytest.mark.parametrize("pixels", [1, 32 * 32 * 7, 10**9])
def test_crops_do_not_depend_on_how_many_are_computed_at_once(pixels):
    net = lively("A")
    images = torch.stack([torch.from_numpy(picture(37, 51, seed)).permute(2, 0, 1) for seed in range(3)])
    found = crop_posteriors(net, images, mirror=True, limits=PixelLimits(pixels, pixels))
    expected = [net(torch.from_numpy(multi_crop(picture(37, 51, seed), 32)).permute(0, 3, 1, 2)) for seed in range(3)]
    assert (found - torch.stack(expected).softmax(dim=2).mean(dim=1)).abs().max() < 1e-6


@pytest.mark.parametrize(
    "change",
    [
        {"mirror": False},
        {"grid": "floor"},
        {"grid": "ceil"},
        {"softmax_first": True},
        {"scales": (256,)},
        {"scales": (256, 384)},
    ],
)
def test_the_comparison_would_notice(change):
    """Each part of the protocol moves the posterior far more than the 1e-5 above."""
    net, image = lively("D"), picture(61, 47)
    whole = naive_dense(net, "D", image, scales=(256, 384, 512))
    changed = naive_dense(net, "D", image, **{"scales": (256, 384, 512), **change})
    assert np.abs(whole - changed).max() > 1e-3


@pytest.mark.parametrize("change", [{"mirror": False}, {"steps": 4}, {"scales": (384,)}])
def test_the_comparison_would_notice_other_crops(change):
    net, image = lively("D"), picture(61, 47)
    whole = naive_crops(net, "D", image, scales=(256,))
    assert np.abs(whole - naive_crops(net, "D", image, **{"scales": (256,), **change})).max() > 1e-3


def test_posteriors_are_probabilities():
    found = posteriors(lively("A"), source_of(picture(40, 50), picture(90, 33)), Protocol(scales=(256, 300)))
    assert found.dtype == np.float64
    assert (found >= 0).all()
    assert np.allclose(found.sum(axis=1), 1, atol=1e-6)


def test_testing_is_without_dropout():
    net, images = lively("A"), torch.from_numpy(picture(50, 70)).permute(2, 0, 1)[None]
    expected = dense_posteriors(net, images, mirror=True)
    assert torch.equal(dense_posteriors(net.train(), images, mirror=True), expected)


# every image once


@settings(max_examples=15)
@given(sizes=st.lists(st.sampled_from([(32, 40), (40, 32), (33, 33), (32, 55)]), min_size=1, max_size=7))
def test_every_image_counts_once_whatever_the_sizes(sizes):
    net = lively("A")
    images = [picture(*size, seed) for seed, size in enumerate(sizes)]
    counted = []
    found = posteriors(net, source_of(*images), Protocol(scales=(256, 300)), advance=counted.append)
    alone = [posteriors(net, source_of(image), Protocol(scales=(256, 300)))[0] for image in images]
    assert np.allclose(found, alone, atol=1e-6)
    assert sum(counted) == 2 * len(sizes)  # once for each scale


@pytest.mark.parametrize("waiting", [1, 37 * 37 * 4, 10**9])
@pytest.mark.parametrize("limit", [1, 37 * 37 * 2, 37 * 60 * 3, 10**9])
@pytest.mark.parametrize("count", range(1, 8))
def test_batches_hold_every_image_once_and_are_not_padded(count, limit, waiting):
    sizes = [(48, 37), (37, 37), (48, 37), (37, 56), (48, 37), (37, 37), (37, 48)][:count]
    seen = []
    for indices, batch in batches_of(sizes, limit, waiting):
        assert len(indices) == len(batch)
        assert len(batch) == 1 or len(batch) * batch.shape[2] * batch.shape[3] <= limit
        for index, found in zip(indices, batch, strict=True):
            assert torch.equal(found, torch.full((3, *sizes[index]), index, dtype=torch.uint8))
        seen += indices
    assert sorted(seen) == list(range(count))


def batches_of(sizes, limit, waiting=10**9):
    """Return the batches of images whose every value is their index."""
    batches = SameSizeBatches(limit, waiting=waiting)
    for index, size in enumerate(sizes):
        if batch := batches.add(index, torch.full((3, *size), index, dtype=torch.uint8)):
            yield batch
    yield from batches.rest()


def test_no_more_images_wait_than_memory_allows():
    """All of different sizes, so that no two share a batch."""
    batches = SameSizeBatches(10**9, waiting=5 * 37 * 60)
    waiting = 0
    for number in range(24):
        waiting += 37 * (37 + number)
        if batch := batches.add(number, torch.zeros(3, 37, 37 + number, dtype=torch.uint8)):
            waiting -= batch[1][:, 0].numel()
        assert waiting <= 5 * 37 * 60
    assert sum(len(indices) for indices, _ in batches.rest()) > 1


def test_two_workers_give_the_same_posteriors():
    net, images = lively("A"), [picture(61, 47, 0), picture(40, 40, 1), picture(61, 47, 2), picture(47, 61, 3)]
    alone, helped = (
        posteriors(net, source_of(*images), Protocol(scales=(256, 300)), workers=workers) for workers in (0, 2)
    )
    assert np.array_equal(alone, helped)


def test_images_of_one_size_share_a_batch():
    together = [indices for indices, _ in batches_of([(48, 37), (37, 37), (48, 37), (48, 37)], 10**9)]
    assert sorted(together) == [[0, 2, 3], [1]]


def test_a_broken_image_is_named():
    source = source_of(picture(40, 40))
    broken = memory_source(classes=source.classes, samples=(*source, Sample(b"broken", 0, "cats/tom.jpg")))
    with pytest.raises(TooManyBadImagesError, match=r"cats/tom\.jpg"):
        posteriors(lively("A"), broken, Protocol(scales=(256,)))


# scales


@pytest.mark.parametrize(
    ("scale", "single", "several"),
    [
        ("256", (256,), (224, 256, 288)),
        ("384", (384,), (352, 384, 416)),
        ("256:512", (384,), (256, 384, 512)),
        ("224", (224,), (224, 256)),  # below the crop no window fits
        ("240", (240,), (240, 272)),
        ("256:257", (256,), (256, 257)),
    ],
)
def test_test_scales_are_the_papers(scale, single, several):
    assert single_scale(scale) == single
    assert chosen_scales("paper", trained=scale) == several


@pytest.mark.parametrize("scales", [(), (223,), (256, 100), (256, 384, 256)])
def test_scales_below_the_crop_and_equal_ones_are_refused(scales):
    told = r"^scales, stated for a crop of 224, are distinct whole numbers from there up, not \["
    with pytest.raises(ValueError, match=told):
        Protocol(scales=scales)


@pytest.mark.parametrize(
    ("scale", "crop", "pixels"),
    [(256, 224, 256), (384, 224, 384), (256, 32, 37), (384, 32, 55), (512, 32, 73), (288, 32, 41), (256, 64, 73)],
)
def test_scales_in_pixels(scale, crop, pixels):
    assert scale_in_pixels(scale, crop) == pixels


@settings(max_examples=200)
@given(scale=st.integers(224, 2000), multiple=st.integers(1, 20))
def test_scales_go_with_the_crop(scale, multiple):
    crop = 32 * multiple
    pixels = scale_in_pixels(scale, crop)
    assert pixels >= crop
    assert abs(pixels - scale * multiple / 7) <= 0.5
    assert scale_in_pixels(224, crop) == crop
    assert scale_in_pixels(scale + 7, crop) == pixels + multiple


def test_images_that_wait_for_others_of_their_size_keep_no_files_open():
    """All of different sizes; a tensor from a worker keeps a file open for as long as it lives."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    source = source_of(*(picture(33, 33 + number) for number in range(150)))
    resource.setrlimit(resource.RLIMIT_NOFILE, (120, hard))
    try:
        found = [index for index, _ in list(rescaled_images(source, 33, workers=1))]
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert sorted(found) == list(range(150))


def test_a_network_whose_scores_are_no_numbers_is_refused():
    net = lively("A")
    with torch.no_grad():
        net.fc8.bias.fill_(float("nan"))
    with pytest.raises(ValueError, match="the scores of the network are not finite"):
        posteriors(net, source_of(picture(40, 40)), Protocol(scales=(256,)))
