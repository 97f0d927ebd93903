"""Images too large for memory: tiles against the whole."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from verydeep import CONFIGURATIONS, describe, vgg
from verydeep.evaluation import dense
from verydeep.evaluation.dense import dense_posteriors, score_map
from verydeep.evaluation.pixel_limits import PixelLimits

CELL = 32 * 32


def lively(name, crop=32):
    """A tiny network with random biases, whose score map differs from place to place."""
    torch.manual_seed(3)
    net = vgg(name, classes=3, crop=crop, width=0.05).eval()
    with torch.no_grad():
        for module in net.modules():
            if isinstance(module, torch.nn.Conv2d | torch.nn.Linear):
                module.weight.normal_(0, (2 / module.weight[0].numel()) ** 0.5)
                module.bias.normal_(0, 0.1)
        net.conv1_1.weight /= 64
    return net


def noise(height, width, count=1):
    generator = torch.Generator().manual_seed(height * width)
    return torch.randint(0, 256, (count, 3, height, width), generator=generator, dtype=torch.uint8)


def difference(found, expected):
    assert found.shape == expected.shape
    return ((found - expected).abs().max() / expected.abs().max()).item()


@pytest.mark.parametrize(
    ("name", "size"),
    [*((name, (351, 417)) for name in CONFIGURATIONS), *(("D", size) for size in ((320, 320), (65, 1000), (797, 64)))],
)
def test_tiles_give_the_same_map(name, size):
    net, image = lively(name), noise(*size)
    with torch.inference_mode():
        whole = net.score_map(image)
    assert whole.std() > 1e-2 * whole.abs().max()
    for pixels in (1, 100 * CELL, 200 * CELL):
        assert difference(score_map(net, image, pixels=pixels), whole) < 1e-5


GRIDS = ("centred", "floor", "ceil")


@settings(max_examples=20)
@given(height=st.integers(64, 350), width=st.integers(64, 350), cells=st.integers(1, 150), grid=st.sampled_from(GRIDS))
def test_tiles_give_the_same_map_of_any_size(height, width, cells, grid):
    net, image = lively("D", crop=64), noise(height, width)
    with torch.inference_mode():
        whole = net.score_map(image, grid=grid)
    assert difference(score_map(net, image, pixels=cells * CELL, grid=grid), whole) < 1e-5


def test_tiles_need_the_context_that_they_have(monkeypatch):
    """With less of it the map is another one; so the tests above would notice."""
    net, image = lively("D"), noise(351, 417)
    with torch.inference_mode():
        whole = net.score_map(image)
    context = dense._context(net)
    assert context == 3  # (212 - 32) / 2 pixels
    monkeypatch.setattr(dense, "_context", lambda net: context - 1)
    assert difference(score_map(net, image, pixels=CELL), whole) > 1e-4


@pytest.mark.parametrize("name", CONFIGURATIONS)
def test_the_context_is_as_far_as_the_receptive_field_reaches(name):
    reach = (describe(name).receptive_field - 32) / 2
    assert 32 * (dense._context(lively(name)) - 1) < reach <= 32 * dense._context(lively(name))


@pytest.mark.parametrize("mirror", [True, False])
def test_posteriors_from_tiles_are_those_of_the_whole(mirror):
    net, images = lively("B", crop=64), noise(131, 333, count=3)
    whole, tiled = (
        dense_posteriors(net, images, mirror=mirror, limits=PixelLimits(pixels, pixels))
        for pixels in (10**9, 40 * CELL)
    )
    assert (whole - tiled).abs().max() < 1e-6
    assert not torch.equal(whole[0], whole[1])


def test_the_map_is_put_together_from_a_few_rows_at_a_time(monkeypatch):
    net, images = lively("A", crop=64), noise(331, 270, count=2)
    expected = score_map(net, images)
    for positions in (1, 20, 60):
        monkeypatch.setattr(dense, "_POSITIONS_AT_ONCE", positions)
        assert difference(score_map(net, images), expected) < 1e-6


@settings(max_examples=200)
@given(
    side=st.integers(32, 3000),
    positions=st.integers(1, 100),
    context=st.integers(0, 5),
    grid=st.sampled_from(GRIDS),
)
def test_spans_keep_every_position_once_and_their_grid_is_the_images(side, positions, context, grid):
    kept = []
    for start, end, first, last in dense._spans(side, positions, context, grid):
        assert 0 <= start < end <= side
        assert start % 32 == 0
        if grid == "ceil":
            assert (end - start) % 32 == 0 or end == side
        else:
            assert (end - start) % 32 == side % 32  # so it is centred by the same offset
        kept += range(start // 32 + first, start // 32 + last)
        assert first >= min(context, start // 32)
        assert (end - start) // 32 - last >= min(context, (side - end) // 32) - (grid == "ceil" and end == side)
    assert kept == list(range(math.ceil(side / 32) if grid == "ceil" else side // 32))


@settings(max_examples=200)
@given(height=st.integers(1, 300), width=st.integers(1, 300), context=st.integers(1, 5), positions=st.integers(1, 3000))
def test_tiles_are_of_the_size_that_fits(height, width, context, positions):
    rows, columns = dense._tile_size(height, width, context, positions)
    assert 1 <= rows <= height
    assert 1 <= columns <= width
    smallest = (1 + 2 * context) ** 2
    assert min(height, rows + 2 * context) * min(width, columns + 2 * context) <= max(positions, smallest) or (
        min(rows, columns) == 1
    )
