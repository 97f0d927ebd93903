"""Work of the threads that decode and draw: it is estimated, and what they draw for the page ends as predictions do."""

import socket
import threading
import time
from urllib.parse import urlsplit

import pytest
from gated_model import Gate, served_gate
from served import checked_error, encoded, files, wait_until

import verydeep.serving.page_requests
import verydeep.serving.work_queue
from verydeep.serving.page_texts import ENGLISH


class Brush:
    """Draws the pictures of the page when it is let, unless it is broken."""

    def __init__(self):
        self.let, self.draw, self.begun, self.broken = threading.Event(), None, 0, False

    def __call__(self, *arguments, **options):
        self.begun += 1
        assert self.let.wait(20)
        if self.broken:
            raise RuntimeError("no colour is left")
        return self.draw(*arguments, **options)


@pytest.fixture
def brush(monkeypatch):
    brush = Brush()
    brush.draw = verydeep.serving.page_requests.page_picture
    monkeypatch.setattr(verydeep.serving.page_requests, "page_picture", brush)
    yield brush
    brush.let.set()


def test_a_picture_past_the_deadline_is_dropped(brush):
    with served_gate(Gate(), deadline=0.2, decoders=1) as (service, client, _):
        answer = client.post("/", files=files(*[encoded(size=(32, 32))] * 3))
        assert answer.status_code == 504
        assert ENGLISH.refusals["deadline"] in answer.text
        wait_until(lambda: service.queue.images == 1)  # the one that is drawn
        assert service.bodies.held > 0
        brush.let.set()
        wait_until(lambda: not service.queue.images)
        assert (brush.begun, service.bodies.held) == (1, 0)


def test_a_picture_that_is_drawn_keeps_its_place_in_the_queue(brush):
    with served_gate(Gate(), queue=2, max_images=2) as (_, client, post):
        answers = []
        images = files(*[encoded(size=(32, 32))] * 2)
        page = threading.Thread(target=lambda: answers.append(client.post("/", files=images)))
        page.start()
        wait_until(lambda: brush.begun == 2)
        checked_error(post(encoded()).result(), 503, "queue_full")
        brush.let.set()
        page.join()
        assert answers[0].status_code == 200
        assert answers[0].text.count('class="plain"') == 2
        assert post(encoded()).result().status_code == 200


def test_pictures_of_a_client_that_has_left_are_dropped(brush):
    with served_gate(Gate(), decoders=1) as (service, client, _):
        request = client.build_request("POST", "/", files=files(*[encoded(size=(32, 32))] * 3))
        head = "".join(f"{name}: {value}\r\n" for name, value in request.headers.items())
        address = urlsplit(str(client.base_url))
        with socket.create_connection((address.hostname, address.port)) as gone:
            gone.sendall(f"POST / HTTP/1.1\r\n{head}\r\n".encode() + request.read())
            wait_until(lambda: brush.begun)
        wait_until(lambda: service.queue.images == 1)
        brush.let.set()
        wait_until(lambda: not service.queue.images)
        assert (brush.begun, service.bodies.held) == (1, 0)


def test_a_picture_that_cannot_be_drawn_is_an_answer(brush, caplog):
    brush.broken = True
    brush.let.set()
    with served_gate(Gate()) as (_, client, _):
        answer = client.post("/", files=files(encoded(size=(32, 32))))
        assert answer.status_code == 500
        assert ENGLISH.refusals["internal"] in answer.text
    assert sum("no colour is left" in record.getMessage() for record in caplog.records) == 1


@pytest.mark.parametrize("kind", ["decoding", "drawing"])
def test_more_seconds_of_decoders_than_the_queue_takes_are_refused(kind, brush, monkeypatch):
    decode, decoded = verydeep.serving.work_queue.prepared, threading.Event()

    def slowly(*arguments):
        time.sleep(0.02)
        assert decoded.wait(20)
        return decode(*arguments)

    if kind == "decoding":
        monkeypatch.setattr(verydeep.serving.work_queue, "prepared", slowly)
    brush.let.set()
    decoded.set()
    with served_gate(Gate(), queue_seconds=0.05, decoders=1) as (service, client, post):
        if kind == "drawing":
            draw = brush.draw
            brush.draw = lambda *arguments, **options: (time.sleep(0.02), draw(*arguments, **options))[1]
        for _ in range(3):
            client.post("/", files=files(encoded(size=(32, 32))))  # which tells how long it takes
        (decoded if kind == "decoding" else brush.let).clear()
        images = files(*[encoded(size=(32, 32))] * 8)
        page = threading.Thread(target=lambda: client.post("/", files=images))
        page.start()
        wait_until(lambda: service.queue.images == 8)
        assert "seconds of work" in checked_error(post(encoded()).result(), 503, "queue_full")
        decoded.set()
        brush.let.set()
        page.join()
        wait_until(lambda: not service.queue.images)
        assert service.queue.seconds == 0
