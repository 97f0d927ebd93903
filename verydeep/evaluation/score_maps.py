"""Pictures of where in an image a network sees a class: posteriors at the positions of its score map, laid over it."""

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Float32, UInt8
from PIL import Image

from verydeep.evaluation.dense import score_map
from verydeep.evaluation.pixel_limits import largest_image
from verydeep.images.decode import Pixels, Size, decode, decode_for
from verydeep.images.sources.source import Sample, Source
from verydeep.images.tolerance import LARGEST_MAX_PIXELS
from verydeep.images.views import rescale
from verydeep.networks.architecture import DOWNSAMPLING
from verydeep.networks.grids import DEFAULT_GRID, PoolingGrid, first_pixel, positions_along
from verydeep.networks.vgg import ScoringNetwork

_COLOUR_MAP = "viridis"
"""A map whose equal steps look equally long, in grey and without colour vision too."""

OPACITY = 0.6
"""Opacity of the colours over the image, which is grey below them: so no colour is the image's own."""

_LEGEND_STEPS = 9

_PIXELS_AT_ONCE = 2**20
"""Pixels of a picture that are coloured at once: for all of a large one there may be no memory."""

_LUMA = (0.299, 0.587, 0.114)
"""Shares of red, green and blue in the grey of an image (ITU-R BT.601, as in JPEG)."""


def posterior_map(
    net: ScoringNetwork, image: UInt8[np.ndarray, "H W 3"], *, grid: PoolingGrid = DEFAULT_GRID
) -> Float32[np.ndarray, "K h w"]:
    """Return the soft-max over classes at every position of an image's dense score map.

    Testing averages the scores over all positions and then takes the soft-max, so an image's posterior is not the mean
    of this map. `placed_score_map` says where the positions lie.

    Raises:
        ValueError: a side is smaller than the crop.
    """
    (height, width), crop = image.shape[:2], net.architecture.crop
    if min(height, width) < crop:
        raise ValueError(f"an image of {height} x {width} is smaller than the crop of {crop}: rescale it first")
    batch = torch.from_numpy(np.ascontiguousarray(image.transpose(2, 0, 1))[None])
    scores = score_map(net, batch, pixels=largest_image([net], net.mean_rgb.device), grid=grid)
    return scores[0].float().softmax(dim=0).cpu().numpy()


@dataclass(frozen=True, kw_only=True)
class PlacedMap:
    """Values of one class at the positions of a grid, and where in the image these lie."""

    values: Float[np.ndarray, "h w"]
    """0..1."""
    size: Size
    """Height and width in pixels of the image as the network saw it."""
    first_centre: tuple[float, float]
    """Centre of the first position: pixels from the upper edge and from the left one."""
    stride: int
    """Pixels from one position to the next."""


def placed_score_map(
    class_map: Float[np.ndarray, "h w"], size: Size, *, crop: int, grid: PoolingGrid = DEFAULT_GRID
) -> PlacedMap:
    """Return where the values of one class's score map, 0..1, lie in an image of `size`, height and width in pixels.

    Position (i, j) belongs to the window of `crop` x `crop` pixels whose upper left corner is 32 i pixels below and
    32 j to the right of the grid's first pixel (H % 32 // 2 and W % 32 // 2 if it is centred, docs/DEVIATIONS.md). Its
    value belongs to the window's centre.

    Raises:
        ValueError: the map of such an image has another shape.
    """
    height, width = size
    expected = tuple(positions_along(side, crop // DOWNSAMPLING, grid) for side in size)
    if class_map.shape != expected:
        raise ValueError(
            f"at a crop of {crop} the map of an image of {height} x {width} has the shape {expected}, "
            f"not {class_map.shape}"
        )
    top, left = (first_pixel(side, grid) + crop / 2 for side in size)
    return PlacedMap(values=class_map, size=size, first_centre=(top, left), stride=DOWNSAMPLING)


def overlay(image: UInt8[np.ndarray, "H W 3"], placed: PlacedMap) -> UInt8[np.ndarray, "H W 3"]:
    """Lay the colours of a map over an image in grey, which may be larger or smaller than the one that was tested.

    Between the positions' centres values are interpolated smoothly, beyond the outermost ones they are held.
    """
    mixed = np.empty_like(image)
    at_once = max(1, _PIXELS_AT_ONCE // image.shape[1])
    for top in range(0, len(image), at_once):
        strip = slice(top, top + at_once)
        grey = (image[strip] @ np.array(_LUMA))[:, :, None]
        drawn = colours(interpolated(placed, image.shape[:2], rows=strip)).astype(float)
        mixed[strip] = (OPACITY * drawn + (1 - OPACITY) * grey).round()
    return mixed


def interpolated(placed: PlacedMap, size: Size, *, rows: slice = slice(None)) -> Float[np.ndarray, "H W"]:
    """Return the value of a map at every pixel of some rows of an image of this size, as `overlay` draws it."""
    down, across = (
        _shares(side, count, tested, first, placed.stride)
        for side, count, tested, first in zip(size, placed.values.shape, placed.size, placed.first_centre, strict=True)
    )
    return (down[rows] @ placed.values @ across.T).clip(placed.values.min(), placed.values.max())


def colours(values: Float[np.ndarray, "*shape"]) -> UInt8[np.ndarray, "*shape 3"]:
    """Return the colour of each value in 0..1, RGB in 0..255."""
    from matplotlib import colormaps

    return np.asarray(colormaps[_COLOUR_MAP](np.asarray(values, dtype=float), bytes=True))[..., :3]


def legend() -> str:
    """Return the colours from 0 to 1 as CSS writes the stops of a gradient: `rgb(68 1 84), ...`."""
    stops = colours(np.linspace(0, 1, _LEGEND_STEPS)).tolist()
    return ", ".join(f"rgb({red} {green} {blue})" for red, green, blue in stops)


def _shares(
    side: int, positions: int, tested: int, first_centre: float, stride: int
) -> Float[np.ndarray, "side positions"]:
    """Return how much of each position's value the pixels along a side have; every row adds up to 1.

    Args:
        side: pixels of the picture.
        positions: positions along it.
        tested: pixels of the same side as it was tested, to which the next two refer.
        first_centre: centre of the first position.
        stride: from one centre to the next.
    """
    pixel_centres = (np.arange(side) + 0.5) * tested / side
    coordinates = ((pixel_centres - first_centre) / stride).clip(-_REACH, positions - 1 + _REACH)
    places = np.arange(-2 * _REACH, positions + 2 * _REACH)
    held = places.clip(0, positions - 1)[:, None] == np.arange(positions)
    return _cubic(coordinates[:, None] - places) @ held.astype(float)


_REACH = 2
"""Positions to either side that a value reaches."""


def _cubic(distance: Float[np.ndarray, "*shape"]) -> Float[np.ndarray, "*shape"]:
    """Return the weights of cubic convolution (Keys 1981): it has no kinks, and keeps the values at the positions."""
    x = abs(distance)
    near, far = (1.5 * x - 2.5) * x**2 + 1, ((-0.5 * x + 2.5) * x - 4) * x + 2
    return np.where(x < 1, near, np.where(x < _REACH, far, 0.0))


LONGER_SIDE = 224
"""Most pixels of a picture's longer side where many stand side by side."""

_QUALITY = 88
"""JPEG quality; at the usual 75 enlarged pixels have halos."""


def positions_of(source: Source, ids: Sequence[str]) -> list[int]:
    """Return the indices of some images in a source, which are named in the source's order.

    Raises:
        ValueError: one of them is missing, or they are not in this order.
    """
    rest = enumerate(source.ids)
    indices = []
    for wanted in ids:
        index = next((index for index, name in rest if name == wanted), None)
        if index is None:
            raise ValueError(f"{wanted} is not where it was: the images tested are not those of this source")
        indices.append(index)
    return indices


def image_at_scale(sample: Sample, shorter_side: int, *, max_pixels: int = LARGEST_MAX_PIXELS) -> Pixels:
    """Return an image as it is tested, with its shorter side at `shorter_side` pixels.

    Raises:
        UnusableImageError: it can no longer be used.
    """
    decoded = decode_for(sample.data, sample.id, shorter_side=shorter_side, max_pixels=max_pixels)
    return rescale(decoded, shorter_side)


def thumbnail(source: Source, index: int) -> Pixels:
    """Return an image of a source in the size that `fitted` gives it.

    Raises:
        UnusableImageError: it can no longer be used.
    """
    sample = source[index]
    return fitted(decode(sample.data, sample.id, max_pixels=LARGEST_MAX_PIXELS))


def fitted(image: Pixels, longer_side: int = LONGER_SIDE) -> Pixels:
    """Shrink an image to sides of at most `longer_side`; enlarge a small one so that each pixel becomes a square."""
    longer, shorter = max(image.shape[:2]), min(image.shape[:2])
    if longer > longer_side:
        return rescale(image, max(1, longer_side * shorter // longer))
    return enlarged(image, longer_side)


def enlarged(image: Pixels, longer_side: int) -> Pixels:
    """Enlarge an image whose sides are at most half of `longer_side`, so that each pixel becomes a square."""
    factor = max(1, longer_side // max(image.shape[:2]))
    return image.repeat(factor, axis=0).repeat(factor, axis=1)


def data_address(image: Pixels) -> str:
    """Return the image as a JPEG in the text of an address, which needs no file."""
    buffer = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(image)).save(buffer, "JPEG", quality=_QUALITY)
    return f"data:image/jpeg;base64,{base64.b64encode(buffer.getvalue()).decode()}"
