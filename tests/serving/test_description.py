"""The description in OpenAPI, and figures for Prometheus."""

import asyncio
import re
from pathlib import Path

import httpx
import jsonschema
import pytest
from gated_model import Gate
from openapi_spec_validator import OpenAPIV31SpecValidator
from prometheus_client.parser import text_string_to_metric_families
from served import KEY, encoded, files, service_of, serving

from verydeep.serving.app import _keyed_routes, _open_routes, application
from verydeep.serving.openapi import openapi
from verydeep.serving.options import Access, Limits


@pytest.fixture(scope="module")
def service(run):
    return service_of(run)


@pytest.fixture(scope="module")
def client(service):
    with serving(service) as client:
        yield client


@pytest.fixture(scope="module")
def description(client):
    return client.get("/openapi.json").json()


def test_the_description_is_valid_and_has_every_path(description, service):
    OpenAPIV31SpecValidator(description).validate()
    routes = {route.path: route.methods - {"HEAD"} for route in (*_open_routes(service), *_keyed_routes(service))}
    described = {
        path: {name.upper() for name in methods if name != "parameters"}
        for path, methods in description["paths"].items()
    }
    assert described == routes


def test_the_description_names_versions_and_the_key_of_the_form(run, tmp_path):
    (tmp_path / "keys").write_text(KEY)
    description = openapi(service_of(run, Access(key_file=tmp_path / "keys")))
    (version,) = description["paths"]["/v2/models/tiny/versions/{version}/infer"]["parameters"]
    assert (version["in"], version["schema"]["enum"]) == ("path", ["1"])
    of_form, of_predict = (
        description["paths"][path]["post"]["requestBody"]["content"]["multipart/form-data"]["schema"]["properties"]
        for path in ("/", "/v1/predict")
    )
    assert (list(of_form), list(of_predict)) == (["key", "image"], ["image"])


def test_answers_are_as_described(client, description):
    def check(value, name):
        jsonschema.validate(value, {"$ref": f"#/components/schemas/{name}", "components": description["components"]})

    one = client.post("/v1/predict?maps=1", content=encoded()).json()
    check(one, "Prediction")
    assert set(one) - {"maps"} <= set(description["components"]["schemas"]["Prediction"]["properties"])
    for each in client.post("/v1/predict", files=files(encoded(), b"bad")).json()["predictions"]:
        check(each, "Prediction")
    check(client.get("/nowhere").json(), "Error")
    for path, kind in (("/", "text/html"), ("/v1/predict", "application/json")):
        answer = client.post(path, files=files(b"bad"))
        described = description["paths"][path]["post"]["responses"][str(answer.status_code)]["content"]
        assert list(described) == [kind] == [answer.headers["content-type"].partition(";")[0]]
        answer = client.put(path)
        described = description["paths"][path]["post"]["responses"]["405"]["content"]
        assert list(described) == ["application/json"] == [answer.headers["content-type"]]


def test_errors_before_there_is_a_path_are_described(description):
    """They are JSON at the page, too, where a refusal of a form is a page."""
    responses = description["paths"]["/"]["post"]["responses"]
    kinds = {status: set(responses[status]["content"]) for status in ("400", "408", "422", "431", "501")}
    page, other = "text/html", "application/json"
    assert kinds == {"400": {page, other}, "408": {page, other}, "422": {page}, "431": {other}, "501": {other}}


def test_figures_are_prometheus_text(client):
    client.post("/v1/predict", content=encoded())
    client.post("/v1/predict", content=b"bad")
    client.get("/" + "x" * 100)
    name = client.get("/v1/model").json()["name"]
    client.get(f"/v2/models/{name}")
    for version in ("1", "2"):
        client.get(f"/v2/models/{name}/versions/{version}/ready")
    answer = client.get("/metrics")
    assert answer.headers["content-type"].startswith("text/plain; version=0.0.4")
    samples = [sample for family in text_string_to_metric_families(answer.text) for sample in family.samples]
    values = {(sample.name, *sorted(sample.labels.values())): sample.value for sample in samples}
    assert values["http_requests_total", "/v1/predict", "200", "POST"] >= 1
    assert values["http_requests_total", "/v1/predict", "422", "POST"] >= 1
    assert values["http_requests_total", "404", "GET", "other"] >= 1
    assert values["http_requests_total", "/v2/models/{name}", "200", "GET"] >= 1
    for status in ("200", "404"):
        assert values["http_requests_total", "/v2/models/{name}/versions/{version}/ready", status, "GET"] == 1
    assert values["verydeep_images_total", "predicted"] >= 1
    assert values["verydeep_images_total", "refused"] >= 1
    assert values["verydeep_queue_images",] == values["verydeep_bodies_bytes",] == 0
    assert values["process_resident_memory_bytes",] > 0


def test_figures_name_paths_below_the_one_that_it_is_mounted_at():
    service = service_of(Gate().model())

    async def asked():
        transport = httpx.ASGITransport(application(service), root_path="/here")
        async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1/here") as client:
            return [(await client.get(path)).status_code for path in ("/healthz", "/nowhere")]

    assert asyncio.run(asked()) == [200, 404]
    counted = re.findall(r'http_requests_total\{.*path="([^"]+)"', service.metrics.text().decode())
    assert sorted(counted) == ["/healthz", "other"]


def test_the_page_lists_every_limit_with_its_default():
    page = (Path(__file__).parents[2] / "docs/how-to/serve.md").read_text()
    rows = re.findall(r"(?m)^\| `--([a-z-]+)` \| ([\d,.]+|measured|by scale)( MiB| s)? \| \S", page)
    said = {name: float(number.replace(",", "")) if number[0].isdigit() else None for name, number, _ in rows}
    limits = {name.replace("_", "-"): value for name, value in vars(Limits()).items()}
    assert {name: said.get(name, "missing") for name in limits} == limits
    units = {name: unit.strip() for name, _, unit in rows if name in limits}
    assert {name for name, unit in units.items() if unit == "MiB"} == {"max-body", "max-bodies"}
    assert {name for name, unit in units.items() if unit == "s"} == {"body-seconds", "queue-seconds", "deadline"}
