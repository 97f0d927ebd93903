"""Clients that are slow, leave, or speak HTTP in other ways: each gets a defined answer, and nothing of them stays."""

import errno
import http.client
import io
import json
import socket
import time
from contextlib import contextmanager, suppress
from types import SimpleNamespace
from urllib.parse import urlsplit

import h11
import pytest
from gated_model import Gate
from served import checked_error, encoded, service_of, serving, wait_until

from verydeep.serving import connection
from verydeep.serving.connection import TimedConnection

SECONDS = 0.5
"""In which a head or a body has to arrive."""


@pytest.fixture(scope="module")
def service(run):
    return service_of(run, body_seconds=SECONDS, max_body=0.5)


@pytest.fixture(scope="module")
def client(service):
    with serving(service) as client:
        yield client


@pytest.fixture(autouse=True)
def _nothing_stays(service):
    yield
    wait_until(lambda: not service.queue.images and not service.bodies.held)


def connected(client):
    address = urlsplit(str(client.base_url))
    return socket.create_connection((address.hostname, address.port), timeout=5)


def answers_to(client, data, *more):
    """Return all that comes until the server closes the connection."""
    with connected(client) as connection:
        connection.sendall(data)
        for wait, rest in more:
            time.sleep(wait)
            connection.sendall(rest)
        return all_of(connection)


def all_of(connection):
    received = b""
    while chunk := connection.recv(2**16):
        received += chunk
    return received


def cut_off(service):
    return service.metrics.registry.get_sample_value("verydeep_cut_off_total")


def error_of(answer):
    head, _, body = answer.partition(b"\r\n\r\n")
    said = json.loads(body)
    assert set(said) == {"error", "code", "request_id"}
    return int(head.split()[1]), said["code"]


HEAD = b"POST /v1/predict HTTP/1.1\r\nHost: x\r\n"


def test_a_body_that_stops_is_answered_408(client):
    assert error_of(answers_to(client, HEAD + b"Content-Length: 100\r\n\r\nabc")) == (408, "slow_body")
    chunked = HEAD + b"Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n"
    assert error_of(answers_to(client, chunked)) == (408, "slow_body")


def test_a_length_beside_chunks_reserves_nothing_and_is_answered_400(client):
    both = HEAD + b"Connection: close\r\nContent-Length: 0\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n"
    assert error_of(answers_to(client, both))[0] == 400


def test_a_head_that_stops_is_answered_408_and_counted_and_silence_is_closed(client, service):
    before = counted(service, "408")
    assert error_of(answers_to(client, b"POST /v1/pre")) == (408, "slow_head")
    assert counted(service, "408") == before + 1
    assert answers_to(client, b"") == b""


def test_a_connection_that_stays_silent_after_an_answer_is_closed(client):
    received = answers_to(client, b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
    assert received.startswith(b"HTTP/1.1 200")
    assert received.endswith(b'{"live": true}')


def test_a_head_has_its_time_on_a_connection_that_was_used_before(client):
    question = b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n"
    late = SECONDS * 0.55  # twice, after the first answer: the head's own time begins then
    received = answers_to(client, question, (late, b"GET /heal"), (late, b"thz HTTP/1.1\r\nHost: x\r\n\r\n"))
    assert received.count(b'{"live": true}') == 2
    received = answers_to(client, question + b"GET /heal")
    assert received.count(b"HTTP/1.1 200") == 1
    assert error_of(received[received.index(b"HTTP/1.1 408") :]) == (408, "slow_head")


def test_a_request_gets_one_answer_whatever_follows_in_its_body(client):
    chunked = HEAD + b"Transfer-Encoding: chunked\r\n"
    bad_chunk = (0.1, b"no length\r\n")
    assert error_of(answers_to(client, chunked + b"\r\n3\r\nabc\r\n", bad_chunk)) == (400, "bad_request")
    answered = chunked + b"Content-Type: application/json\r\n\r\n3\r\nabc\r\n"
    assert error_of(answers_to(client, answered, bad_chunk)) == (415, "unsupported_type")  # and nothing after it


def test_a_client_that_takes_no_answers_is_closed_and_counted(client, service):
    state, before = client.server.server_state, cut_off(service)
    with socket.socket() as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        address = urlsplit(str(client.base_url))
        connection.connect((address.hostname, address.port))
        ours = connection.getsockname()
        wait_until(lambda: ours in {one.client for one in list(state.connections)})
        connection.setblocking(False)
        sent = 0
        with suppress(BlockingIOError):
            while sent < 2**24:
                sent += connection.send(b"GET /openapi.json HTTP/1.1\r\nHost: x\r\n\r\n" * 100)
        wait_until(lambda: ours not in {one.client for one in list(state.connections)})
        wait_until(lambda: not state.tasks)
    assert cut_off(service) == before + 1


@contextmanager
def sent(client, size):
    """Make the server send bytes; yield the client's end, once it is known there."""
    state = client.server.server_state
    with connected(client) as connection:
        known = lambda: [one for one in list(state.connections) if one.client == connection.getsockname()]  # noqa: E731
        wait_until(known)
        (ours,) = known()
        ours.loop.call_soon_threadsafe(ours.transport.write, bytes(size))
        yield connection


def taken_slowly(connection, seconds):
    """Take 16 KiB in each twelfth of a second; return how many bytes there were before the end, or in these seconds."""
    received, end = 0, time.monotonic() + seconds
    while time.monotonic() < end and (chunk := connection.recv(2**14)):
        received += len(chunk)
        time.sleep(0.08)
    return received


def test_a_client_that_takes_an_answer_slowly_but_steadily_gets_all_of_it():
    """The system holds megabytes for the connection, and asks for more only when a third of them is gone."""
    size, seconds = 2**24, 2.0
    service = service_of(Gate().model(), body_seconds=seconds)
    with serving(service) as client, sent(client, size) as connection:
        assert taken_slowly(connection, 2.5 * seconds) + len(all_of(connection)) == size
    assert cut_off(service) == 0


@pytest.mark.parametrize(
    ("looks", "closed"),
    [
        ([(0, 0, False), (1, 0, True), (9, 0, True)], False),
        ([(0, 0, False), (1, 0, True), (10, 2**13, True)], True),  # next to nothing was taken
        ([(0, 0, False), (9, 2**14, True), (18, 2**15, True), (27, 3 * 2**14, True)], True),  # too little on the whole
        ([(0, 0, False), (9, 2**17, True), (18, 2**18, True)], False),
        ([(0, 0, False), (9, 2**23, True), (18, 2**23, True), (19, 2**23, True)], True),  # much, and then nothing
        ([(0, 0, False), (9, 0, True), (18, 2**20, False), (27, 2**20, True), (27.9, 2**20, True)], False),
        ([(0, 0, False), (9, 0, False), (18, 2**20, True), (27, 2**21, True)], False),  # the system held some before
    ],
)
def test_an_answer_has_its_time_and_more_for_what_was_taken(looks, closed):
    taking = connection._Taking(10, 0)
    assert [taking.is_too_slow(now, taken, waits=waits) for now, taken, waits in looks][-1] == closed


def test_a_body_in_many_small_chunks_is_refused_before_all_of_it_is_parsed(client, monkeypatch):
    parsed, next_event = [], h11.Connection.next_event
    monkeypatch.setattr(h11.Connection, "next_event", lambda self: parsed.append(0) or next_event(self))
    small = HEAD + b"Transfer-Encoding: chunked\r\n\r\n" + b"1\r\nx\r\n" * 20_000
    with connected(client) as connection:
        connection.sendall(small)
        answer = connection.recv(2**16)
        assert (error_of(answer), b"chunks of the body are too small" in answer) == ((400, "bad_request"), True)
    assert len(parsed) < 1100
    fine = HEAD + b"Transfer-Encoding: chunked\r\nConnection: close\r\n\r\n" + (b"80\r\n" + b"x" * 128 + b"\r\n") * 3000
    assert error_of(answers_to(client, fine + b"0\r\n\r\n")) == (422, "unusable_image")


def test_others_have_their_turn_between_small_reads(client, monkeypatch):
    sizes, received = [], TimedConnection.data_received
    monkeypatch.setattr(
        TimedConnection, "data_received", lambda self, data: sizes.append(len(data)) or received(self, data)
    )
    client.post("/v1/predict", content=bytes(400_000))
    assert sum(sizes) > 400_000
    assert max(sizes) <= 2**14


def test_what_is_no_http_is_answered_with_the_reason_and_counted(client, service):
    before = counted(service, "400")
    answer = answers_to(client, b"\x16\x03\x01\x00\xff\r\n\r\n")
    assert error_of(answer) == (400, "bad_request")
    both = HEAD + b"Content-Length: -1\r\n\r\n"
    answer = answers_to(client, both)
    assert (error_of(answer), b"Content-Length" in answer.partition(b"\r\n\r\n")[2]) == ((400, "bad_request"), True)
    assert counted(service, "400") == before + 2


def test_a_head_that_is_too_long_is_answered_431(client):
    many = b"GET / HTTP/1.1\r\nHost: x\r\n" + b"A: " + b"x" * 20_000
    answer = answers_to(client, many)
    assert error_of(answer) == (431, "long_head")
    assert answer.startswith(b"HTTP/1.1 431 Request Header Fields Too Large\r\n")
    assert b"16,384 bytes" in answer


def counted(service, status):
    """Return how many requests were answered before they had a method and a path."""
    values = {"method": "other", "path": "other", "status": status}
    return service.metrics.registry.get_sample_value("http_requests_total", values) or 0


def test_chunks_beyond_the_limit_are_answered_413(client):
    chunk = b"10000\r\n" + b"x" * 0x10000 + b"\r\n"
    with connected(client) as connection:
        connection.sendall(HEAD + b"Transfer-Encoding: chunked\r\n\r\n" + chunk * 8 + b"1\r\nx\r\n")
        assert connection.recv(2**16).split()[1] == b"413"


def test_a_body_that_is_announced_too_large_is_not_waited_for(client):
    with connected(client) as connection:
        connection.sendall(HEAD + b"Expect: 100-continue\r\nContent-Length: 524289\r\n\r\n")
        assert connection.recv(2**16).split()[1] == b"413"


def test_http_1_0_pipelining_ranges_head_and_options(client):
    image = encoded()
    request = b"POST /v1/predict HTTP/1.0\r\nContent-Length: %d\r\n\r\n" % len(image) + image
    received = answers_to(client, request)
    assert received.split()[1] == b"200"
    assert b'"classes"' in received
    two = 2 * (HEAD + b"Content-Length: %d\r\n\r\n" % len(image) + image)
    assert answers_to(client, two).count(b"HTTP/1.1 200 OK") == 2
    ranged = client.get("/v1/model", headers={"Range": "bytes=0-1"})
    assert (ranged.status_code, ranged.json()["name"]) == (200, "tiny")
    head = client.head("/v1/model")
    assert (head.status_code, head.content) == (200, b"")
    for method in ("OPTIONS", "PUT", "TRACE", "BREW"):
        checked_error(client.request(method, "/v1/predict"), 405, "method_not_allowed")
    assert client.head("/v1/predict").status_code == 405


def test_a_connection_that_its_client_has_reset_is_closed_without_an_error():
    done = []

    def write_eof():
        raise OSError(errno.ENOTCONN, "Transport endpoint is not connected")

    transport = SimpleNamespace(write_eof=write_eof, close=lambda: done.append("closed"), is_closing=lambda: False)
    of_client = SimpleNamespace(may_be_sending=lambda: True, read_on=lambda: done.append("read on"))
    connection._StagedTransport(transport, of_client).close()
    assert done == ["closed"]


def test_idle_connections_do_not_keep_others_from_being_answered(client, battery):
    idle = [connected(client) for _ in range(1000 if battery else 100)]
    try:
        assert client.post("/v1/predict", content=encoded()).status_code == 200
        for one in idle:
            assert one.recv(1) == b""  # closed
    finally:
        for one in idle:
            one.close()


def test_a_body_that_was_answered_is_not_read_for_long(monkeypatch):
    monkeypatch.setattr(connection, "_UNREAD_SECONDS", 0.1)
    refused = HEAD + b"Content-Type: application/json\r\nContent-Length: 100\r\n\r\nabc"
    with serving(service_of(Gate().model(), body_seconds=60)) as client:
        assert error_of(answers_to(client, refused)) == (415, "unsupported_type")  # and the end within 5 seconds
        whole = refused + b"x" * 97
        received = answers_to(client, whole, (0.2, whole.replace(HEAD, HEAD + b"Connection: close\r\n")))
        assert received.count(b"HTTP/1.1 415") == 2


def test_an_answer_is_not_lost_while_a_refused_body_is_still_sent(monkeypatch):
    monkeypatch.setattr(connection, "_UNREAD_SECONDS", 0.1)
    size, pieces = 2**16, 12
    refused = HEAD + b"Content-Type: application/json\r\nContent-Length: %d\r\n" % (size * pieces)
    piece = (0.02, bytes(size))  # of a client that reads no answer before it has sent all; the last one never comes
    with serving(service_of(Gate().model(), body_seconds=60)) as client:
        for close in (b"", b"Connection: close\r\n"):
            received = answers_to(client, refused + close + b"\r\n", *[piece] * (pieces - 1))
            assert error_of(received) == (415, "unsupported_type")


def test_a_body_that_was_answered_is_read_for_as_long_as_one_may_take(monkeypatch):
    monkeypatch.setattr(connection, "_UNREAD_SECONDS", 0.1)
    refused = HEAD + b"Connection: close\r\nContent-Type: application/json\r\nContent-Length: 99999999\r\n\r\n"
    with serving(service_of(Gate().model(), body_seconds=0.3)) as client, connected(client) as one:
        one.sendall(refused)

        def closed():
            time.sleep(0.02)
            try:
                one.sendall(bytes(100))
            except OSError:
                return True
            return False

        wait_until(closed)


def test_a_client_that_has_ended_its_sending_is_answered():
    image = encoded(size=(32, 32))
    request = HEAD + b"Content-Length: %d\r\n\r\n" % len(image) + image
    with serving(service_of(Gate(for_each=0.12).model(), max_batch=1)) as client:
        for sent, count in ((request, 1), (2 * request, 2), (request.replace(b"HTTP/1.1", b"HTTP/1.0"), 1)):
            with connected(client) as one:
                one.sendall(sent)
                one.shutdown(socket.SHUT_WR)
                received = all_of(one)
            assert received.count(b" 200 OK\r\n") == received.count(b'"ant"') == count
            answer = http.client.HTTPResponse(SimpleNamespace(makefile=lambda _, sent=received: io.BytesIO(sent)))
            answer.begin()  # skips what comes before an answer, as clients do
            assert answer.status == 200
