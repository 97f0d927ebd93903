"""Views against slices, counts and PyTorch's own rescaling; images are asymmetric, so that a wrong axis shows."""

from collections import Counter

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from verydeep.images.decode import UndecodableImageError
from verydeep.images.views import centre_crop, crop, mirror, random_crop, random_flip, random_scale, rescale


def noise(height, width, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def places(height, width):
    """An image whose every pixel says where it is: red its row, green its column."""
    y, x = np.mgrid[0:height, 0:width]
    return np.stack([y, x, np.full_like(y, 7)], axis=2).astype(np.uint8)


@settings(max_examples=200, deadline=None)
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


@settings(max_examples=100, deadline=None)
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
    for attempt in (lambda a: centre_crop(a, 6), lambda a: random_crop(a, 6, np.random.default_rng(0))):
        with pytest.raises(ValueError, match="is not inside"):
            attempt(places(*size))


@settings(max_examples=100, deadline=None)
@given(data=st.data(), height=st.integers(1, 40), width=st.integers(1, 40))
def test_a_centre_crop_leaves_the_same_on_either_side(data, height, width):
    size = data.draw(st.integers(1, min(height, width)))
    found = centre_crop(places(height, width), size)
    above, left = int(found[0, 0, 0]), int(found[0, 0, 1])
    below, right = height - 1 - int(found[-1, -1, 0]), width - 1 - int(found[-1, -1, 1])
    assert found.shape == (size, size, 3)
    assert 0 <= below - above <= 1
    assert 0 <= right - left <= 1


def test_random_crops_lie_everywhere_equally_often():
    image, rng, draws = places(9, 12), np.random.default_rng(0), 12_000
    found = Counter()
    for _ in range(draws):
        piece = random_crop(image, 7, rng)
        assert piece.shape == (7, 7, 3)
        top, left = int(piece[0, 0, 0]), int(piece[0, 0, 1])
        assert np.array_equal(piece, image[top : top + 7, left : left + 7])
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


def test_the_mirror_exchanges_left_and_right():
    image = places(4, 6)
    found = mirror(image)
    assert found[:, :, 0].tolist() == [[y] * 6 for y in range(4)]
    assert found[:, :, 1].tolist() == [[5, 4, 3, 2, 1, 0]] * 4
    assert (found[:, :, 2] == 7).all()


def test_half_of_the_flips_are_mirrors():
    image, rng, draws = places(4, 6), np.random.default_rng(0), 4_000
    leftmost = Counter(int(random_flip(image, rng)[0, 0, 1]) for _ in range(draws))
    assert set(leftmost) == {0, 5}
    assert abs(leftmost[5] / draws - 0.5) < 4 * 0.5 / draws**0.5


def test_views_do_not_write_into_the_image():
    image = noise(20, 30)
    before = image.copy()
    rng = np.random.default_rng(0)
    for _ in range(10):
        random_flip(random_crop(rescale(image, random_scale(10, 25, rng)), 8, rng), rng)
    assert np.array_equal(image, before)


def test_rescaling_is_pillows_own():
    """The same bytes give the same pixels wherever Pillow's filter is used: to the last grey level."""
    image = noise(61, 47)
    expected = Image.fromarray(image).resize((37, 48), Image.Resampling.BILINEAR)
    assert np.array_equal(rescale(image, 37), np.asarray(expected))


def test_an_image_too_elongated_to_rescale_is_refused_by_name():
    thin = np.zeros((2, 20_000, 3), dtype=np.uint8)
    with pytest.raises(UndecodableImageError, match=r"thin\.png: 20000 x 2 is too elongated"):
        rescale(thin, 256, "thin.png")
