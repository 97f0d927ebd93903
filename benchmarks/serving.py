"""`verydeep serve` against LitServe, with the same exported file, the same JPEGs and the same threads: prints JSON.

Each serves in a process of its own, with its defaults and OMP_NUM_THREADS of this process: verydeep puts images of one
size into a batch where it has measured that this gains, as `predict` does, and LitServe computes one at a time, by
verydeep's functions. A client in this process sends the same JPEGs to both, as forms, in turn, round by round; figures
are medians over the rounds.

- in process: `predict` on the same JPEGs. `ratio` is a server's images per second (closed, 8 clients) over its.
- closed: so many clients, each of which sends its next image when it has its answer.
- bad: 8 clients that send one damaged image in 8; `wrong` counts good ones that failed and bad ones that did not.
- open: images are sent at a share of the smaller capacity (closed, 8 clients), at moments of a Poisson process; times
  are counted from the intended moment, so a server that is late pays for all who wait; images per second until the
  last answer. `refused` counts 503.
- cpu: milliseconds of the processor for each image, in all of a server's processes, or in `predict`; other work on the
  machine disturbs them less than times.
- memory: the most MiB that all of a server's processes had together, looked at every half second; a page that several
  of them share counts once (PSS).

Times are in milliseconds. LitServe is skipped if it cannot be imported by the Python that --litserve-python names.

    python benchmarks/serving.py [FILE.onnx] [--images FOLDER] [--seconds 10] [--rounds 3] [--litserve-python PYTHON]

Without FILE a network with random weights is exported (--network, --crop, --width); without --images JPEGs of 500 x 375
pixels of coloured grain are made.
"""

import argparse
import asyncio
import io
import json
import math
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from http_load import PATIENCE, Outcome, asked_once, closed_loop, form, open_loop
from PIL import Image
from server_processes import memory_watched, processes_below, processor_seconds
from starlette.requests import Request

from verydeep.exported_networks.exported import write_exported
from verydeep.exported_networks.run_or_file import model_on
from verydeep.images.decode import UnusableImageError
from verydeep.images.sources.walk import is_image_file
from verydeep.networks.initialisation import vgg
from verydeep.prediction.predict import predict
from verydeep.runs.model import Model
from verydeep.serving.answers import as_json
from verydeep.serving.options import Limits
from verydeep.serving.prepared_images import PreparedImage, prepared
from verydeep.serving.served_model import Wanted, served_model

try:
    from fastapi import HTTPException  # the only kind that LitServe passes on
    from litserve import LitAPI
except ImportError:  # measured without it
    HTTPException, LitAPI = ValueError, object

MADE_IMAGES, MADE_SIZE = 32, (375, 500)
CLIENTS = (1, 8, 32)
CAPACITY_CLIENTS = 8
SHARES = (0.5, 0.8, 1.2)
ONE_BAD_IN = 8


@dataclass(frozen=True, kw_only=True)
class Server:
    """A server that runs."""

    port: int
    pid: int
    request: Callable[[bytes], bytes]
    """Makes a whole HTTP request of an image."""


# what is served


def made_images() -> list[bytes]:
    """Return JPEGs of coloured grain."""
    rng = np.random.default_rng(0)
    images = []
    for _ in range(MADE_IMAGES):
        coarse = rng.integers(0, 256, (24, 32, 3), dtype=np.uint8)
        buffer = io.BytesIO()
        Image.fromarray(coarse).resize(MADE_SIZE[::-1], Image.Resampling.BICUBIC).save(buffer, "JPEG", quality=90)
        images.append(buffer.getvalue())
    return images


def exported_network(folder: Path, args: argparse.Namespace) -> Path:
    """Export a network with random weights."""
    torch.manual_seed(0)
    net = vgg(args.network, classes=10, crop=args.crop, width=args.width).eval()
    model = Model(net=net, classes=tuple(f"class {label}" for label in range(10)), scale="256", flip=True)
    file = folder / "network.onnx"
    write_exported(model, file, to="onnx")
    return file


class Api(LitAPI):  # type: ignore[misc, valid-type]
    """The served file for LitServe, by verydeep's functions; at the module's level, since it is sent to a worker."""

    def __init__(self, file: Path) -> None:
        super().__init__()
        self.file = file

    def setup(self, device: str) -> None:
        """Load the file, in the worker."""
        self.model = served_model(self.file)

    def decode_request(self, request: Request) -> PreparedImage:
        """Decode the image of a form, which LitServe reads where a `Request` is asked for."""
        try:
            image: Any = request["image"]
            return prepared(image.file.read(), self.model.sides, Limits())
        except UnusableImageError as refusal:
            raise HTTPException(422, str(refusal)) from None

    def predict(self, image: PreparedImage) -> Any:
        """Predict one image."""
        return self.model.predict([image], [Wanted("image 0", 5)])[0]

    def encode_response(self, prediction: Any) -> Any:
        """Return it as the service does."""
        return as_json(prediction, self.model.numbers)


def serve_by_litserve(file: Path, port: int) -> None:
    """Serve until killed; runs in a process of its own."""
    from litserve import LitServer

    server = LitServer(Api(file), accelerator="cpu", timeout=PATIENCE)
    server.run(host="127.0.0.1", port=port, generate_client_file=False, log_level="error", pretty_logs=False)


# servers


def free_port() -> int:
    """Return a port that nobody listens on now."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


@contextmanager
def verydeep_server(file: Path) -> Iterator[Server]:
    """Start `verydeep serve`."""
    port = free_port()
    command = [sys.executable, "-m", "verydeep", "serve", str(file), "--port", str(port)]
    with started([*command, "--grace", "0"], port, "/readyz") as process:
        yield Server(port=port, pid=process.pid, request=partial(form, "/v1/predict"))


@contextmanager
def litserve_server(file: Path, python: str) -> Iterator[Server]:
    """Start LitServe."""
    port = free_port()
    command = [python, __file__, str(file), "--serve-by-litserve", str(port)]
    with started(command, port, "/health") as process:
        yield Server(port=port, pid=process.pid, request=partial(form, "/predict"))


@contextmanager
def started(command: Sequence[str], port: int, ready: str) -> Iterator["subprocess.Popen[bytes]"]:
    """Start a server in a session of its own, wait until it is ready, and end all of its processes after the block."""
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True)
    try:
        end = time.monotonic() + 120
        question = f"GET {ready} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode()
        while asyncio.run(asked_once(port, question)) != 200:
            if process.poll() is not None or time.monotonic() > end:
                raise SystemExit(f"not ready: {' '.join(command)}")
            time.sleep(0.1)
        yield process
    finally:
        for pid in reversed(processes_below(process.pid)):
            try:
                os.kill(pid, 9)
            except ProcessLookupError:
                continue
        process.wait()


# measurements


def figures(outcome: Outcome) -> dict[str, float]:
    """Return what is printed of an outcome."""
    times = sorted(1000 * one for one in outcome.seconds) or [math.nan]
    return {
        "images_per_second": len(outcome.seconds) / outcome.duration,
        "p50": times[len(times) // 2],
        "p99": times[min(len(times) - 1, math.ceil(0.99 * len(times)) - 1)],
        "refused": outcome.refused,
        "wrong": outcome.wrong,
    }


def in_process(file: Path, images: Sequence[bytes], seconds: float) -> dict[str, float]:
    """Return the figures of `predict`, which gets images a few at a time as from a folder."""
    model = model_on("cpu", file)
    list(predict(model, images[:4]))
    began, computed, done = time.monotonic(), time.process_time(), 0
    while time.monotonic() - began < seconds:
        done += sum(prediction.error is None for prediction in predict(model, images))
    cpu = 1000 * (time.process_time() - computed) / done
    return {"images_per_second": done / (time.monotonic() - began), "cpu": cpu}


def measure(server: Server, images: Sequence[bytes], seconds: float, rate: float | None) -> dict[str, Any]:
    """Return the figures of one server in one round; open loops at shares of `rate`, if that is known."""
    good = [(server.request(image), False) for image in images]
    mixed = [(server.request(image[: len(image) // 3]), True) for image in images]
    mixed = [mixed[at] if at % ONE_BAD_IN == 0 else good[at] for at in range(len(images) // ONE_BAD_IN * ONE_BAD_IN)]
    found: dict[str, Any] = {}
    if rate is None:
        for clients in CLIENTS:
            before = processor_seconds(server.pid)
            outcome = asyncio.run(closed_loop(server.port, good, clients, seconds))
            cpu = 1000 * (processor_seconds(server.pid) - before) / max(1, outcome.answers)
            found[f"closed {clients}"] = figures(outcome) | {"cpu": cpu}
        found["bad"] = figures(asyncio.run(closed_loop(server.port, mixed, CAPACITY_CLIENTS, seconds)))
    else:
        for share in SHARES:
            outcome = asyncio.run(open_loop(server.port, good, share * rate, seconds))
            found[f"open {share}"] = figures(outcome)
    return found


def medians(rounds: Sequence[dict[str, dict[str, float]]]) -> dict[str, dict[str, float]]:
    """Return the median of each figure over the rounds; of `wrong` the sum."""
    return {
        name: {
            figure: round(
                (sum if figure == "wrong" else statistics.median)(one[name][figure] for one in rounds),
                1,
            )
            for figure in rounds[0][name]
        }
        for name in rounds[0]
    }


def compare(file: Path, images: Sequence[bytes], args: argparse.Namespace, python: str | None) -> dict[str, Any]:
    """Measure `predict`, and both servers in turn."""
    alone: list[dict[str, dict[str, float]]] = []
    starts: dict[str, Callable[[], Any]] = {"verydeep": lambda: verydeep_server(file)}
    if python is not None:
        starts["litserve"] = lambda: litserve_server(file, python)
    rounds: dict[str, list[dict[str, dict[str, float]]]] = {name: [] for name in starts}
    memory = dict.fromkeys(starts, 0.0)
    for number in range(args.rounds):
        alone.append({"in process": in_process(file, images, args.seconds)})
        order = list(starts)[:: 1 if number % 2 else -1]
        found: dict[str, dict[str, Any]] = {name: {} for name in starts}
        rate: float | None = None
        for _ in ("closed", "open"):
            for name in order:
                with starts[name]() as server, memory_watched(server.pid) as seen:
                    found[name] |= measure(server, images, args.seconds, rate)
                memory[name] = max(memory[name], *seen)
            rate = min(each[f"closed {CAPACITY_CLIENTS}"]["images_per_second"] for each in found.values())
        for name, each in found.items():
            rounds[name].append(each)
    result: dict[str, Any] = medians(alone)
    usual = result["in process"]["images_per_second"]
    for name in starts:
        result[name] = medians(rounds[name]) | {"memory": round(memory[name])}
        capacity = result[name][f"closed {CAPACITY_CLIENTS}"]["images_per_second"]
        result[name]["ratio"] = round(capacity / usual, 2)
    return result


def python_with_litserve(python: str) -> str | None:
    """Return a Python that can import LitServe, if this one can."""
    done = subprocess.run([python, "-c", "import litserve, verydeep"], capture_output=True)
    return None if done.returncode else python


def main() -> None:
    """Measure what the options say, and print it."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("file", type=Path, nargs="?")
    parser.add_argument("--images", type=Path)
    parser.add_argument("--seconds", type=float, default=10)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--network", default="A")
    parser.add_argument("--crop", type=int, default=64)
    parser.add_argument("--width", type=float, default=0.5)
    parser.add_argument("--litserve-python", default=sys.executable)
    parser.add_argument("--serve-by-litserve", type=int, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.serve_by_litserve:
        serve_by_litserve(args.file, args.serve_by_litserve)
        return
    python = python_with_litserve(args.litserve_python)
    images = made_images()
    if args.images is not None:
        images = [path.read_bytes() for path in sorted(args.images.rglob("*")) if is_image_file(path)][:MADE_IMAGES]
    with tempfile.TemporaryDirectory() as folder:
        file = args.file or exported_network(Path(folder), args)
        result = compare(file, images, args, python)
    about = {"file": str(args.file or f"{args.network}, crop {args.crop}, width {args.width}"), "rounds": args.rounds}
    about |= {"threads": torch.get_num_threads(), "seconds": args.seconds, "cores": os.cpu_count()}
    if python is None:
        about["skipped"] = f"LitServe: {args.litserve_python} cannot import litserve"
    print(json.dumps(about | result, indent=2))


if __name__ == "__main__":
    main()
