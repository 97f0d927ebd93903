"""The examples of the page on HTTP: every path has one, and its line of curl is answered as the page says."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import httpx
import pytest
from served import serving

from verydeep.serving.openapi import openapi

ROOT = Path(__file__).parents[2]
REQUEST_ID = re.compile(r'"request_id": "\w+"')


@pytest.fixture(scope="module")
def http_examples():
    sys.path.insert(0, str(ROOT / "docs"))
    yield __import__("http_examples")
    sys.path.remove(str(ROOT / "docs"))


@pytest.mark.battery
def test_every_path_is_answered_to_curl_as_the_page_says(http_examples, tmp_path):
    if shutil.which("curl") is None:
        pytest.skip("there is no curl")
    (tmp_path / http_examples.PICTURE).write_bytes(http_examples.picture())
    service = http_examples.example_service(tmp_path / "run")
    kinds, asked = {"json": "application/json", "html": "text/html", "text": "text/plain"}, set()
    with serving(service) as client:
        for request, kind, answer in http_examples.answered():
            line = request.line().replace(http_examples.ADDRESS, str(client.base_url).rstrip("/"))
            options = {"cwd": tmp_path, "capture_output": True, "text": True, "check": True}
            said = subprocess.run(["sh", "-c", f"{line} -sS"], **options).stdout
            asked.add(("post" if request.body != "nothing" else "get", request.path.partition("?")[0]))
            found = http_examples.shown(kinds[kind], said)
            assert found[0] == kind
            assert REQUEST_ID.sub("", found[1]) == REQUEST_ID.sub("", answer), line
    paths = {path.replace("{version}", "1"): ways for path, ways in openapi(service)["paths"].items()}
    assert asked == {(way, path) for path, ways in paths.items() for way in ways if way != "parameters"}


def test_a_service_that_does_not_get_ready_is_not_waited_for_for_ever(http_examples, monkeypatch):
    def not_yet(request):
        asked.append(request)
        assert len(asked) < 100
        return httpx.Response(503)

    asked = []
    never = httpx.Client(base_url=http_examples.ADDRESS, transport=httpx.MockTransport(not_yet))
    monkeypatch.setattr(http_examples, "_PATIENCE", 0.05, raising=False)
    monkeypatch.setattr(http_examples, "TestClient", lambda *_: never)
    with pytest.raises(TimeoutError, match="not ready"):
        next(http_examples.answered())
