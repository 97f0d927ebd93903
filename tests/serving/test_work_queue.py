"""The queue of a service before a model that does what each test asks for: batches, limits, deadlines, who has left."""

import socket
from types import SimpleNamespace
from urllib.parse import urlsplit

import pytest
from gated_model import Gate, busy_with_one, served_gate
from served import checked_error, encoded, service_of, serving, wait_until

from verydeep.serving import work_queue


def test_images_of_one_size_share_a_batch_oldest_first():
    gate = Gate(for_each=0.001)
    with served_gate(gate, max_batch=3) as (service, _, post):
        first = busy_with_one(gate, post)
        square, wide = encoded(size=(32, 32)), encoded(size=(32, 64))
        rest = [post(square, wide, square, wide, square, square)]
        wait_until(lambda: len(service.queue._waiting) == 6)
        gate.open.set()
        assert [answer.result().status_code for answer in (first, *rest)] == [200, 200]
        names = sorted(name for batch in gate.batches[1:] for name in batch)
        assert names == [f"{number}.png" for number in range(6)]
        assert sorted(map(len, gate.batches[1:])) == [1, 2, 3]
        squares = {"0.png", "2.png", "4.png", "5.png"}
        assert all(set(batch) <= squares or not set(batch) & squares for batch in gate.batches[1:])


def test_a_batch_that_fails_is_computed_one_by_one():
    gate = Gate()
    with served_gate(gate, max_batch=8) as (service, client, post):
        busy = busy_with_one(gate, post)
        spoilt = [post(encoded(size=(32, 33))) for _ in range(2)]
        wait_until(lambda: len(service.queue._waiting) == 2)
        gate.open.set()
        assert busy.result().status_code == 200
        for answer in spoilt:
            checked_error(answer.result(), 500, "internal")
        assert [len(batch) for batch in gate.batches[1:]] == [2, 1, 1]
        assert service.queue.seconds == 0
        assert client.post("/v1/predict", content=encoded(size=(32, 32))).status_code == 200


@pytest.mark.parametrize(
    ("gate", "at_once"), [(Gate(seconds=0.02), 64), (Gate(seconds=0.02, for_each=0.0164), 4), (Gate(for_each=0.02), 1)]
)
def test_batches_are_made_where_they_gain(gate, at_once, monkeypatch):
    """By a clock that only computing moves on: on a busy machine a sleep may take several times as long."""
    monkeypatch.setattr(work_queue, "time", SimpleNamespace(monotonic=lambda: gate.clock))
    with served_gate(gate) as (service, client, _):
        assert service.queue.at_once == at_once
        assert client.get("/v1/model").json()["images_at_once"] == at_once


def test_a_full_queue_refuses_while_the_process_is_alive():
    gate = Gate()
    with served_gate(gate, queue=4, max_images=4, max_batch=1) as (service, client, post):
        waiting = [busy_with_one(gate, post), post(*[encoded(size=(32, 32))] * 3)]
        wait_until(lambda: service.queue.images == 4)
        refused = client.post("/v1/predict", content=encoded())
        assert "4 images are waiting" in checked_error(refused, 503, "queue_full")
        assert int(refused.headers["retry-after"]) >= 1
        assert client.get("/healthz").status_code == client.get("/readyz").status_code == 200
        gate.open.set()
        assert [answer.result().status_code for answer in waiting] == [200, 200]
        assert client.post("/v1/predict", content=encoded()).status_code == 200


def test_one_image_is_counted_as_one():
    gate = Gate()
    with served_gate(gate, queue=1, max_images=1, max_batch=1) as (_, client, post):
        busy = busy_with_one(gate, post)
        refused = client.post("/v1/predict", content=encoded())
        assert "1 image is waiting" in checked_error(refused, 503, "queue_full")
        gate.open.set()
        assert busy.result().status_code == 200


def test_more_work_than_seconds_is_refused():
    gate = Gate(for_each=0.02)
    with served_gate(gate, queue_seconds=0.25, max_batch=1) as (service, client, post):
        waiting = [busy_with_one(gate, post), post(*[encoded(size=(32, 32))] * 16)]
        wait_until(lambda: len(service.queue._waiting) == 16)
        refused = client.post("/v1/predict", content=encoded())
        assert "seconds of work" in checked_error(refused, 503, "queue_full")
        for answer in waiting:
            gate.open.set()
            assert answer.result().status_code == 200


def test_work_past_its_deadline_is_dropped():
    gate = Gate()
    with served_gate(gate, deadline=0.3, max_batch=1) as (service, client, post):
        late = [busy_with_one(gate, post), post(encoded(size=(32, 32)))]
        for answer in late:
            checked_error(answer.result(), 504, "deadline")
        gate.open.set()
        wait_until(lambda: not service.queue.images)
        assert len(gate.batches) == 1  # the second was never computed
        assert client.post("/v1/predict", content=encoded()).status_code == 200
        assert 'verydeep_images_total{outcome="dropped"} 2.0' in client.get("/metrics").text


def test_work_of_a_client_that_has_left_is_dropped():
    gate = Gate()
    with served_gate(gate, max_batch=1) as (service, client, post):
        busy = busy_with_one(gate, post)
        image, address = encoded(size=(32, 32)), urlsplit(str(client.base_url))
        with socket.create_connection((address.hostname, address.port)) as gone:
            gone.sendall(b"POST /v1/predict HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % len(image) + image)
            wait_until(lambda: len(service.queue._waiting) == 1)
        wait_until(lambda: service.queue.images == 1)
        gate.open.set()
        assert busy.result().status_code == 200
        wait_until(lambda: not service.queue.images)
        assert len(gate.batches) == 1
        assert service.bodies.held == 0


def test_nothing_is_accepted_before_the_first_computation():
    gate = Gate()
    gate.open.clear()
    with serving(service_of(gate.model()), ready=False) as client:
        try:
            for path in ("/readyz", "/v2/health/ready", "/v2/models/tiny/ready"):
                assert checked_error(client.get(path), 503, "not_ready")
            refused = client.post("/v1/predict", content=encoded())
            assert "being prepared" in checked_error(refused, 503, "not_ready")
            assert client.get("/healthz").status_code == 200
        finally:
            gate.open.set()


def test_a_model_that_cannot_be_computed_ends_the_service():
    gate = Gate()
    gate.predict = lambda images, wanted: 1 / 0
    service = service_of(gate.model())
    with serving(service, ready=False):
        wait_until(lambda: service.queue.failure)
        assert isinstance(service.queue.failure, ZeroDivisionError)
        assert not service.queue.ready


def test_bodies_are_reserved_before_they_are_read():
    gate = Gate()
    with served_gate(gate, max_body=1, max_bodies=1.5, max_batch=1) as (service, client, post):
        busy = busy_with_one(gate, post)
        big = encoded(size=(32, 32)) + b"\0" * 900_000
        waiting = post(big)
        wait_until(lambda: service.bodies.held > 900_000)
        checked_error(client.post("/v1/predict", content=big), 503, "bodies_full")
        checked_error(client.post("/v1/predict", content=iter([b"x"])), 503, "bodies_full")  # it may be as large
        gate.open.set()
        assert [busy.result().status_code, waiting.result().status_code] == [200, 200]
        assert service.bodies.held == 0
