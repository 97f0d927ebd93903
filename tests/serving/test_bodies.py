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
