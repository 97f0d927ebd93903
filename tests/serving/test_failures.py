"""Errors of the service itself: what clients get to know, what the log has, and what goes on."""

import asyncio
import gc
import html
import threading
from functools import partial

import pytest
from gated_model import Gate, busy_with_one, served_gate
from served import checked_error, encoded, service_of, serving, wait_until

import verydeep.serving.work_queue
from verydeep.serving.bodies import Room
from verydeep.serving.options import Access
from verydeep.serving.page_texts import ENGLISH
from verydeep.serving.refusals import busy
from verydeep.serving.served_model import Wanted

ORIGIN = "https://ours.example"


@pytest.fixture
def logged(caplog):
    """What the log has of errors, a text for each record."""
    return lambda: [record.getMessage() for record in caplog.records if record.levelname == "ERROR"]


def test_an_error_is_answered_as_all_others_and_logged_once(logged):
    service = service_of(Gate().model(), Access(allow_origin=(ORIGIN,)))
    service.about = lambda: 1 / 0
    with serving(service) as client:
        answer = client.get("/v1/model", headers={"Origin": ORIGIN, "X-Request-ID": "mine"})
        said = checked_error(answer, 500, "internal")
        assert client.get("/healthz").status_code == 200
    assert answer.headers["access-control-allow-origin"] == ORIGIN
    assert (answer.headers["x-request-id"], "ZeroDivision" in said) == ("mine", False)
    (entry,) = logged()
    assert "request mine has failed:\nTraceback" in entry
    assert entry.rstrip().endswith("ZeroDivisionError: division by zero")


def test_an_error_of_the_page_is_answered_in_words(logged):
    service = service_of(Gate().model())
    service.about = lambda: 1 / 0
    with serving(service) as client:
        answer = client.get("/")
    assert (answer.status_code, answer.headers["content-type"]) == (500, "text/html; charset=utf-8")
    assert ENGLISH.refusals["internal"] in html.unescape(answer.text)
    assert len(logged()) == 1


def test_an_image_that_fails_has_an_error_beside_the_predictions_of_others(logged):
    good, spoilt = encoded(size=(32, 32)), encoded(size=(32, 33))
    with served_gate(Gate()) as (service, client, post):
        answer = post(good, spoilt, good).result()
        assert answer.status_code == 200
        errors = [one["error"] for one in answer.json()["predictions"]]
        assert [bool(error) for error in errors] == [False, True, False]
        assert "its log says why" in errors[1]
        assert "out of memory" in logged()[0]
        checked_error(post(spoilt).result(), 500, "internal")
        checked_error(post(spoilt, b"no image").result(), 500, "internal")
        assert client.get("/readyz").status_code == 200
        assert outcomes(service) == {"predicted": 2, "failed": 3, "refused": 1}
    assert len(logged()) == 3


def outcomes(service):
    """Return how many images came to what."""
    samples = [sample for family in service.metrics.images.collect() for sample in family.samples]
    return {one.labels["outcome"]: one.value for one in samples if one.name.endswith("_total")}


def test_a_model_that_fails_ends_all_that_waits(logged):
    gate, image = Gate(), encoded(size=(32, 32))
    with served_gate(gate, max_batch=1) as (service, client, post):
        computed = busy_with_one(gate, post)
        waiting = [post(image, image), post(image)]
        wait_until(lambda: len(service.queue._waiting) == 3)
        gate.broken = True
        gate.open.set()
        checked_error(computed.result(), 500, "internal")
        for answer in waiting:
            checked_error(answer.result(), 503, "failed")
            assert answer.result().headers["retry-after"]
        assert "cannot be computed" in checked_error(client.get("/readyz"), 503, "failed")
        checked_error(client.post("/v1/predict", content=image), 503, "failed")
        wait_until(lambda: client.server.should_exit)
        assert (service.queue.images, service.bodies.held) == (0, 0)
    assert sorted("cannot be computed" in entry for entry in logged()) == [False, True]


def test_what_waits_when_the_service_ends_is_refused():
    gate = Gate()
    service = service_of(gate.model(), max_batch=1)

    async def ended():
        service.queue.start()
        while not service.queue.ready:
            await asyncio.sleep(0.01)
        gate.open.clear()
        gate.computing.clear()
        answers = service.queue.submit([encoded()] * 3, [Wanted("image", 1)] * 3, Room(service.bodies))
        while not gate.computing.is_set() or len(service.queue._waiting) < 2:
            await asyncio.sleep(0.01)
        asyncio.get_running_loop().call_later(0.1, gate.open.set)
        await service.queue.stop()
        return await asyncio.wait_for(asyncio.gather(*answers, return_exceptions=True), 5)

    refusals = asyncio.run(ended())
    assert [one.code for one in refusals] == ["draining"] * 3
    assert len(set(map(id, refusals))) == 3  # one for all would keep the frames of every request that it ends
    assert outcomes(service) == {"dropped": 3}


def test_an_image_that_cannot_be_decoded_after_the_end_is_refused_with_the_rest(monkeypatch):
    """asyncio reports errors of tasks that nobody has asked for."""
    decodes, unasked = threading.Event(), []

    def when_let(*_):
        assert decodes.wait(20)
        raise RuntimeError("out of memory")

    monkeypatch.setattr(verydeep.serving.work_queue, "prepared", when_let)
    service = service_of(Gate().model())

    async def ended():
        asyncio.get_running_loop().set_exception_handler(lambda _, context: unasked.append(context["message"]))
        service.queue.start()
        while not service.queue.ready:
            await asyncio.sleep(0.01)
        answers = service.queue.submit([encoded()], [Wanted("image", 1)], Room(service.bodies))
        service.queue._end(partial(busy, "failed", "the model cannot be computed"))
        decodes.set()
        (refusal,) = await asyncio.wait_for(asyncio.gather(*answers, return_exceptions=True), 5)
        gc.collect()
        await service.queue.stop()
        return refusal

    assert asyncio.run(ended()).code == "failed"
    assert unasked == []
