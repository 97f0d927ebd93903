"""Limits of a service: those that follow from its model, and images that are refused before they are unpacked."""

import io
from dataclasses import replace

import numpy as np
import pytest
from gated_model import Gate
from PIL import Image, ImageFile
from served import encoded, service_of, serving

from verydeep.images.decode import UnusableImageError
from verydeep.prediction.predict import Prediction
from verydeep.serving.image_outcomes import ImageAnswer
from verydeep.serving.options import Limits
from verydeep.serving.page_pictures import page_picture
from verydeep.serving.page_texts import ENGLISH, JAPANESE
from verydeep.serving.prepared_images import prepared


@pytest.mark.parametrize(
    ("given", "sides", "most"),
    [(None, (256,), 1_000_000), (None, (256, 1024), 4 * 1024**2), (2_000_000, (256, 1024), 2_000_000)],
)
def test_rescaled_pixels_follow_from_the_shorter_sides_unless_they_are_given(given, sides, most):
    service = service_of(replace(Gate().model(), sides=sides), max_rescaled_pixels=given)
    assert service.about()["limits"]["max_rescaled_pixels"] == most


def test_a_limit_below_a_square_at_the_shorter_side_is_refused():
    with pytest.raises(ValueError, match=r"max_rescaled_pixels must be at least 1,210,000.*1,100"):
        service_of(replace(Gate().model(), sides=(256, 1100)), max_rescaled_pixels=1_000_000)


def test_a_service_at_a_large_side_takes_images():
    with serving(service_of(replace(Gate().model(), sides=(1100,)))) as client:
        assert client.post("/v1/predict", content=encoded(size=(32, 48))).status_code == 200


def test_the_page_says_in_both_languages_that_the_shape_counts():
    assert "long and narrow" in ENGLISH.unusable["too large"]
    assert "細長くない" in JAPANESE.unusable["too large"]


@pytest.fixture
def unpacked(monkeypatch):
    """Image files that were unpacked."""
    found, load = [], ImageFile.ImageFile.load

    def noted(image):
        if not any(one is image for one in found):
            found.append(image)
        return load(image)

    monkeypatch.setattr(ImageFile.ImageFile, "load", noted)
    return found


def test_an_image_that_is_too_large_when_rescaled_is_not_unpacked(unpacked):
    with pytest.raises(UnusableImageError, match="1600 x 32 pixels when rescaled"):
        prepared(encoded(size=(40, 2000)), (32,), Limits(max_rescaled_pixels=2000))
    assert unpacked == []


def test_an_image_that_is_drawn_is_unpacked_once(unpacked):
    buffer = io.BytesIO()
    Image.fromarray(np.zeros((40, 50, 3), np.uint8)).save(buffer, "PNG")
    unpacked.clear()
    answer = ImageAnswer(prediction=Prediction(image="it", classes=("ant",), probabilities=(1.0,)))
    page_picture(buffer.getvalue(), answer, grid="centred", max_pixels=10**8)
    assert len(unpacked) == 1
