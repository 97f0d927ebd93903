"""Requests of a service and their answers: predictions, refusals, health, the model, the form."""

import io
import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image
from served import KEY, checked_error, encoded, files, service_of, serving

import verydeep.serving.predict_request
from verydeep import predict
from verydeep.evaluation.protocols import Protocol
from verydeep.serving.options import Access
from verydeep.serving.served_model import _served_network


@pytest.fixture(scope="module")
def client(run):
    with serving(service_of(run, max_body=0.5, max_bodies=1)) as client:
        yield client


def test_a_prediction_is_that_of_predict(client, model):
    image = encoded(1, (45, 60))
    (expected,) = predict(model, image, top=3)
    answer = client.post("/v1/predict?top=3", content=image, headers={"Content-Type": "image/png"})
    assert answer.status_code == 200
    assert answer.json() == json.loads(json.dumps(expected.to_dict()))


@pytest.mark.parametrize("kind", ["application/x-www-form-urlencoded", "application/octet-stream", ""])
def test_bytes_need_no_type(client, kind):
    image = encoded(1)
    typed = client.post("/v1/predict", content=image, headers={"Content-Type": "image/png"})
    assert client.post("/v1/predict", content=image, headers={"Content-Type": kind}).json() == typed.json()


def test_maps_are_of_the_same_pass(client, model):
    image = encoded(2, (37, 100))
    found = client.post("/v1/predict?top=2&maps=1", content=image).json()
    assert [one["class"] for one in found["maps"]] == found["classes"]
    scores = model.net.score_map(pixels_of(image)).softmax(1)[0]
    for one in found["maps"]:
        assert (one["stride"], one["window"], one["offset"], one["size"]) == (32, 32, [2, 2], [37, 100])
        np.testing.assert_allclose(one["grid"], scores[model.classes.index(one["class"])].detach(), atol=1e-6)


def pixels_of(image):
    return torch.from_numpy(np.array(Image.open(io.BytesIO(image)))).permute(2, 0, 1)[None].float()


def test_of_several_images_the_bad_ones_have_an_error(client, model):
    images = [encoded(3), b"no image", encoded(4)]
    found = client.post("/v1/predict", files=files(*images)).json()["predictions"]
    assert [one["image"] for one in found] == ["0.png", "1.png", "2.png"]
    assert [bool(one["error"]) for one in found] == [False, True, False]
    assert found[1]["classes"] == found[1]["probabilities"] == []
    for one, expected in zip([found[0], found[2]], predict(model, [images[0], images[2]]), strict=True):
        assert one["classes"] == list(expected.classes)
        np.testing.assert_allclose(one["probabilities"], expected.probabilities, atol=1e-6)


@pytest.mark.parametrize(
    ("request_", "status", "words"),
    [
        ({"content": b""}, 422, "an empty file"),
        ({"content": b"<svg/>"}, 422, "not an image of a known format"),
        ({"content": b"{}", "headers": {"Content-Type": "application/json"}}, 415, "send one image's bytes"),
        ({"content": b"x", "headers": {"Content-Encoding": "gzip"}}, 415, "Content-Encoding"),
        ({"content": b"x" * (2**19 + 1)}, 413, "524,288 bytes"),
        ({"content": iter([b"x" * 2**18] * 3)}, 413, "524,288 bytes"),
        ({"content": b"x", "params": {"top": "0"}}, 400, "top is a number of classes, from 1 up"),
        ({"content": b"x", "params": {"maps": "2"}}, 400, "maps is 1 or 0"),
        ({"content": b"x", "params": {"url": "http://x"}}, 400, "unknown parameter 'url'"),
        ({"content": b"x", "headers": {"Content-Type": "multipart/form-data"}}, 400, "boundary"),
        ({"content": b"x", "headers": {"Content-Type": "multipart/form-data; boundary=b"}}, 400, "multipart"),
        ({"files": [("a", (None, b"x"))]}, 400, "'a' has no file name"),
        ({"files": [("a", (None, b"x"))] * 8}, 400, "'a' has no file name"),
        ({"files": [("a", (None, b"x"))] * 9}, 413, "and 8 fields"),
        ({"files": files(*[b"x"] * 17)}, 413, "up to 16 images"),
        ({"files": files(b"x", b"y")}, 422, "0.png: undecodable (not an image of a known format); 1.png"),
    ],
)
def test_what_cannot_be_answered_is_refused_in_words(client, request_, status, words):
    assert words in checked_error(client.post("/v1/predict", **request_), status)


def test_long_names_are_cut_before_they_are_escaped(client, monkeypatch):
    lengths, escaped = [], verydeep.serving.predict_request.escaped
    monkeypatch.setattr(
        verydeep.serving.predict_request, "escaped", lambda text: lengths.append(len(text)) or escaped(text)
    )
    refused = client.post("/v1/predict", files=[("\u202e" * 300, (None, b"x"))])
    assert "has no file name" in checked_error(refused, 400)
    assert lengths == [200]


def test_paths_and_methods_that_do_not_exist(client):
    checked_error(client.get("/v3"), 404, "not_found")
    answer = client.delete("/v1/predict")
    checked_error(answer, 405, "method_not_allowed")
    assert answer.headers["allow"] == "POST"
    assert client.head("/healthz").status_code == 200


def test_the_model_tells_what_it_is(client, model):
    about = client.get("/v1/model", headers={"X-Request-ID": "mine-1"})
    assert about.headers["x-request-id"] == "mine-1"
    about = about.json()
    assert (about["classes"], about["weights_sha256"]) == (list(model.classes), model.weights_sha256)
    assert (about["protocol"], about["scales"], about["limits"]["max_body"]) == ("dense", [256], 0.5)


def test_the_form_works_without_script(client):
    empty = client.get("/")
    assert empty.status_code == 200
    nonce = empty.text.partition('nonce="')[2].partition('"')[0]
    assert f"'nonce-{nonce}'" in empty.headers["content-security-policy"]
    assert "unsafe" not in empty.headers["content-security-policy"]
    assert "style=" not in empty.text
    found = client.post("/", files=[*files(encoded(5)), ("image", ("<b>.png", b"bad", "image/png"))])
    assert found.status_code == 200
    assert "%</td>" in found.text
    assert "<bdi>&lt;b&gt;.png</bdi>" in found.text
    found = client.post("/", files=[*files(encoded(5)), ("image", ("a.jpg", b"", "image/jpeg"))])
    assert (found.status_code, "<bdi>a.jpg</bdi>" in found.text, "an empty file" in found.text) == (200, True, True)
    body = (
        b'--b\r\nContent-Disposition: form-data; name="image"; filename=""\r\n\r\n\r\n--b--\r\n'  # as browsers send it
    )
    nothing = client.post("/", content=body, headers={"Content-Type": "multipart/form-data; boundary=b"})
    assert (nothing.status_code, "no image was chosen" in nothing.text) == (400, True)


def test_maps_that_would_be_left_out_are_refused(client, monkeypatch):
    monkeypatch.setattr(verydeep.serving.predict_request, "MOST_MAPS", 3)
    refused = client.post("/v1/predict?maps=1&top=4", content=encoded())
    assert "up to 3 classes" in checked_error(refused, 400)
    assert len(client.post("/v1/predict?maps=1&top=3", content=encoded()).json()["maps"]) == 3


def test_classes_need_not_be_valid_text(model):
    served = _served_network(replace(model, classes=("caf\udce9", *model.classes[1:])), Protocol(scales=(256,)), ())
    with serving(service_of(served)) as client:
        names = client.post("/v1/predict?top=7", content=encoded()).json()["classes"]
        page = client.post("/", files=files(*map(encoded, range(16))))
    assert "caf\udce9" in names
    assert page.status_code == 200


def test_keys_and_origins(run, tmp_path):
    (tmp_path / "keys").write_text(f"# ours\n{KEY}\nanother-key-of-enough-letters\n")
    access = Access(key_file=tmp_path / "keys", allow_origin=("https://example.org",))
    with serving(service_of(run, access)) as client:
        assert "a key is needed" in checked_error(client.post("/v1/predict", content=encoded()), 401)
        for headers in ({"X-API-Key": "wrong"}, {"Authorization": "Bearer wrong"}, {"Authorization": f"Basic {KEY}"}):
            answer = client.post("/v1/predict", content=encoded(), headers=headers)
            checked_error(answer, 401, "unauthorised")
            assert answer.headers["www-authenticate"] == "Bearer"
        for headers in ({"X-API-Key": KEY}, {"Authorization": f"Bearer {KEY}"}):
            answer = client.post("/v1/predict", content=encoded(), headers={**headers, "Origin": "https://example.org"})
            assert answer.status_code == 200
            assert answer.headers["access-control-allow-origin"] == "https://example.org"
        assert client.get("/healthz", headers={"Origin": "https://evil.example"}).headers.get(
            "access-control-allow-origin"
        ) in (None, "")
        preflight = {"Origin": "https://example.org", "Access-Control-Request-Method": "POST"}
        assert client.options("/v1/predict", headers=preflight).status_code == 200
        assert client.get("/v1/model").status_code == client.get("/metrics").status_code == 401
        assert client.post("/", files=files(encoded())).status_code == 401
        assert client.post("/", files=files(encoded()), data={"key": KEY}).status_code == 200


def test_no_origin_is_allowed_unless_asked(client):
    answer = client.get("/healthz", headers={"Origin": "https://example.org"})
    assert "access-control-allow-origin" not in answer.headers
