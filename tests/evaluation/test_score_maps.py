"""Score maps and the images beneath them: against windows cut out one by one, and NumPy's interpolation."""

import numpy as np
import pytest
import torch
from PIL import Image

from verydeep import vgg
from verydeep.evaluation.score_maps import (
    OPACITY,
    PlacedMap,
    colours,
    fitted,
    overlay,
    placed_score_map,
    positions_of,
    posterior_map,
)
from verydeep.images.sources.source import Sample, memory_source


def test_images_are_found_in_the_source_in_its_order():
    source = memory_source(classes=("a",), samples=tuple(Sample(b"", 0, f"{index}.png") for index in range(6)))
    assert positions_of(source, [source.ids[index] for index in (1, 2, 5)]) == [1, 2, 5]
    twice = memory_source(classes=("a",), samples=(Sample(b"", 0, "x"), Sample(b"", 0, "y"), Sample(b"", 0, "x")))
    assert positions_of(twice, ["x", "y", "x"]) == [0, 1, 2]
    for unknown in (["another"], [source.ids[2], source.ids[1]]):
        with pytest.raises(ValueError, match="is not where it was"):
            positions_of(source, unknown)


def test_small_images_are_enlarged_and_large_ones_shrunk():
    digit = np.random.default_rng(0).integers(0, 256, (8, 10, 3)).astype(np.uint8)
    large = fitted(digit)
    assert large.shape == (8 * 22, 10 * 22, 3)
    assert (large[::22, ::22] == digit).all()
    assert (large[21::22, 21::22] == digit).all()
    assert fitted(np.zeros((448, 300, 3), np.uint8)).shape == (224, 150, 3)
    assert max(fitted(np.zeros((301, 5017, 3), np.uint8)).shape) <= 224


def red_or_blue(crop):
    """A net whose classes are how much red and how much blue the window's five-fold pooling sees."""
    net = vgg("A", classes=2, crop=crop, width=0.05, mean_rgb=(0, 0, 0)).eval()
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.zero_()
        for name in net.layer_names:
            layer = getattr(net, name)
            if name == "conv1_1":
                layer.weight[0, 0, 1, 1] = layer.weight[1, 2, 1, 1] = 1
            elif name.startswith("conv"):
                layer.weight[0, 0, 1, 1] = layer.weight[1, 1, 1, 1] = 1
            elif name.startswith("fc"):
                weight = layer.weight.view(
                    len(layer.weight), -1, crop // 32 if name == "fc6" else 1, crop // 32 if name == "fc6" else 1
                )
                weight[0, 0] = weight[1, 1] = 1 / 50 if name == "fc6" else 1
    return net


def laid_over(image, class_map, **how):
    """Lay a map over the image that was tested."""
    return overlay(image, placed_score_map(class_map, image.shape[:2], **how))


GRIDS = ("centred", "floor", "ceil")


def first_pixels(size, grid):
    return [side % 32 // 2 if grid == "centred" else 0 for side in size]


def positions_of_map(size, grid, crop):
    return tuple((-(-side // 32) if grid == "ceil" else side // 32) - crop // 32 + 1 for side in size)


@pytest.mark.parametrize("grid", GRIDS)
@pytest.mark.parametrize("size", [(150, 203), (128, 160), (95, 64)])
def test_posteriors_of_a_map_are_those_of_its_windows(size, grid):
    """Window (i, j) begins 32 i and 32 j pixels after the grid's first one, and its cells of 32 x 32 are pooled."""
    crop = 64
    image = np.zeros((*size, 3), np.uint8)
    image[..., 2] = 50
    image[40:75, 20:60] = (200, 0, 0)
    found = posterior_map(red_or_blue(crop), image, grid=grid)
    top, left = first_pixels(size, grid)
    for i, j in np.ndindex(*found.shape[1:]):
        window = image[top + 32 * i :, left + 32 * j :][:crop, :crop].astype(float)
        assert window.shape[:2] == (crop, crop) or grid == "ceil"  # whose last cells may be cut off by the border
        cells = [window[y : y + 32, x : x + 32].max(axis=(0, 1)) for y in (0, 32) for x in (0, 32)]
        red, blue = (sum(cell[channel] for cell in cells) / 50 for channel in (0, 2))
        assert found[0, i, j] == pytest.approx(1 / (1 + np.exp(blue - red)), abs=1e-5)
    assert found.shape == (2, *positions_of_map(size, grid, crop))
    assert found.sum(axis=0) == pytest.approx(1)


def test_an_overlay_lights_up_where_the_class_is():
    image = np.full((224, 300, 3), (0, 0, 60), np.uint8)
    image[150:190, 200:250] = (250, 0, 0)
    found = posterior_map(red_or_blue(32), image)
    assert found[0].min() < 0.3
    assert found[0].max() > 0.95
    lit = np.abs(laid_over(np.zeros_like(image), found[0], crop=32) - OPACITY * colours(np.array(1.0))).max(axis=2) < 40
    rows, columns = np.nonzero(lit)
    assert 140 < rows.mean() < 200
    assert 190 < columns.mean() < 260
    assert lit[170, 225]
    assert not lit[:100].any()


@pytest.mark.parametrize("grid", GRIDS)
@pytest.mark.parametrize(("size", "crop"), [((150, 203), 64), ((96, 96), 32), ((47, 110), 32), ((33, 40), 32)])
def test_an_overlay_is_interpolated_smoothly_between_the_windows_centres_and_held_beyond(size, crop, grid):
    positions = positions_of_map(size, grid, crop)
    class_map = np.random.default_rng(0).random(positions)
    image = np.full((*size, 3), 100, np.uint8)
    found = laid_over(image, class_map, crop=crop, grid=grid)
    assert found.shape == image.shape
    assert found.dtype == np.uint8
    starts = first_pixels(size, grid)
    centres = [start + 32 * np.arange(count) + crop / 2 for start, count in zip(starts, positions, strict=True)]
    # Pillow's bicubic filter, of positions that are repeated at the borders; 32 pixels for each.
    held = Image.fromarray(np.pad(class_map, 4, mode="edge").astype(np.float32))
    large = np.asarray(held.resize((32 * held.width, 32 * held.height), Image.Resampling.BICUBIC))
    first = [32 * 4 + 16 - int(centre[0]) for centre in centres]
    values = large[first[0] :, first[1] :][: size[0], : size[1]].clip(class_map.min(), class_map.max())
    assert abs(found - (OPACITY * colours(values) + (1 - OPACITY) * 100)).max() <= 2  # a step of colour by rounding
    for i, j in np.ndindex(*positions):
        y, x = int(centres[0][i]), int(centres[1][j])
        if y >= size[0] or x >= size[1]:
            continue  # the last window by ceil may have its centre beyond the border
        about = OPACITY * colours(np.array(class_map[i, j])) + (1 - OPACITY) * 100
        assert abs(found[y - 1 : y + 1, x - 1 : x + 1].mean(axis=(0, 1)) - about).max() < 8
    assert (found[0, 0] == laid_over(image[:1].repeat(size[0], 0), class_map, crop=crop, grid=grid)[0, 0]).all()


def test_colours_lie_over_the_image_in_grey():
    image = np.zeros((32, 64, 3), np.uint8)
    image[:, 32:] = (255, 0, 0)
    found = laid_over(image, np.array([[0.5, 0.5]]), crop=32)
    difference = found[0, 40].astype(int) - found[0, 10]
    assert abs(difference - (1 - OPACITY) * 255 * 0.299).max() <= 1
    assert (colours(np.array([0.0, 1.0])) == [[68, 1, 84], [253, 231, 36]]).all()


def test_an_overlay_over_another_size_is_the_one_over_the_tested_image_enlarged():
    placed = PlacedMap(values=np.array([[0.0, 1, 0.5], [1, 0, 0]]), size=(40, 64), first_centre=(9, 11), stride=20)
    small = overlay(np.full((40, 64, 3), 100, np.uint8), placed).astype(int)
    large = overlay(np.full((120, 192, 3), 100, np.uint8), placed).astype(int)
    assert abs(large[1::3, 1::3] - small).max() <= 1
    in_strips = np.full((1200, 1920, 3), 100, np.uint8)
    assert abs(overlay(in_strips, placed)[15::30, 15::30].astype(int) - small).max() <= 12


def test_a_map_of_another_image_or_one_too_small_is_refused():
    image = np.zeros((70, 100, 3), np.uint8)
    with pytest.raises(ValueError, match=r"the map of an image of 70 x 100 has the shape \(1, 2\), not \(2, 1\)"):
        laid_over(image, np.zeros((2, 1)), crop=64)
    with pytest.raises(ValueError, match="smaller than the crop"):
        posterior_map(red_or_blue(64), image[:40])
