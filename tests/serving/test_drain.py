"""The verb, from its start to its end by SIGTERM: nothing that was accepted is lost, and the status is 0."""

import os
import re
import signal
import socket
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from urllib.parse import urlsplit

import httpx
import pytest
from served import encoded, wait_until
from several_commands import refusal, status_of

import verydeep.commands.serve
import verydeep.serving.served_model


def while_serving(arguments, lines, act, monkeypatch, after=None):
    """Run the verb in this thread, where signals arrive, and `act(address)` in another one; return the status.

    `after` is called with the line that tells the address, and with those that follow it.
    """
    found = threading.Event()
    address, failures, handling, install = [], [], [], signal.signal

    def installed(number, handler):
        def handled(*arguments):
            handling.append(number)
            handler(*arguments)
            handling.pop()

        return install(number, handled if callable(handler) else handler)

    def heard(line):
        assert not handling, "another line may be in the middle of being printed when a signal arrives"
        lines.append(line)
        if at := re.search(r"http://\S+", line):
            address.append(at[0])
            found.set()
        if found.is_set() and after is not None:
            after(line)

    def acting():
        try:
            assert found.wait(20)
            act(address[0])
        except BaseException as error:
            failures.append(error)
            os.kill(os.getpid(), signal.SIGINT)  # which ends a service, too, whose end has begun

    monkeypatch.setattr(verydeep.commands.serve, "say", heard)
    monkeypatch.setattr(signal, "signal", installed)
    thread = threading.Thread(target=acting)
    thread.start()
    try:
        return status_of("serve", *arguments)
    finally:
        thread.join(20)
        assert failures == []


def ready(address):
    def answers_ready():
        try:
            return httpx.get(f"{address}/readyz").status_code == 200
        except httpx.ConnectError:
            return False

    wait_until(answers_ready)


def test_a_service_ends_though_nobody_reads_its_lines(run, monkeypatch):
    def gone(line):
        raise BrokenPipeError

    def act(address):
        ready(address)
        os.kill(os.getpid(), signal.SIGTERM)
        wait_until(lambda: not listens(address))

    arguments = (run, "--port", "0", "--grace", "0.1", "--name", "tiny")
    assert while_serving(arguments, [], act, monkeypatch, after=gone) == 0


def test_sigterm_with_50_requests_in_flight(run, monkeypatch, figure):
    """Nothing is computed before the listener is closed, so all answers come from the drain, none from the grace."""
    lines, seen, computes = [], {}, threading.Event()
    predicted = verydeep.serving.served_model._network_predictions

    def when_let(*arguments):
        if arguments[-1][0].name != "black":
            assert computes.wait(20)
        return predicted(*arguments)

    monkeypatch.setattr(verydeep.serving.served_model, "_network_predictions", when_let)

    def act(address):
        ready(address)
        limits = httpx.Limits(max_connections=60)
        with httpx.Client(base_url=address, timeout=20, limits=limits) as client, ThreadPoolExecutor(51) as threads:
            post = lambda seed: threads.submit(client.post, "/v1/predict", content=encoded(seed))  # noqa: E731
            futures = [post(seed) for seed in range(50)]
            wait_until(lambda: in_queue(client) == 50)
            os.kill(os.getpid(), signal.SIGTERM)
            wait_until(lambda: client.get("/readyz").status_code == 503)
            seen["drained"] = client.get("/readyz").json()["code"], client.get("/healthz").status_code
            futures.append(post(50))  # within the grace
            wait_until(lambda: in_queue(client) == 51)
            wait_until(lambda: not listens(address))
            seen["answered before"] = sum(future.done() for future in futures)
            computes.set()
            seen["statuses"] = {future.result().status_code for future in futures}

    try:
        arguments = (run, "--port", "0", "--grace", "0.5", "--max-batch", "1", "--name", "tiny")
        assert while_serving(arguments, lines, act, monkeypatch) == 0
    finally:
        computes.set()
    assert seen == {"drained": ("draining", 200), "answered before": 0, "statuses": {200}}
    assert "requests are accepted for 0.5 s more" in lines[-1]
    figure(26, "drain", "SIGTERM with 50 requests in flight: 50 answered, /readyz 503 first, status 0")


def in_queue(client):
    return float(re.search(r"(?m)^verydeep_queue_images (\S+)", client.get("/metrics").text)[1])


def listens(address):
    parts = urlsplit(address)
    try:
        socket.create_connection((parts.hostname, parts.port)).close()
    except ConnectionRefusedError:
        return False
    return True


def test_the_address_is_told_when_it_is_ready_and_ctrl_c_ends_it_at_once(run, monkeypatch):
    monkeypatch.setenv("OMP_WAIT_POLICY", "")
    monkeypatch.delenv("OMP_WAIT_POLICY")

    lines, told_before = [], []
    predicted = verydeep.serving.served_model._network_predictions

    def noted(*arguments):
        told_before.append(len(lines))
        return predicted(*arguments)

    monkeypatch.setattr(verydeep.serving.served_model, "_network_predictions", noted)

    def act(address):
        assert httpx.get(f"{address}/readyz").status_code == 200
        os.kill(os.getpid(), signal.SIGINT)

    assert while_serving((run, "--port", "0", "--name", "tiny"), lines, act, monkeypatch) == 130
    *_, preparing, address, end = lines
    assert "is being prepared" in preparing
    assert re.fullmatch(r"tiny at http://127\.0\.0\.1:\d+ \(prepared in \d+\.\d s; Ctrl-C ends it\)", address)
    assert set(told_before) == {lines.index(preparing) + 1}
    assert "no more requests are accepted" in end
    assert os.environ["OMP_WAIT_POLICY"] == "passive"  # for PyTorch, if it is loaded by the verb


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--port", "99999"), "port must be from 0 to 65,535"),
        (("--queue", "8"), "must hold the images of one request"),
        (("--max-body", "300"), "must hold one body"),
        (("--max-pixels", "200000000"), "max_pixels must be up to 178,956,970"),
        (("--max-rescaled-pixels", "1000"), "max_rescaled_pixels must be at least 1,369"),
        (("--deadline", "0"), "deadline must be above 0"),
        (("--max-batch", "0"), "max_batch must be above 0"),
        (("--name", "a/b"), "letters, digits"),
        (("--key-file", "nowhere"), "nowhere"),
        (("--allow-origin", "https://example.org/"), "such as https://example.org, not 'https://example.org/'"),
        (("--allow-origin", "example.org"), "allow_origin is a scheme, a host in lower case"),
        (("--allow-host", "gpu7.example.org:8000"), "allow_host is a name without a port"),
        (("--scales", "100"), "224"),
        (("--port", "0", "--host", "no.such.host.invalid"), "cannot listen on no.such.host.invalid"),
        (("--port", "0", "--host", "gpu7..example.org"), "cannot listen on gpu7..example.org"),
    ],
)
def test_wrong_use_is_refused_in_one_line(run, capsys, arguments, words):
    if "--host" in arguments:
        assert status_of("serve", run, *arguments) == 1
        assert words in capsys.readouterr().err
    else:
        assert words in refusal(capsys, "serve", run, *arguments)


def test_a_library_that_is_missing_is_named_with_its_extra(run, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "uvicorn", None)
    assert "pip install 'verydeep[serve]'" in refusal(capsys, "serve", run)


def test_an_address_that_is_taken_is_told_before_the_model_is_loaded(run, capsys):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        assert status_of("serve", run / "nowhere", "--port", taken.getsockname()[1]) == 1
    assert "port " in capsys.readouterr().err


def test_keys_that_can_be_guessed_are_refused_before_the_model_is_loaded(run, capsys, tmp_path):
    for text, words in (
        ("# none\n  # and none\n", "has no keys"),
        ("short\n", "fewer than 16 characters"),
        ("schl\u00fcssel-schl\u00fcssel\n", "ASCII"),
    ):
        (tmp_path / "keys").write_text(text)
        assert words in refusal(capsys, "serve", run / "nowhere", "--key-file", tmp_path / "keys")
