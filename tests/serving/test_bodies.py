"""Bytes of bodies: reserved before they are read, by those who have a key, and given back when nobody holds them."""

import base64
import re
import socket
import threading
import tracemalloc
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from urllib.parse import urlsplit

import pytest
from gated_model import Gate, served_gate
from served import KEY, checked_error, encoded, files, service_of, serving, wait_until

import verydeep.serving.bodies
import verydeep.serving.inference_protocol
import verydeep.serving.page_requests
import verydeep.serving.predict_request
import verydeep.serving.work_queue
from verydeep.serving.options import Access
from verydeep.serving.refusals import bad_request

FIRST = 16 * 2**10


@pytest.fixture(scope="module")
def keyed(tmp_path_factory):
    """A service that asks for a key, and its client."""
    file = tmp_path_factory.mktemp("keys") / "keys"
    file.write_text(KEY)
    service = service_of(Gate().model(), Access(key_file=file), max_body=1, max_bodies=1)
    with serving(service) as client:
        yield service, client


def form(*parts):
    body = b""
    for name, data in parts:
        file = b'; filename="1.png"' if name == b"image" else b""
        body += b'--b\r\nContent-Disposition: form-data; name="' + name + b'"' + file + b"\r\n\r\n" + data + b"\r\n"
    return body + b"--b--\r\n"


def asked(body, length, **headers):
    lines = [b"POST / HTTP/1.1", b"Host: x", b"Content-Type: multipart/form-data; boundary=b"]
    lines += [b"Content-Length: %d" % length, *(b"%s: %s" % (name.encode(), value) for name, value in headers.items())]
    return b"\r\n".join(lines) + b"\r\n\r\n" + body


IMAGE = encoded(size=(32, 32)) + bytes(900_000)


@pytest.mark.parametrize("fields", [[], [(b"key", b"a-key-of-somebody-else")], [(b"key", b"x" * 20_000)]])
def test_a_form_without_a_key_keeps_no_bytes(keyed, fields):
    service, client = keyed
    body, address = form(*fields, (b"image", IMAGE)), urlsplit(str(client.base_url))
    with socket.create_connection((address.hostname, address.port), timeout=5) as connection:
        connection.sendall(asked(body[:1000], len(body)))
        wait_until(lambda: service.bodies.held)
        assert service.bodies.held == FIRST
        connection.sendall(body[1000 : FIRST + 1000])  # and no more
        assert connection.recv(100).startswith(b"HTTP/1.1 401")
    wait_until(lambda: not service.bodies.held)


def test_a_form_with_a_key_is_answered(keyed):
    service, client = keyed
    multipart = {"Content-Type": "multipart/form-data; boundary=b"}
    for body, headers in (
        (form((b"key", KEY.encode()), (b"image", IMAGE)), {}),
        (form((b"image", IMAGE)), {"X-API-Key": KEY}),
    ):
        assert client.post("/", content=body, headers=multipart | headers).status_code == 200
    refused = client.post("/", content=form((b"image", IMAGE)), headers=multipart | {"X-API-Key": "x"})
    assert (refused.status_code, service.bodies.held) == (401, 0)


def test_no_body_is_parsed_by_the_thread_that_answers_others(monkeypatch):
    threads = set()

    def noted(function):
        def call(*arguments, **options):
            threads.add(threading.current_thread().name)
            return function(*arguments, **options)

        return call

    for module, name in (
        (verydeep.serving.predict_request, "parts_of"),
        (verydeep.serving.page_requests, "parts_of"),
        (verydeep.serving.inference_protocol, "parse_json"),
        (verydeep.serving.inference_protocol, "_from_text"),
        (verydeep.serving.work_queue, "prepared"),
    ):
        monkeypatch.setattr(module, name, noted(getattr(module, name)))
    with served_gate(Gate()) as (_, client, post):
        assert post(IMAGE).result().status_code == 200
        assert client.post("/", files=files(IMAGE)).status_code == 200
        one = {"name": "images", "shape": [1], "datatype": "BYTES", "data": [base64.b64encode(IMAGE).decode()]}
        assert client.post("/v2/models/tiny/infer", json={"inputs": [one]}).status_code == 200
    assert {re.sub(r"_?\d+$", "", name) for name in threads} == {"asyncio", "decoding"}  # pools of threads


@pytest.mark.parametrize("path", ["/", "/v1/predict", "/v2/models/tiny/infer"])
def test_a_body_that_is_parsed_for_long_is_answered_at_the_deadline(monkeypatch, path):
    parses = threading.Event()

    def when_let(*_, **__):
        assert parses.wait(20)
        raise bad_request("no multipart")

    for module in (verydeep.serving.predict_request, verydeep.serving.page_requests):
        monkeypatch.setattr(module, "parts_of", when_let)
    monkeypatch.setattr(verydeep.serving.inference_protocol, "_read", when_let)
    with served_gate(Gate(), deadline=0.3) as (service, client, _):
        try:
            answer = client.post(path, files=files(IMAGE))
            assert answer.status_code == 504
            assert service.bodies.held > len(IMAGE)  # which the thread still has
        finally:
            parses.set()
        wait_until(lambda: not service.bodies.held)


def test_a_deadline_that_is_shorter_than_the_time_for_a_body_ends_its_reading():
    with served_gate(Gate(), deadline=0.3, body_seconds=20) as (_, client, _):
        address = urlsplit(str(client.base_url))
        with socket.create_connection((address.hostname, address.port), timeout=10) as connection:
            connection.sendall(b"POST /v1/predict HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\nabc")
            answer = b""
            while chunk := connection.recv(2**16):
                answer += chunk
    assert answer.startswith(b"HTTP/1.1 408")
    assert b"within 0.3 seconds" in answer


def test_a_body_of_boundaries_is_refused_before_it_is_parsed(monkeypatch):
    """Each that is followed by something else takes microseconds, and a body has room for millions."""
    monkeypatch.setattr(verydeep.serving.bodies, "MultipartParser", None)
    with served_gate(Gate(), max_images=2) as (_, client, _):
        headers = {"Content-Type": "multipart/form-data; boundary=b"}
        body = form((b"image", b"\r\n--bX" * 100_000))
        refused = client.post("/v1/predict", content=body, headers=headers)
        assert "up to 2 images and 8 fields" in checked_error(refused, 413, "too_many_images")


def test_bytes_are_let_go_with_their_reservation(monkeypatch):
    decodes, decode = threading.Event(), verydeep.serving.work_queue.prepared

    def when_let(*arguments):
        assert decodes.wait(20)
        return decode(*arguments)

    monkeypatch.setattr(verydeep.serving.work_queue, "prepared", when_let)
    with served_gate(Gate(), deadline=0.3, decoders=1, max_batch=1) as (service, client, _), tracing():
        try:
            with ThreadPoolExecutor(2) as threads:
                for answer in threads.map(lambda image: client.post("/v1/predict", content=image), [IMAGE] * 2):
                    checked_error(answer, 504, "deadline")
            wait_until(lambda: service.queue.images == 1)  # the one that is decoded
            assert service.bodies.held == len(IMAGE)
            wait_until(lambda: kept_bytes() < 1.2 * len(IMAGE))
        finally:
            decodes.set()
        wait_until(lambda: not service.queue.images)
        assert service.bodies.held == 0
        wait_until(lambda: kept_bytes() < 100_000)  # a thread lets go a moment after its answer is seen


@contextmanager
def tracing():
    tracemalloc.start()
    try:
        yield
    finally:
        tracemalloc.stop()


def kept_bytes():
    """Return the bytes that are left of what was allocated where bodies are read."""
    ours = tracemalloc.Filter(True, verydeep.serving.bodies.__file__)
    return sum(trace.size for trace in tracemalloc.take_snapshot().filter_traces([ours]).traces)
