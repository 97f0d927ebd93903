"""A request for every path of the service as a line of curl, and its answer, as Markdown."""

import base64
import io
import json
import re
import time
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from PIL import Image
from starlette.testclient import TestClient

from verydeep import save, vgg
from verydeep.serving.app import application
from verydeep.serving.options import Access, Limits
from verydeep.serving.served_model import served_model
from verydeep.serving.service import Service

ADDRESS = "http://127.0.0.1:8000"

NAME = "pets"

PICTURE = "picture.jpg"

_MODEL = f"/v2/models/{NAME}"

_TENSORS = '{"inputs": [{"name": "images", "shape": [1], "datatype": "BYTES", "data": ["%s"]}]}'

_MOST_ITEMS = 3
"""How many items of a list are shown."""

_DEEPEST = 3
"""How many levels of objects are shown of a description."""

_PATIENCE = 60
"""Seconds in which the service has to be ready."""

_WIDTH = 110
"""Characters of a line of JSON."""


class Request(NamedTuple):
    """What one example asks."""

    path: str
    body: Literal["nothing", "picture", "form", "tensors", "text"] = "nothing"

    def line(self) -> str:
        """Return the request as a line for a shell, in a folder that has the picture."""
        url = f"'{ADDRESS}{self.path}'" if "?" in self.path else f"{ADDRESS}{self.path}"
        base64_of_picture = f"\"$(base64 < {PICTURE} | tr -d '\\n')\""
        return {
            "nothing": f"curl {url}",
            "picture": f"curl --data-binary @{PICTURE} {url}",
            "form": f"curl -F image=@{PICTURE} {url}",
            "tensors": f"printf '{_TENSORS}' {base64_of_picture} | curl -d @- {url}",
            "text": f"curl -d 'no picture' {url}",
        }[self.body]

    def options(self, picture: bytes) -> dict[str, Any]:
        """Return the request for a client in Python: arguments of a POST, or nothing for a GET."""
        tensors = _TENSORS % base64.b64encode(picture).decode()
        return {
            "nothing": {},
            "picture": {"content": picture},
            "form": {"files": [("image", (PICTURE, picture, "image/jpeg"))]},
            "tensors": {"content": tensors.encode()},
            "text": {"content": b"no picture"},
        }[self.body]


REQUESTS = (
    Request("/"),
    Request("/", "form"),
    Request("/v1/predict?top=2&maps=1", "picture"),
    Request("/v1/predict", "form"),
    Request("/v1/predict", "text"),
    Request("/v1/model"),
    Request("/healthz"),
    Request("/readyz"),
    Request("/metrics"),
    Request("/openapi.json"),
    Request("/v2"),
    Request("/v2/health/live"),
    Request("/v2/health/ready"),
    *(Request(f"{_MODEL}{rest}") for rest in ("", "/ready", "/versions/1", "/versions/1/ready")),
    *(Request(f"{_MODEL}{rest}", "tensors") for rest in ("/infer", "/versions/1/infer")),
)


def examples() -> str:
    """Return a section for every request, with its answer."""
    return "\n".join(
        f"```sh\n{request.line()}\n```\n\n```{kind}\n{answer}\n```\n" for request, kind, answer in answered()
    )


def answered() -> Iterator[tuple[Request, str, str]]:
    """Yield each request, the kind of its answer and as much of the answer as is shown.

    Raises:
        TimeoutError: the service does not get ready.
    """
    with TemporaryDirectory() as folder, TestClient(application(example_service(Path(folder))), ADDRESS) as client:
        end = time.monotonic() + _PATIENCE
        while client.get("/readyz").status_code != 200:
            if time.monotonic() > end:
                raise TimeoutError(f"the example's service was not ready within {_PATIENCE} s")
            time.sleep(0.01)
        for request in REQUESTS:
            options = request.options(picture())
            found = client.post(request.path, **options) if options else client.get(request.path)
            yield request, *shown(found.headers["content-type"], found.text)


def example_service(folder: Path, name: str = NAME) -> Service:
    """Return a service of a random network, which is saved in the folder."""
    torch.manual_seed(0)
    save(vgg("A", classes=2, crop=32, width=0.02), folder, classes=["cat", "dog"])
    return Service(served_model(folder), name, Limits(max_batch=1), Access())


def picture() -> bytes:
    """Return a small picture as a file."""
    pixels = np.random.default_rng(0).integers(0, 256, (48, 120, 3)).astype(np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG")
    return buffer.getvalue()


def shown(content_type: str, text: str) -> tuple[str, str]:
    """Return the kind of an answer, as a highlighter of code names it, and the beginning of its parts."""
    if content_type == "application/json":
        value = json.loads(text)
        return "json", _in_lines(_deep(value) if "openapi" in value else _short(value))
    if content_type.startswith("text/html"):
        title = re.search("<title>.*</title>", text)
        return "html", f"{text.splitlines()[0]}\n...\n{title[0] if title else ''}\n..."
    lines = [line for line in text.splitlines() if line.startswith(("verydeep_images_total", "verydeep_queue"))]
    return "text", "\n".join([*lines, "..."])


def _short(value: Any) -> Any:
    """Return a value with the first items of its lists."""
    if isinstance(value, dict):
        return {name: _short(one) for name, one in value.items()}
    if isinstance(value, list):
        more = ["..."] if len(value) > _MOST_ITEMS else []
        return [_short(one) for one in value[:_MOST_ITEMS]] + more
    return value


def _deep(value: Any, depth: int = _DEEPEST) -> Any:
    """Return a description's outermost objects."""
    if isinstance(value, dict):
        return {name: _deep(one, depth - 1) for name, one in value.items()} if depth else "..."
    return value


def _in_lines(value: Any, indent: str = "") -> str:
    """Return a value as JSON, on one line where it fits."""
    text = json.dumps(value)
    if len(indent + text) <= _WIDTH or not isinstance(value, dict | list):
        return text
    deeper = indent + "  "
    if isinstance(value, dict):
        parts = [f"{json.dumps(name)}: {_in_lines(one, deeper)}" for name, one in value.items()]
    else:
        parts = [_in_lines(one, deeper) for one in value]
    begin, end = "{}" if isinstance(value, dict) else "[]"
    return f"{begin}\n{deeper}" + f",\n{deeper}".join(parts) + f"\n{indent}{end}"
