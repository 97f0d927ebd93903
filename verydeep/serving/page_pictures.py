"""Pictures of a service's page: an image and the colours of its score maps, as addresses that hold them."""

from verydeep.evaluation.score_maps import colours, data_address, fitted, interpolated, placed_score_map
from verydeep.images.decode import decode_for, stored_size
from verydeep.networks.grids import PoolingGrid
from verydeep.serving.image_outcomes import ClassMap, ImageAnswer, MapPicture, PagePicture

_LONGER_SIDE = 768
"""Pixels of an image on the page, at most."""

_STEP = 2
"""A map's colours stand for every second pixel of its image: the map has one value in 32."""


def page_picture(data: bytes, answer: ImageAnswer, *, grid: PoolingGrid, max_pixels: int) -> PagePicture:
    """Draw an image and the score maps of its answer.

    Args:
        data: the image's file.
        answer: the model's answer for it.
        grid: of the maps.
        max_pixels: as for `decode`.

    Raises:
        UnusableImageError: as `decode`.
    """
    size = stored_size(data, answer.image, max_pixels=max_pixels)
    shorter_side = max(1, _LONGER_SIDE * min(size) // max(size))
    decoded = decode_for(data, answer.image, shorter_side=shorter_side, max_pixels=max_pixels)
    image = fitted(decoded.pixels, _LONGER_SIDE)
    maps = tuple(_map_picture(one, grid) for one in answer.maps)
    return PagePicture(data_address(image), (image.shape[0], image.shape[1]), maps)


def _map_picture(one: ClassMap, grid: PoolingGrid) -> MapPicture:
    class_map = one.values.astype(float)
    values = interpolated(placed_score_map(class_map, one.size, crop=one.window, grid=grid), one.size)
    address = data_address(colours(values[_STEP // 2 :: _STEP, _STEP // 2 :: _STEP]))
    return MapPicture(address, float(class_map.min()), float(class_map.max()), class_map.shape)
