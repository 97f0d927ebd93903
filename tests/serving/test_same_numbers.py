"""A service's names and numbers are those of predict, for every kind of model, with many clients at once."""

import io
import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
from PIL import Image
from served import encoded, files, service_of, serving
from tested_run import CLASSES, pixels

import verydeep.serving.served_model
from verydeep import classify, predict
from verydeep.exported_networks.exported import load_exported, write_exported
from verydeep.machine.runtime import Runtime
from verydeep.serving.options import Access, Limits
from verydeep.serving.prepared_images import prepared
from verydeep.serving.served_model import Wanted, _served_classifier, served_model
from verydeep.serving.service import Service
from verydeep.transfer_learning.classifier_folder import load_classifier

CLIENTS = 16

SIZES = ((40, 50), (37, 37), (50, 40), (64, 41), (300, 200))
"""The last is decoded at a half of its size."""


@pytest.fixture(scope="module")
def images(battery):
    """Files of several sizes and kinds."""
    kinds = ("PNG", "JPEG", "BMP")
    count = 200 if battery else 12
    return [picture(seed, SIZES[seed % len(SIZES)], kinds[seed % len(kinds)]) for seed in range(count)]


def picture(seed, size, kind):
    buffer = io.BytesIO()
    Image.fromarray(pixels(seed, size)).save(buffer, kind)
    return buffer.getvalue()


@pytest.fixture(scope="module")
def models(run, model, classifier, tmp_path_factory):
    folder = tmp_path_factory.mktemp("exported")
    places = {"run": run, "classifier": classifier, "onnx": folder / "net.onnx", "torch": folder / "net.pt2"}
    loaded = {"run": partial(predict, model)}
    for kind in ("onnx", "torch"):
        write_exported(model, places[kind], to=kind)
        loaded[kind] = partial(predict, load_exported(places[kind]))
    loaded["classifier"] = partial(classify, load_classifier(classifier))
    return {kind: (places[kind], loaded[kind]) for kind in places}


def answers(client, images):
    with ThreadPoolExecutor(CLIENTS) as threads:
        found = list(threads.map(lambda image: client.post("/v1/predict?top=7", content=image), images))
    assert {answer.status_code for answer in found} == {200}
    return [answer.json() for answer in found]


@pytest.mark.parametrize(
    ("kind", "at_once"), [("run", 1), ("run", 8), ("onnx", 1), ("onnx", 8), ("torch", 1), ("classifier", None)]
)
def test_names_and_numbers_are_those_of_predict(models, images, kind, at_once, figure):
    place, by_hand = models[kind]
    numbers = "scores" if kind == "classifier" else "probabilities"
    expected = [next(iter(by_hand(image, top=7))) for image in images]
    service = service_of(place, max_batch=at_once)
    with serving(service) as client:
        found = answers(client, images)
        largest = service.metrics.registry.get_sample_value("verydeep_batch_images_sum")
        batches = service.metrics.registry.get_sample_value("verydeep_batch_images_count")
    assert (largest > batches) == (at_once == 8)
    for one, other in zip(found, expected, strict=True):
        assert one["classes"] == list(other.classes)
        if at_once == 8:
            np.testing.assert_allclose(one[numbers], getattr(other, numbers), atol=1e-6)
        else:
            assert one[numbers] == list(getattr(other, numbers))
    how = "in batches, within 1e-6" if at_once == 8 else "one at a time, to the bit"
    figure(19, f"served, {kind}", f"{len(images)} images by {CLIENTS} clients {how}: names and numbers of predict")


@pytest.mark.parametrize(("protocol", "scales"), [("crops", "single"), ("both", "paper"), ("centre", (256, 300))])
def test_every_protocol_and_its_maps(run, model, protocol, scales):
    served = served_model(run, protocol=protocol, scales=scales)
    image = encoded(3, (45, 60))
    (expected,) = predict(model, image, protocol=protocol, scales=scales)
    (dense,) = predict(model, image, scales=scales, protocol="dense") if protocol == "both" else (None,)
    with serving(Service(served, "tiny", Limits(), Access())) as client:
        found = client.post("/v1/predict?maps=1", content=image).json()
    assert (found["classes"], found["probabilities"]) == (list(expected.classes), list(expected.probabilities))
    assert dense is None or dense.probabilities != expected.probabilities
    assert [one["class"] for one in found["maps"]] == found["classes"]
    for one in found["maps"]:
        assert np.shape(one["grid"]) == tuple((side - 32) // 32 + 1 for side in one["size"])


def test_maps_are_computed_of_the_images_alone_that_they_are_asked_of(run, monkeypatch):
    computed, compute = [], verydeep.serving.served_model._map_of
    monkeypatch.setattr(verydeep.serving.served_model, "_map_of", lambda *args: computed.append(1) or compute(*args))
    for protocol in ("crops", "dense"):
        served = served_model(run, protocol=protocol)
        image = prepared(encoded(), served.sides, Limits())
        wanted = [Wanted("image", 3, maps) for maps in (False, True, False)]
        found = served.predict([image] * 3, wanted)
        assert ([bool(one.maps) for one in found], len(computed)) == ([False, True, False], 1)


def test_whoever_loads_a_model_to_serve_it_bounds_what_is_kept_for_each_size(run, monkeypatch):
    monkeypatch.setenv("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "")
    monkeypatch.delenv("ONEDNN_PRIMITIVE_CACHE_CAPACITY")
    served_model(run)
    assert os.environ["ONEDNN_PRIMITIVE_CACHE_CAPACITY"] == "64"
    monkeypatch.setenv("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "8")
    served_model(run)
    assert os.environ["ONEDNN_PRIMITIVE_CACHE_CAPACITY"] == "8"


def test_a_classifier_takes_no_protocol_and_no_batches(classifier):
    with pytest.raises(ValueError, match="leave out --max-batch"):
        service_of(classifier, max_batch=2)
    with pytest.raises(ValueError, match="leave out --protocol"):
        served_model(classifier, protocol="crops")


def test_several_labels_are_all_answered(classifier):
    several = replace(load_classifier(classifier), several_labels=True)
    several.svm.biases[:] = 10  # all scores are above 0
    served = _served_classifier(several, Runtime())
    with serving(service_of(served)) as client:
        assert client.post("/v1/predict?maps=1", content=encoded()).status_code == 400
        found = client.post("/v1/predict?top=1", files=files(encoded(1), encoded(2))).json()["predictions"]
    assert [len(one["classes"]) for one in found] == [2, 2]
    assert set(found[0]["classes"]) <= set(CLASSES)
