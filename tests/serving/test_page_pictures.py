"""Pictures of the page: the image upright in its size, and the colours of maps where their windows are."""

import base64
import io

import numpy as np
import pytest
from PIL import Image, ImageOps

from verydeep.evaluation.score_maps import colours
from verydeep.prediction.predict import Prediction
from verydeep.serving.image_outcomes import ClassMap, ImageAnswer
from verydeep.serving.page_pictures import page_picture


def shown(address):
    kind, _, data = address.partition(";base64,")
    assert kind == "data:image/jpeg"
    return Image.open(io.BytesIO(base64.b64decode(data)))


def picture(size, *, orientation=1):
    """Return a smooth image as a JPEG file."""
    width, height = size
    row, column = np.linspace(0, 255, height)[:, None], np.linspace(0, 255, width)[None]
    pixels = np.stack(np.broadcast_arrays(row, column, (row + column) / 2), axis=2).astype(np.uint8)
    exif, buffer = Image.Exif(), io.BytesIO()
    exif[0x0112] = orientation
    Image.fromarray(pixels).save(buffer, "JPEG", quality=95, exif=exif)
    return buffer.getvalue()


def answer(*maps):
    return ImageAnswer(prediction=Prediction(image="it", classes=("ant",), probabilities=(1.0,)), maps=maps)


@pytest.mark.parametrize(
    ("size", "orientation", "expected"),
    [
        ((2000, 1000), 1, (768, 384)),
        ((2000, 1000), 6, (384, 768)),
        ((300, 200), 1, (600, 400)),
        ((4, 2), 1, (768, 384)),
    ],
)
def test_an_image_is_upright_and_fits(size, orientation, expected):
    data = picture(size, orientation=orientation)
    found = page_picture(data, answer(), grid="centred", max_pixels=10**8)
    assert (found.size[1], found.size[0]) == shown(found.address).size == expected
    assert found.maps == ()
    if min(size) > 100:
        by_pillow = ImageOps.exif_transpose(Image.open(io.BytesIO(data))).resize(expected, Image.Resampling.BILINEAR)
        assert abs(np.asarray(shown(found.address), int) - np.asarray(by_pillow)).mean() < 2


def test_a_map_has_the_colours_of_its_values_at_the_windows_centres():
    grid = np.array([[0.0, 0.2, 0.4], [0.6, 0.8, 1.0]])
    one = ClassMap(name="ant", values=grid, stride=32, window=64, offset=(0, 0), size=(96, 128))
    (found,) = page_picture(picture((512, 384)), answer(one), grid="centred", max_pixels=10**8).maps
    assert (found.least, found.greatest, found.positions) == (0, 1, (2, 3))
    pixels = np.asarray(shown(found.address), int)
    assert pixels.shape == (48, 64, 3)
    for (row, column), value in np.ndenumerate(grid):
        at = pixels[(32 * row + 32) // 2, (32 * column + 32) // 2]
        assert abs(at - colours(np.array(value))).max() < 16
