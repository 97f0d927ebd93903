"""Views against slices, counts and PyTorch's own rescaling; images are asymmetric, so that a wrong axis shows."""

from collections import Counter

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from verydeep.images.decode import Decoded
from verydeep.images.views import (
    centre_location,
    crop,
    grid_locations,
    random_flip,
    random_location,
    random_scale,
    rescale,
    rescaled_crop,
    rescaled_size,
)


def noise(height, width, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def places(height, width):
    """An image whose every pixel says where it is: red its row, green its column."""
    y, x = np.mgrid[0:height, 0:width]
    return np.stack([y, x, np.full_like(y, 7)], axis=2).astype(np.uint8)


@settings(max_examples=200)
@given(height=st.integers(1, 90), width=st.integers(1, 90), shorter=st.integers(1, 60))
def test_rescaling_keeps_proportions_and_sets_the_shorter_side(height, width, shorter):
    found = rescale(noise(height, width), shorter)
    assert min(found.shape[:2]) == shorter
    factor = shorter / min(height, width)
    assert abs(found.shape[0] - height * factor) <= 0.5 + 1e-9
    assert abs(found.shape[1] - width * factor) <= 0.5 + 1e-9
    assert found.shape[2] == 3
    assert found.dtype == np.uint8


@pytest.mark.parametrize(
    ("before", "shorter", "after"),
    [((480, 640), 256, (256, 341)), ((640, 480), 256, (341, 256)), ((61, 47), 37, (48, 37)), ((8, 8), 37, (37, 37))],
)
def test_sizes_after_rescaling(before, shorter, after):
    assert rescale(noise(*before), shorter).shape == (*after, 3)


@pytest.mark.parametrize("before", [(61, 47), (150, 230), (97, 64), (20, 31), (8, 8), (37, 300)])
@pytest.mark.parametrize("shorter", [32, 37, 73])
def test_rescaling_is_antialiased_bilinear(before, shorter):
    image = noise(*before)
    found = rescale(image, shorter)
    expected = F.interpolate(
        torch.from_numpy(image).permute(2, 0, 1)[None].float(),
        size=found.shape[:2],
        mode="bilinear",
        antialias=True,
        align_corners=False,
    )[0].permute(1, 2, 0)
    difference = np.abs(found - expected.numpy())
    assert difference.max() <= 1.5
    assert difference.mean() < 0.5


def test_an_image_of_the_right_size_is_left_as_it_is():
    image = noise(40, 60)
    assert np.array_equal(rescale(image, 40), image)


@settings(max_examples=100)
@given(data=st.data(), height=st.integers(1, 40), width=st.integers(1, 40))
def test_a_crop_is_the_pixels_at_its_place(data, height, width):
    size = data.draw(st.integers(1, min(height, width)))
    top, left = data.draw(st.integers(0, height - size)), data.draw(st.integers(0, width - size))
    found = crop(places(height, width), size, top=top, left=left)
    assert found.shape == (size, size, 3)
    assert (found[:, :, 0] == np.arange(top, top + size)[:, None]).all()
    assert (found[:, :, 1] == np.arange(left, left + size)).all()


@pytest.mark.parametrize(("top", "left"), [(-1, 0), (0, -1), (5, 0), (0, 9)])
def test_a_crop_that_sticks_out_is_refused(top, left):
    crop(places(10, 14), 6, top=4, left=8)
    with pytest.raises(ValueError, match=r"a crop of 6 at .* is not inside an image of 10 x 14"):
        crop(places(10, 14), 6, top=top, left=left)


@pytest.mark.parametrize("size", [(5, 9), (9, 5)])
def test_an_image_smaller_than_the_crop_is_refused(size):
    for place in (centre_location(size, 6), random_location(size, 6, np.random.default_rng(0))):
        with pytest.raises(ValueError, match="is not inside"):
            crop(places(*size), 6, top=place[0], left=place[1])
        with pytest.raises(ValueError, match="is not inside"):
            rescaled_crop(places(*size), min(size), 6, top=place[0], left=place[1])


@settings(max_examples=100)
@given(data=st.data(), height=st.integers(1, 40), width=st.integers(1, 40))
def test_a_centre_crop_leaves_the_same_on_either_side(data, height, width):
    size = data.draw(st.integers(1, min(height, width)))
    top, left = centre_location((height, width), size)
    found = crop(places(height, width), size, top=top, left=left)
    above, left = int(found[0, 0, 0]), int(found[0, 0, 1])
    below, right = height - 1 - int(found[-1, -1, 0]), width - 1 - int(found[-1, -1, 1])
    assert found.shape == (size, size, 3)
    assert 0 <= below - above <= 1
    assert 0 <= right - left <= 1


def test_random_crops_lie_everywhere_equally_often():
    image, rng, draws = places(9, 12), np.random.default_rng(0), 12_000
    found = Counter()
    for _ in range(draws):
        top, left = random_location((9, 12), 7, rng)
        assert np.array_equal(crop(image, 7, top=top, left=left), image[top : top + 7, left : left + 7])
        found[top, left] += 1
    assert set(found) == {(top, left) for top in range(3) for left in range(6)}
    expected = draws / 18
    assert sum((count - expected) ** 2 / expected for count in found.values()) < 40.8  # chi squared, 17 d.f., 0.999


def test_random_scales_are_uniform_with_both_ends():
    rng, draws = np.random.default_rng(0), 9_000
    found = Counter(random_scale(37, 45, rng) for _ in range(draws))
    assert set(found) == set(range(37, 46))
    assert sum((count - 1000) ** 2 / 1000 for count in found.values()) < 26.1  # chi squared, 8 d.f., 0.999
    assert all(isinstance(scale, int) for scale in found)
    assert random_scale(37, 37, rng) == 37


def test_half_of_the_flips_are_mirrors():
    rng, draws = np.random.default_rng(0), 4_000
    found = Counter(random_flip(rng) for _ in range(draws))
    assert set(found) == {True, False}
    assert abs(found[True] / draws - 0.5) < 4 * 0.5 / draws**0.5


def test_views_do_not_write_into_the_image():
    image = noise(20, 30)
    before = image.copy()
    rng = np.random.default_rng(0)
    for _ in range(10):
        rescaled_crop(image, random_scale(10, 25, rng), 8, top=1, left=2)
        crop(rescale(image, 20), 8, top=3, left=4)
    assert np.array_equal(image, before)


@pytest.mark.parametrize("shorter", [8, 37, 100])
def test_rescaling_is_pillows_within_two_grey_levels(shorter):
    image = noise(61, 47)
    height, width = rescale(image, shorter).shape[:2]
    expected = Image.fromarray(image).resize((width, height), Image.Resampling.BILINEAR)
    difference = np.abs(rescale(image, shorter).astype(int) - np.asarray(expected))
    assert difference.max() <= 2
    assert difference.mean() < 0.1


@settings(max_examples=300)
@given(
    data=st.data(),
    height=st.integers(1, 900),
    width=st.integers(1, 900),
    shorter=st.integers(1, 150),
    reduction=st.sampled_from([1, 1, 2, 4, 8]),
)
def test_a_rescaled_crop_is_to_the_bit_a_crop_of_the_rescaled_image(data, height, width, shorter, reduction):
    height, width = min(height, 12 * width), min(width, 12 * height)
    pixels = noise(-(-height // reduction), -(-width // reduction), seed=height)
    image = Decoded(pixels, (height, width), reduction)
    whole = rescale(image, shorter)
    assert whole.shape == (*rescaled_size((height, width), shorter), 3)
    side = data.draw(st.integers(1, shorter))
    top, left = (data.draw(st.integers(0, whole.shape[axis] - side)) for axis in (0, 1))
    found = rescaled_crop(image, shorter, side, top=top, left=left)
    assert np.array_equal(found, whole[top : top + side, left : left + side])


def test_proportions_are_those_of_the_file():
    """500 x 375 decoded at half its size is 250 x 188, which is a little too high."""
    assert rescale(Decoded(noise(188, 250), (375, 500), 2), 100).shape == (100, 133, 3)
    assert rescale(Decoded(noise(188, 251), (375, 501), 2), 187).shape == (187, 250, 3)
    assert rescale(Decoded(noise(40, 50), (320, 400), 8), 40).shape == (40, 50, 3)


def test_images_that_cannot_be_written_to_or_run_backwards_are_rescaled_too():
    image = noise(50, 70)
    expected = rescale(np.ascontiguousarray(image[:, ::-1]), 33)
    assert np.array_equal(rescale(image[:, ::-1], 33), expected)
    image.setflags(write=False)
    assert np.array_equal(rescale(image, 33), np.ascontiguousarray(rescale(image.copy(), 33)))


@settings(max_examples=60)
@given(height=st.integers(9, 60), width=st.integers(9, 60))
def test_the_grid_reaches_every_border_row_by_row(height, width):
    corners = grid_locations((height, width), 9)
    expected = [
        (np.floor((height - 9) * row / 4 + 0.5), np.floor((width - 9) * column / 4 + 0.5))
        for row in range(5)
        for column in range(5)
    ]
    assert np.abs(np.array(corners) - expected).max() <= 1
    assert [corners[n] for n in (0, 4, 20, 24)] == [
        (0, 0),
        (0, width - 9),
        (height - 9, 0),
        (height - 9, width - 9),
    ]
