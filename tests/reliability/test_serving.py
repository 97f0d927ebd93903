"""Checks 23 to 25 of a service, and a soak: hostile uploads, bombs, bad images among good ones, hours at work."""

import itertools
import os
import random
import re
import socket
import struct
import subprocess
import sys
import time
import zlib
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from importlib.util import find_spec
from types import SimpleNamespace

import httpx
import numpy as np
import psutil
import pytest
from served import encoded, files, service_of, serving, wait_until

from verydeep.exported_networks.exported import write_exported
from verydeep.serving.options import Limits

SECONDS = 0.2
"""In which what is hostile has to be refused."""

SOAK_MINUTES = float(os.environ.get("SOAK_MINUTES", "5"))
"""An hour is `make battery`, and `make soak` alone."""

AT_ONCE = 32
"""Requests that a soak has under way at most: fewer than the queue takes, whatever else holds the machine up."""

LIMIT = Limits().body_bytes

GROWTH = 60 * 2**20
"""Bytes by which memory may differ after the first requests: allocators keep some."""


@pytest.fixture(scope="module")
def client(run):
    with serving(service_of(run, max_batch=8)) as client:
        yield client


def resident(process=None):
    return (process or psutil.Process()).memory_info().rss


def mutated(data, rng):
    """Return a file with bytes changed, left out, repeated or cut off."""
    data = bytearray(data)
    for _ in range(rng.randint(1, 2)):
        at = rng.randrange(len(data))
        match rng.choice((0, 0, 0, 1, 2, 3)):
            case 0:
                data[at] = rng.randrange(256)
            case 1:
                del data[at : at + rng.randint(1, 40)]
            case 2:
                data[at:at] = data[rng.randrange(len(data)) :][: rng.randint(1, 200)]
            case 3:
                del data[max(20, at) :]
    return bytes(data)


def test_mutated_uploads_give_predictions_or_refusals(client, battery, figure):
    rng = random.Random(0)
    seeds = [encoded(seed, (40, 60), kind) for seed in range(4) for kind in ("JPEG", "PNG")]
    count = 5000 if battery else 80
    uploads = [mutated(seeds[number % len(seeds)], rng) for number in range(count)]
    send = lambda data: client.post("/v1/predict", content=data).status_code  # noqa: E731
    with ThreadPoolExecutor(8) as threads:
        early = list(threads.map(send, uploads[: count // 5]))
        before = resident()
        statuses = early + list(threads.map(send, uploads[count // 5 :]))
    assert set(statuses) <= {200, 422}
    assert statuses.count(422) > count // 10
    assert not battery or resident() - before < GROWTH
    assert client.get("/readyz").status_code == 200
    figure(23, "upload fuzz", f"{count:,} mutated files: {statuses.count(200):,} predicted, the others refused")


DISGUISED = {
    "EPS": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n/x { (id) run } def\n",
    "SVG": b'<?xml version="1.0"?><svg xmlns="http://www.w3.org/2000/svg"><image href="file:///etc/passwd"/></svg>',
    "PDF": b"%PDF-1.7\n1 0 obj\n<</OpenAction<</S/JavaScript>>>>\nendobj\n",
    "HTML": b"<script>1</script>",
    "ZIP": b"PK\3\4" + b"\0" * 60,
    "XPM": b"/* XPM */ static char *x[] = {",
    "WMF": b"\xd7\xcd\xc6\x9a" + b"\0" * 40,
}


@pytest.mark.parametrize("kind", DISGUISED)
def test_what_only_claims_to_be_an_image_is_refused(client, kind):
    for headers in ({"Content-Type": "image/jpeg"}, {"Content-Type": "image/png"}):
        assert client.post("/v1/predict", content=DISGUISED[kind], headers=headers).status_code == 422


def png(width, height, data=b"", chunks=()):
    def chunk(kind, body):
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + head + b"".join(itertools.starmap(chunk, chunks)) + chunk(b"IDAT", data)


def zeros(size):
    return zlib.compress(bytes(size), 9)


BOMBS = {
    "dimensions": lambda: (png(50_000, 50_000), 422),
    "pixels": lambda: (png(8000, 8000, zeros(2**22)), 422),
    "elongated": lambda: (png(1, 60, zeros(240)), 422),
    "text": lambda: (png(40, 40, zeros(4840), [(b"zTXt", b"a\0\0" + zeros(20 * 2**20))]), 422),
    "profile": lambda: (png(40, 40, zeros(4840), [(b"iCCP", b"a\0\0" + zeros(20 * 2**20))]), 422),
    "a byte over the limit": lambda: (b"\xff" * (LIMIT + 1), 413),
}


@pytest.fixture(scope="module")
def taken(battery, figure):
    """Collect the seconds in which each kind of bomb was refused; what other tests do beside it counts in the suite."""
    seconds = {}
    yield seconds
    if battery and seconds:
        longest = 1000 * max(seconds.values())
        figure(24, "bombs", f"{len(seconds)} kinds, refused within {longest:.0f} ms (the faster of two answers)")


@pytest.mark.parametrize("kind", BOMBS)
def test_bombs_are_refused_at_once(apart, taken, kind, battery):
    (server, asked), (body, status) = apart, BOMBS[kind]()
    before = resident(server)
    taken[kind] = quickest(lambda: asked.post("/v1/predict", content=body), status, battery)
    if battery:
        assert taken[kind] < SECONDS
        assert resident(server) - before < GROWTH


def quickest(send, status, battery):
    """Return the seconds of an answer, in the battery of the faster one of two."""
    seconds = []
    for _ in range(2 if battery else 1):
        began = time.monotonic()
        assert send().status_code == status
        seconds.append(time.monotonic() - began)
    return min(seconds)


def test_bombs_in_other_bodies_are_refused_at_once(asked, taken, battery):
    infer = "/v2/models/tiny/infer"
    wide = b'{"inputs":[' + b",".join([b"[]"] * (LIMIT // 4)) + b"]}"
    parts = b'--b\r\nContent-Disposition: form-data; name="a"; filename="a"\r\n\r\nx\r\n' * 10_000
    headers = b"--b\r\n" + b"A: b\r\n" * (LIMIT // 7) + b"\r\n\r\n--b--\r\n"
    boundaries = parts[:61] + b"\r\n--bX" * (LIMIT // 7) + b"\r\n--b--\r\n"
    long_id = b'{"id":"' + "\u202e".encode() * (LIMIT // 4) + b'","inputs":[]}'
    sent = {
        "deep JSON": (lambda: asked.post(infer, content=b"[" * LIMIT), 400),
        "deep objects": (lambda: asked.post(infer, content=b'{"inputs":' * (LIMIT // 10)), 400),
        "deep JSON in little": (lambda: asked.post(infer, content=b"[" * 9_999), 400),
        "wide JSON": (lambda: asked.post(infer, content=wide), 400),
        "digits": (lambda: asked.post(infer, content=b'{"id":' + b"1" * 100_000 + b"}"), 400),
        "chunks": (lambda: asked.post("/v1/predict", content=iter([b"x" * LIMIT, b"x"])), 413),
        "parts": (lambda: asked.post("/v1/predict", content=parts, headers=MULTIPART), 413),
        "long id": (lambda: asked.post(infer, content=long_id), 400),
        "boundaries": (lambda: asked.post("/v1/predict", content=boundaries, headers=MULTIPART), 413),
        "headers of parts": (lambda: asked.post("/v1/predict", content=headers, headers=MULTIPART), 400),
    }
    seconds = {kind: quickest(send, status, battery) for kind, (send, status) in sent.items()}
    taken |= seconds
    if battery:
        assert {kind: needed for kind, needed in seconds.items() if needed >= SECONDS} == {}


MULTIPART = {"Content-Type": "multipart/form-data; boundary=b"}


@pytest.mark.battery
def test_others_are_answered_while_a_large_body_is_parsed(asked):
    parts = b'--b\r\nContent-Disposition: form-data; name="a"; filename="a"\r\n\r\n'
    parts += b"\r" * (LIMIT - 200) + b"\r\n--b--\r\n"  # each of which may begin the boundary
    text = b'{"inputs":[{"name":"images","shape":[1],"datatype":"BYTES","data":["' + b"A" * (LIMIT - 200) + b'"]}]}'
    for send in (
        lambda: asked.post("/v1/predict", content=parts, headers=MULTIPART),
        lambda: asked.post("/v2/models/tiny/infer", content=text),
    ):
        assert min(longest_wait(asked, send) for _ in range(2)) < SECONDS


def longest_wait(client, send):
    """Return the longest seconds that /healthz took while a request was answered with 422."""
    longest = 0.0
    with ThreadPoolExecutor(1) as threads:
        answer = threads.submit(send)
        while not answer.done():
            began = time.monotonic()
            assert client.get("/healthz").status_code == 200
            longest = max(longest, time.monotonic() - began)
        assert answer.result().status_code == 422
    return longest


def test_one_bad_image_in_eight_spoils_no_other(client, battery, figure):
    rng, rounds = random.Random(1), 200 if battery else 4
    good = [encoded(seed, (40, 40 + seed % 3)) for seed in range(8)]
    alone = [client.post("/v1/predict", content=image).json() for image in good]
    bad = [b"", b"bad", good[0][:200], png(9, 9, b"no deflate"), png(50_000, 50_000), DISGUISED["EPS"]]
    for number in range(rounds):
        place = rng.randrange(8)
        images = [bad[number % len(bad)] if at == place else image for at, image in enumerate(good)]
        found = client.post("/v1/predict", files=files(*images)).json()["predictions"]
        assert [bool(one["error"]) for one in found] == [at == place for at in range(8)]
        for at, (one, expected) in enumerate(zip(found, alone, strict=True)):
            if at != place:
                assert one["classes"] == expected["classes"]
                np.testing.assert_allclose(one["probabilities"], expected["probabilities"], atol=1e-6)
    figure(25, "isolation", f"1 bad image in 8, {rounds} rounds: only it fails, the others as if alone")


def test_rude_clients_leave_nothing(run, battery, figure, caplog):
    count = 3000 if battery else 60
    with serving(service_of(run)) as client:
        for number in range(count // 5):
            rude(client.base_url.port, number)
        before = resident()
        for number in range(count):
            rude(client.base_url.port, number)
        state = client.server.server_state
        wait_until(lambda: not state.tasks and not state.connections)
        assert not battery or resident() - before < GROWTH
        for what in ("queue_images", "bodies_bytes"):
            wait_until(lambda left=f"verydeep_{what} 0.0": left in client.get("/metrics").text)
        assert client.post("/v1/predict", content=encoded()).status_code == 200
    assert not [record for record in caplog.records if record.name == "asyncio"]
    figure(24, "rude clients", f"{count:,} that leave at any point: no task, connection or byte is left of them")


def rude(port, number):
    """Leave before, in or after a request, some by a reset."""
    image = encoded(number % 5, (40, 50))
    request = b"POST /v1/predict HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % len(image) + image
    ends = (0, 20, 80, len(request) // 2, len(request))
    with socket.create_connection(("127.0.0.1", port)) as connection:
        connection.sendall(request[: ends[number % len(ends)]])
        if number % 2:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


ENDINGS = {"onnx": "onnx", "torch": "pt2", "openvino": "xml", **({"ncnn": "ncnn.param"} if find_spec("ncnn") else {})}


@pytest.fixture(scope="module")
def apart(run, client, battery):
    """A service's process and a client; in the battery a process of its own, which times nothing but the service."""
    if not battery:
        yield psutil.Process(), client
        return
    with started(run) as service:
        yield service


@pytest.fixture
def asked(apart):
    return apart[1]


@pytest.fixture(params=["run", *ENDINGS])
def process(run, model, tmp_path, request):
    """A service in a process of its own, as the verb starts it, of a run or of an exported file, and a client."""
    served = run if request.param == "run" else tmp_path / f"model.{ENDINGS[request.param]}"
    if served is not run:
        write_exported(model, served, to=request.param)
    with started(served) as (server, client):
        yield server, client


@contextmanager
def started(served):
    """Start a service in a process of its own, as the verb does; yield it and a client; it has to end with status 0."""
    command = [sys.executable, "-m", "verydeep", "serve", str(served), "--name", "tiny", "--port", "0", "--grace", "0"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as service:
        address = next(found[0] for line in service.stderr if (found := re.search(r"http://\S+", line)))
        with httpx.Client(base_url=address, timeout=60) as client:
            wait_until(lambda: client.get("/readyz").status_code == 200)
            yield psutil.Process(service.pid), client
        service.terminate()
        assert service.wait(60) == 0


@pytest.mark.battery
def test_memory_is_flat_over_500_sizes(process, figure, request):
    server, client = process
    sizes = range(40, 540)
    assert {sent(client, encoded(side, (40, side))) for side in (*sizes[::10], sizes[-1])} == {200}
    before = server.memory_info().rss
    assert {sent(client, encoded(side, (40, side))) for side in sizes} == {200}
    grown = server.memory_info().rss - before
    kind = request.node.callspec.params["process"]
    figure(23, f"sizes, {kind}", f"{len(sizes)} sizes of images: memory grew by {grown / 2**20:.0f} MiB")
    assert grown < GROWTH


@pytest.mark.battery
@pytest.mark.parametrize("process", ["run"], indirect=True)
def test_soak(process, figure):
    (server, client), seconds = process, 60 * SOAK_MINUTES
    images, began = [photograph(seed) for seed in range(60)], time.monotonic()
    with ThreadPoolExecutor(8) as threads:
        assert set(threads.map(lambda image: sent(client, image), images * 10)) == {200}
    pause = (time.monotonic() - began) / (10 * len(images)) / 0.8
    statuses, memory = paced(client, images, pause, seconds, server)
    assert Counter(statuses) == {200: len(statuses)}
    grown = max(memory) - max(memory[: len(memory) // 4])
    about = f"{seconds / 60:g} minutes at 0.8 of capacity: {len(statuses):,} requests, none failed"
    figure(26, "soak", f"{about}, memory grew by {grown / 2**20:.0f} MiB")
    assert grown < GROWTH


def test_a_soak_counts_requests_that_have_no_answer():
    answers = itertools.cycle([httpx.Response(200), httpx.ReadTimeout("late"), httpx.ConnectError("closed")])

    def post(*_, **__):
        answer = next(answers)
        if isinstance(answer, Exception):
            raise answer
        return answer

    statuses, _ = paced(SimpleNamespace(post=post), [b"image"], 0.001, 0.0295, psutil.Process())
    assert Counter(statuses) == {200: 10, "ReadTimeout": 10, "ConnectError": 10}


def photograph(seed):
    rng = random.Random(seed)
    size = rng.randint(30, 300), rng.randint(30, 300)
    return encoded(seed, size, rng.choice(("JPEG", "PNG")))


def sent(client, image):
    return client.post("/v1/predict", content=image).status_code


def paced(client, images, pause, seconds, server):
    """Send an image every so often, whether or not the last ones are answered.

    Return the status of every image, or the name of the error that it ended in, and the memory over time.
    """
    statuses, memory = [], []

    def send(number, image):
        try:
            statuses[number] = sent(client, image)
        except Exception as error:
            statuses[number] = type(error).__name__

    began = time.monotonic()
    with ThreadPoolExecutor(AT_ONCE) as threads:
        for number, image in enumerate(itertools.cycle(images)):
            due = began + number * pause
            if due > began + seconds:
                break
            time.sleep(max(0, due - time.monotonic()))
            statuses.append(None)
            threads.submit(send, number, image)
            if number % 100 == 0:
                memory.append(server.memory_info().rss)
    return statuses, memory
