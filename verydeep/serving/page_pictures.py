"""Pictures of a service's page: an image and the colours of its score maps, as addresses that hold them."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from verydeep.evaluation.score_maps import colours, data_address, fitted, interpolated, placed_score_map
from verydeep.images.decode import decode_for, image_sizes
from verydeep.networks.grids import PoolingGrid

_LONGER_SIDE = 768
"""Pixels of an image on the page, at most."""

_STEP = 2
"""A map's colours stand for every second pixel of its image: the map has one value in 32."""


class MapPicture(NamedTuple):
    """The score map of one class, to be laid over its image."""

    address: str
    least: float
    greatest: float
    positions: tuple[int, int]
    """Rows and columns of the map."""


class PagePicture(NamedTuple):
    """An image as the page shows it."""

    address: str
    size: tuple[int, int]
    """Height and width in pixels."""
    maps: tuple[MapPicture, ...]
    """One for each class of the prediction, if it has maps."""


def page_picture(data: bytes, prediction: Mapping[str, Any], *, grid: PoolingGrid, max_pixels: int) -> PagePicture:
    """Draw an image and the score maps of its prediction.

    Args:
        data: the image's file.
        prediction: as `POST /v1/predict` answers it.
        grid: of the maps.
        max_pixels: as for `decode`.

    Raises:
        UnusableImageError: as `decode`.
    """
    (height, width), _ = image_sizes(data, max_pixels=max_pixels)
    shorter_side = max(1, _LONGER_SIDE * min(height, width) // max(height, width))
    image = fitted(decode_for(data, shorter_side=shorter_side, max_pixels=max_pixels).pixels, _LONGER_SIDE)
    maps = tuple(_map_picture(one, grid) for one in prediction.get("maps", ()))
    return PagePicture(data_address(image), (image.shape[0], image.shape[1]), maps)


def _map_picture(found: Mapping[str, Any], grid: PoolingGrid) -> MapPicture:
    class_map, (height, width) = np.array(found["grid"], dtype=float), found["size"]
    placed = placed_score_map(class_map, (height, width), crop=found["window"], grid=grid)
    values = interpolated(placed, (height, width))
    address = data_address(colours(values[_STEP // 2 :: _STEP, _STEP // 2 :: _STEP]))
    return MapPicture(address, float(class_map.min()), float(class_map.max()), class_map.shape)
