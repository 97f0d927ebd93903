"""Answers are sent at once."""

import socket

from served import service_of, serving

from verydeep.serving.server import _TimedConnection


def test_the_body_of_an_answer_does_not_wait_for_its_head_to_be_acknowledged(run, monkeypatch):
    look, options = _TimedConnection._look, []

    def noted(connection):
        its_socket = connection.transport.get_extra_info("socket")
        options.append(its_socket.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY))
        look(connection)

    monkeypatch.setattr(_TimedConnection, "_look", noted)
    with serving(service_of(run)) as client:
        assert client.get("/healthz").status_code == 200
    assert options
    assert all(options)
