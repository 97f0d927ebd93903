"""Answers are sent at once, and connections that are in use are kept."""

import http.client
import socket
import time

from served import service_of, serving

from verydeep.serving.connection import TimedConnection


def test_the_body_of_an_answer_does_not_wait_for_its_head_to_be_acknowledged(run, monkeypatch):
    look, options = TimedConnection._look, []

    def noted(connection):
        its_socket = connection.transport.get_extra_info("socket")
        options.append(its_socket.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY))
        look(connection)

    monkeypatch.setattr(TimedConnection, "_look", noted)
    with serving(service_of(run)) as client:
        assert client.get("/healthz").status_code == 200
    assert options
    assert all(options)


def test_a_connection_is_kept_while_requests_come(run):
    with serving(service_of(run, body_seconds=0.2)) as client:
        connection = http.client.HTTPConnection("127.0.0.1", client.base_url.port)
        for _ in range(12):
            connection.request("GET", "/healthz")
            assert connection.getresponse().read() == b'{"live": true}'
            time.sleep(0.05)  # almost all looks at the connection fall into such pauses
        connection.close()
