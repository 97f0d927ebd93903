"""Pictures of where in an image a network sees a class: posteriors at the positions of its score map, laid over it."""

import base64
import io
from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float, Float32, UInt8
from PIL import Image

from verydeep.evaluation.dense import score_map
from verydeep.evaluation.pixel_limits import largest_image
from verydeep.images.decode import Pixels, Size, decode, decode_for
from verydeep.images.sources.source import Source
from verydeep.images.tolerance import LARGEST_MAX_PIXELS
from verydeep.images.views import rescale
from verydeep.networks.architecture import DOWNSAMPLING
from verydeep.networks.grids import PoolingGrid, first_pixel, positions_along
from verydeep.networks.vgg import ScoringNetwork

_COLOUR_MAP = "viridis"
"""A map whose equal steps look equally long, in grey and without colour vision too."""

OPACITY = 0.6
"""Opacity of the colours over the image, which is grey below them: so no colour is the image's own."""

_LEGEND_STEPS = 9

_LUMA = (0.299, 0.587, 0.114)
"""Shares of red, green and blue in the grey of an image (ITU-R BT.601, as in JPEG)."""


def posterior_map(
    net: ScoringNetwork, image: UInt8[np.ndarray, "H W 3"], *, grid: PoolingGrid = "centred"
) -> Float32[np.ndarray, "K h w"]:
    """Return the soft-max over classes at every position of an image's dense score map.

    Testing averages the scores over all positions and then takes the soft-max, so an image's posterior is not the mean
    of this map. `overlay` says where the positions lie.

    Raises:
        ValueError: a side is smaller than the crop.
    """
    (height, width), crop = image.shape[:2], net.architecture.crop
    if min(height, width) < crop:
        raise ValueError(f"an image of {height} x {width} is smaller than the crop of {crop}: rescale it first")
    batch = torch.from_numpy(np.ascontiguousarray(image.transpose(2, 0, 1))[None])
    scores = score_map(net, batch, pixels=largest_image([net], net.mean_rgb.device), grid=grid)
    return scores[0].float().softmax(dim=0).cpu().numpy()


def overlay(
    image: UInt8[np.ndarray, "H W 3"],
    class_map: Float[np.ndarray, "h w"],
    *,
    crop: int,
    grid: PoolingGrid = "centred",
) -> UInt8[np.ndarray, "H W 3"]:
    """Lay the colours of one class's map, whose values are 0..1, over an image in grey.

    Position (i, j) belongs to the window of `crop` x `crop` pixels whose upper left corner is 32 i pixels below and
    32 j to the right of the grid's first pixel (H % 32 // 2 and W % 32 // 2 if it is centred, docs/DEVIATIONS.md). Its
    value belongs to the window's centre; between centres values are interpolated bilinearly, beyond the outermost ones
    they are held.

    Raises:
        ValueError: the map of such an image has another shape.
    """
    height, width = image.shape[:2]
    values = interpolated(class_map, (height, width), crop=crop, grid=grid)
    grey = (image @ np.array(_LUMA))[:, :, None]
    mixed = OPACITY * colours(values).astype(float) + (1 - OPACITY) * grey
    return mixed.round().astype(np.uint8)


def interpolated(
    class_map: Float[np.ndarray, "h w"], size: Size, *, crop: int, grid: PoolingGrid = "centred"
) -> Float[np.ndarray, "H W"]:
    """Return the value of a score map at every pixel of an image of this size, as `overlay` places and interpolates it.

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
    rows, columns = (
        _shares(side, length, first_pixel(side, grid) + crop / 2) for side, length in zip(size, expected, strict=True)
    )
    return rows @ class_map @ columns.T


def colours(values: Float[np.ndarray, "*shape"]) -> UInt8[np.ndarray, "*shape 3"]:
    """Return the colour of each value in 0..1, RGB in 0..255."""
    from matplotlib import colormaps

    return np.asarray(colormaps[_COLOUR_MAP](np.asarray(values, dtype=float), bytes=True))[..., :3]


def legend() -> str:
    """Return the colours from 0 to 1 as CSS writes the stops of a gradient: `rgb(68 1 84), ...`."""
    stops = colours(np.linspace(0, 1, _LEGEND_STEPS)).tolist()
    return ", ".join(f"rgb({red} {green} {blue})" for red, green, blue in stops)


def _shares(side: int, positions: int, first_centre: float) -> Float[np.ndarray, "side positions"]:
    """Return how much of each position's value the pixels along a side have; every row adds up to 1."""
    pixel_centres = np.arange(side) + 0.5
    coordinates = np.clip((pixel_centres - first_centre) / DOWNSAMPLING, 0, positions - 1)
    return np.maximum(0, 1 - abs(coordinates[:, None] - np.arange(positions)))


_LONGER_SIDE = 224
"""Pixels of a picture on a page, at most, where many stand side by side."""

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


def image_at_scale(source: Source, index: int, shorter_side: int, *, max_pixels: int = LARGEST_MAX_PIXELS) -> Pixels:
    """Return an image of a source as it is tested, with its shorter side at `shorter_side` pixels.

    Raises:
        UnusableImageError: it can no longer be used.
    """
    sample = source[index]
    decoded = decode_for(sample.data, sample.id, shorter_side=shorter_side, max_pixels=max_pixels)
    return rescale(decoded, shorter_side)


def thumbnail(source: Source, index: int) -> Pixels:
    """Return an image of a source in the size that `fitted` gives it.

    Raises:
        UnusableImageError: it can no longer be used.
    """
    sample = source[index]
    return fitted(decode(sample.data, sample.id, max_pixels=LARGEST_MAX_PIXELS))


def fitted(image: Pixels, longer_side: int = _LONGER_SIDE) -> Pixels:
    """Shrink an image to sides of at most `longer_side`; enlarge a small one so that each pixel becomes a square."""
    longer, shorter = max(image.shape[:2]), min(image.shape[:2])
    if longer > longer_side:
        return rescale(image, max(1, longer_side * shorter // longer))
    factor = longer_side // longer
    return image.repeat(factor, axis=0).repeat(factor, axis=1)


def data_address(image: Pixels) -> str:
    """Return the image as a JPEG in the text of an address, which needs no file."""
    buffer = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(image)).save(buffer, "JPEG", quality=_QUALITY)
    return f"data:image/jpeg;base64,{base64.b64encode(buffer.getvalue()).decode()}"
