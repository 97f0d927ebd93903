"""The open inference protocol, as Triton's own client speaks it, and as others might."""

import base64
import json

import numpy as np
import pytest
from served import checked_error, encoded, service_of, serving
from tritonclient import http as triton
from tritonclient.utils import InferenceServerException

from verydeep import predict

IMAGES = [encoded(seed, (40, 40 + seed), kind) for seed, kind in enumerate(("PNG", "JPEG", "BMP"))]


@pytest.fixture(scope="module")
def client(run):
    with serving(service_of(run, max_batch=1)) as client:
        yield client


@pytest.fixture
def theirs(client):
    with triton.InferenceServerClient(f"{client.base_url.host}:{client.base_url.port}") as one:
        yield one


def input_of(images, *, binary=True):
    elements = images if binary else [base64.b64encode(image).decode() for image in images]
    one = triton.InferInput("images", [len(images)], "BYTES")
    one.set_data_from_numpy(np.array(elements, dtype=object), binary_data=binary)
    return one


def test_the_client_finds_the_server_and_the_model(theirs):
    assert theirs.is_server_live()
    assert theirs.is_server_ready()
    assert theirs.is_model_ready("tiny")
    assert not theirs.is_model_ready("tiny", "2")
    assert theirs.get_server_metadata()["extensions"] == ["binary_tensor_data"]
    about = theirs.get_model_metadata("tiny", "1")
    assert about["inputs"] == [{"name": "images", "datatype": "BYTES", "shape": [-1]}]


@pytest.mark.parametrize("binary_in", [True, False])
@pytest.mark.parametrize("binary_out", [True, False])
def test_answers_are_predictions(theirs, model, binary_in, binary_out):
    outputs = [triton.InferRequestedOutput(name, binary_data=binary_out) for name in ("probabilities", "classes")]
    found = theirs.infer(
        "tiny", [input_of(IMAGES, binary=binary_in)], outputs=outputs, request_id="7", parameters={"top": 3}
    )
    expected = [next(predict(model, image, top=3)) for image in IMAGES]
    classes = [[as_text(name) for name in row] for row in found.as_numpy("classes")]
    assert classes == [list(one.classes) for one in expected]
    assert found.as_numpy("probabilities").tolist() == [list(one.probabilities) for one in expected]
    assert (found.get_response()["id"], found.get_response()["model_name"]) == ("7", "tiny")


def as_text(name):
    return name.decode() if isinstance(name, bytes) else name


def test_without_outputs_all_are_answered(theirs):
    found = theirs.infer("tiny", [input_of(IMAGES[:1])])
    assert found.as_numpy("classes").shape == found.as_numpy("probabilities").shape == (1, 5)


def test_an_image_that_cannot_be_used_is_named(theirs):
    with pytest.raises(InferenceServerException, match="image 1: undecodable"):
        theirs.infer("tiny", [input_of([IMAGES[0], b"no image"])])


def asked(**changes):
    one = {"name": "images", "shape": [1], "datatype": "BYTES", "data": [base64.b64encode(IMAGES[0]).decode()]}
    return {"inputs": [one | changes]}


@pytest.mark.parametrize(
    ("body", "status", "words"),
    [
        (b"", 400, "not one of the inference protocol"),
        (b"[]", 400, "an object expected"),
        (b"[" * 1000, 400, "nested 100 levels deep"),
        (b"[" * 100_000, 400, "10,000 values"),
        (asked(shape=[2]), 400, "does not go with 1 image:"),
        (asked(datatype="UINT8"), 400, "datatype BYTES"),
        (asked(data=["?"]), 400, "base64"),
        (asked(data=[1]), 400, "base64"),
        (asked(data=None), 400, "no data"),
        (asked(parameters={"binary_data_size": 10}), 400, "binary_data_size is 10"),
        (asked(data=[[]] * 17, shape=[17]), 413, "up to 16 images"),
        ({"inputs": []}, 400, "one input"),
        (asked() | {"outputs": [{"name": "x"}]}, 400, "unknown output 'x'"),
        (asked() | {"parameters": {"top": 0}}, 400, "top is"),
    ],
)
def test_requests_that_make_no_sense_are_refused_in_words(client, body, status, words):
    content = body if isinstance(body, bytes) else json.dumps(body)
    assert words in checked_error(client.post("/v2/models/tiny/infer", content=content), status)


@pytest.mark.parametrize(
    ("tensor", "words"),
    [(b"\1\0", "ends within"), (b"\xff\xff\xff\xff", "ends within"), (b"\0\0\0\0" * 17, "up to 16"), (b"", "no image")],
)
def test_binary_tensors_that_lie_are_refused(client, tensor, words):
    head = json.dumps(asked(data=None, shape=[0], parameters={"binary_data_size": len(tensor)})).encode()
    headers = {"Inference-Header-Content-Length": str(len(head))}
    answer = client.post("/v2/models/tiny/infer", content=head + tensor, headers=headers)
    assert words in checked_error(answer, 413 if words == "up to 16" else 400)
    assert "number of bytes" in checked_error(
        client.post("/v2/models/tiny/infer", content=head, headers=dict.fromkeys(headers, "9999")), 400
    )


def test_a_long_id_or_name_is_refused_before_anything_is_done_with_it(client):
    """An answer repeats an id, and a message a name, with every character looked at while nobody else is answered."""
    answer = client.post("/v2/models/tiny/infer", json=asked() | {"id": "\u202e" * 1000})
    assert answer.json()["id"] == "\u202e" * 1000
    for body in (asked() | {"id": "x" * 1001}, asked() | {"outputs": [{"name": "x" * 1001}]}, asked(name="x" * 1001)):
        refused = client.post("/v2/models/tiny/infer", json=body)
        assert "more than 1,000 characters" in checked_error(refused, 400)


def test_models_and_versions_that_do_not_exist(client):
    checked_error(client.post("/v2/models/other/infer", json=asked()), 404)
    checked_error(client.post("/v2/models/tiny/versions/2/infer", json=asked()), 404)
    assert client.post("/v2/models/tiny/versions/1/infer", json=asked()).status_code == 200
