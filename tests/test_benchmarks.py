"""Benchmarks work: cheap ones run on two small images, and what the one of servers sends and counts is right."""

import asyncio
import json
import math
import os
import runpy
import sys
import time
from contextlib import closing, contextmanager, suppress
from functools import partial
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image
from served import encoded, service_of, serving

ROOT = Path(__file__).parents[1]
LATE = 0.3
"""Seconds after which the server below answers."""


@pytest.fixture(autouse=True)
def _as_from_their_folder(monkeypatch):
    """Let them import each other, and leave neither that behind nor what they ask of the processor."""
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    monkeypatch.setattr(os, "sched_setaffinity", lambda *_: None, raising=False)
    threads, before = torch.get_num_threads(), set(sys.modules)
    yield
    torch.set_num_threads(threads)
    for name in set(sys.modules) - before:
        if str(getattr(sys.modules[name], "__file__", "")).startswith(str(ROOT / "benchmarks")):
            del sys.modules[name]


@pytest.fixture
def photographs(tmp_path):
    rng = np.random.default_rng(0)
    for name in ("1.jpg", "2.jpg"):
        Image.fromarray(rng.integers(0, 256, (40, 50, 3), np.uint8)).save(tmp_path / name)
    return str(tmp_path)


@pytest.fixture
def labelled(photographs):
    """The same images as two classes, in the folder that is named, to train and to test on."""
    for part in ("train", "val"):
        for image in (Path(photographs) / "1.jpg", Path(photographs) / "2.jpg"):
            (folder := Path(photographs) / part / image.stem).mkdir(parents=True)
            (folder / image.name).write_bytes(image.read_bytes())
    return photographs


@pytest.mark.skipif(not hasattr(os, "sched_getaffinity"), reason="asks which cores the process may use")
@pytest.mark.parametrize(("more", "tested"), [("", True), ("--trial", False)])
def test_torchvisions_recipe_trains_and_tests_once_unless_it_is_a_trial(more, tested, labelled, monkeypatch, capsys):
    options = f"{labelled} --crop 32 --width 0.02 --minutes 0.02 {more}".split()
    monkeypatch.setattr(sys, "argv", ["torchvision_recipe.py", *options])
    runpy.run_path(str(ROOT / "benchmarks" / "torchvision_recipe.py"), run_name="__main__")
    said = json.loads(capsys.readouterr().out)
    assert said["used"] >= (import_module("plain_training").PATIENCE if tested else 1)
    assert said["steps"] >= len(said["losses"]) >= 1  # a step of both images is an epoch
    assert (said.get("n"), said.get("top5_error")) == ((2, 0) if tested else (None, None))


@pytest.mark.parametrize(
    ("loss", "passed", "ends"),
    [
        (math.log(10), 0.5, True),
        (1.005 * math.log(10), 0.9, True),
        (math.log(10), 0.49, False),
        (2.2, 0.9, False),
        (3.7, 0.9, False),
        (math.nan, 0.5, True),
        (math.inf, 0.4, False),
        (math.inf, 0.6, True),
    ],
)
def test_a_training_of_others_is_in_vain_if_it_is_at_chance_after_half_of_its_time(loss, passed, ends):
    assert import_module("plain_training").in_vain(loss, passed=passed, classes=10) == ends


@pytest.mark.parametrize(
    ("line", "found"),
    [
        ("convolutions.py --batch 1 --rounds 1", lambda said: min(one["ratio"] for one in said["shapes"]) > 0),
        ("evaluation.py PHOTOGRAPHS --network A --crop 32 --passes 1", lambda said: said["photographs"]["images"] == 2),
        ("loading.py PHOTOGRAPHS 2", lambda said: {one["images"] for one in said["difference"].values()} == {2}),
        (
            "training.py --network A --crop 32 --width 0.05 --batch 2 --passes 1",
            lambda said: set(said["steps"]) >= {"plain", "ours"},
        ),
    ],
)
def test_the_cheap_ones_run(line, found, photographs, monkeypatch, capsys):
    name, *options = line.replace("PHOTOGRAPHS", photographs).split()
    monkeypatch.setattr(sys, "argv", [name, *options])
    runpy.run_path(str(ROOT / "benchmarks" / name), run_name="__main__")
    assert found(json.loads(capsys.readouterr().out))


async def sent_to_a_late_server(http_load, *, rate, seconds):
    """Return the outcome of an open loop with a server that answers each request a while later."""

    async def answer(reader, writer):
        with closing(writer), suppress(asyncio.IncompleteReadError):
            while await reader.readuntil(b"\r\n\r\n"):
                await asyncio.sleep(LATE)
                writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    outcome = await http_load.open_loop(port, [(b"GET / HTTP/1.1\r\n\r\n", False)], rate, seconds)
    server.close()
    return outcome


def test_images_per_second_count_the_time_of_the_answers_that_came_when_all_was_sent():
    began = time.monotonic()
    outcome = asyncio.run(sent_to_a_late_server(import_module("http_load"), rate=200, seconds=0.1))
    whole = time.monotonic() - began
    found = import_module("serving").figures(outcome)["images_per_second"]
    assert len(outcome.seconds) > 5
    assert len(outcome.seconds) / whole <= found <= len(outcome.seconds) / LATE


@contextmanager
def no_process(*_):
    yield SimpleNamespace(pid=0)


def test_both_servers_are_sent_the_same(run, monkeypatch):
    serving_benchmark, image = import_module("serving"), encoded(kind="JPEG")
    monkeypatch.setattr(serving_benchmark, "started", no_process)
    with (
        serving_benchmark.verydeep_server(Path("a.onnx")) as ours,
        serving_benchmark.litserve_server(Path("a.onnx"), "python") as theirs,
    ):
        requests = {server.request(image).split(b"\r\n", 1)[1] for server in (ours, theirs)}
        assert len(requests) == 1
        with serving(service_of(run)) as client:
            asked = partial(import_module("http_load").asked_once, client.base_url.port)
            assert asyncio.run(asked(ours.request(image))) == 200
            assert asyncio.run(asked(ours.request(image[: len(image) // 3]))) == 422
