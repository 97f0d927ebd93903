"""A service in a thread of this process, and images to send it."""

import asyncio
import io
import threading
import time
from contextlib import contextmanager

import httpx
import numpy as np
from PIL import Image

from verydeep.serving.options import Access, Limits, Listening
from verydeep.serving.served_model import served_model
from verydeep.serving.server import _server_for, bound_socket
from verydeep.serving.service import Service

KEY = "a-key-that-nobody-guesses"


def service_of(run, access=None, **limits):
    """Return a service, of a model or of what becomes one."""
    model = served_model(run) if not hasattr(run, "predict") else run
    return Service(model, "tiny", Limits(**limits), access or Access())


@contextmanager
def serving(service, *, ready=True):
    """Serve within the block, on a free port; yield a client."""
    server = _server_for(service)
    with bound_socket(Listening(port=0)) as socket:
        port = socket.getsockname()[1]
        thread = threading.Thread(target=lambda: asyncio.run(server.serve(sockets=[socket])))
        thread.start()
        try:
            with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=30) as client:
                wait_until(lambda: server.started and (service.queue.ready or not ready))
                client.server = server
                yield client
        finally:
            server.should_exit = True
            thread.join(30)


def wait_until(condition, seconds=20):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.005)


def encoded(seed=0, size=(40, 50), kind="PNG"):
    """Return an image file of noise of one colour."""
    rng = np.random.default_rng(seed)
    pixels = (rng.integers(0, 256, 3) + rng.integers(-60, 61, (*size, 3))).clip(0, 255).astype(np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, kind)
    return buffer.getvalue()


def files(*images):
    """Return images as httpx sends them as multipart."""
    return [("image", (f"{number}.png", image, "image/png")) for number, image in enumerate(images)]


def checked_error(answer, status, code=None):
    """Return the message of an error, whose form is checked."""
    assert answer.status_code == status, answer.text
    said = answer.json()
    assert set(said) == {"error", "code", "request_id"}
    assert said["request_id"] == answer.headers["x-request-id"]
    assert code in (None, said["code"])
    return said["error"]
