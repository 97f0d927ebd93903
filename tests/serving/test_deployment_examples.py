"""The examples of deployments: each fails here when an option, a path or a name that it uses is another."""

import importlib.util
import json
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
import types
import warnings
from pathlib import Path

import httpx
import jsonschema
import numpy as np
import onnxruntime
import pytest
import tritonclient
import yaml
from exported_runs import CLASSES, network, pictures, saved
from google.protobuf import text_format
from served import encoded, wait_until
from starlette.testclient import TestClient

from verydeep import predict
from verydeep.cli import app as command
from verydeep.conversion.export import export
from verydeep.exported_networks.formats import ExportOptions
from verydeep.serving.app import _open_routes
from verydeep.serving.options import Limits, Listening
from verydeep.serving.server import bound_socket

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "examples" / "serving"
OPEN_PATHS = {route.path for route in _open_routes(None)}


def imported(path, name):
    """Import a file as a module."""
    spec = importlib.util.spec_from_file_location(name, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def parsed(words):
    """Return the arguments of `verydeep serve` as the command line understands them."""
    assert words[0] == "serve"
    _, bound, _ = command.parse_args([str(word) for word in words], exit_on_error=False, print_error=False)
    return bound.arguments


def seconds_to_drain(arguments):
    limits, listening = arguments.get("limits", Limits()), arguments.get("listening", Listening())
    return listening.grace + limits.body_seconds + limits.deadline


def instructions(text):
    """Return the instructions of a Dockerfile, as name and rest, with continued lines joined."""
    lines = [line for line in text.splitlines() if line.strip() and not line.startswith("#")]
    joined = re.sub(r"\\\n\s*", "", "\n".join(lines)).splitlines()
    return [tuple(line.strip().split(maxsplit=1)) for line in joined]


def test_the_image_runs_the_command_as_nobody():
    found = instructions((EXAMPLES / "Dockerfile").read_text())
    last = dict(found[[number for number, one in enumerate(found) if one[0] == "FROM"][-1] :])
    assert int(last["USER"].partition(":")[0]) > 0
    words = [*yaml.safe_load(last["ENTRYPOINT"]), *yaml.safe_load(last["CMD"])]
    assert words.pop(0) == "verydeep"
    listening = parsed(words)["listening"]
    assert (listening.host, listening.port) == ("0.0.0.0", int(last["EXPOSE"]))
    check = yaml.safe_load(last["HEALTHCHECK"].partition("CMD ")[2])[-1]
    compile(check, "HEALTHCHECK", "exec")
    url = httpx.URL(re.search(r"http://[^']+", check)[0])
    assert (url.path in OPEN_PATHS, url.port) == (True, listening.port)
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    (extras,) = re.findall(r"\[([\w,]+)\]", " ".join(rest for name, rest in found if name == "RUN"))
    assert set(extras.split(",")) <= set(project["optional-dependencies"])


def test_the_image_is_built_from_what_there_is_and_may_be_seen():
    found = instructions((EXAMPLES / "Dockerfile").read_text())
    copied = [rest.split()[:-1] for name, rest in found if name == "COPY" and not rest.startswith("--from")]
    wanted = {name for names in copied for name in names}
    seen = {line[1:] for line in (EXAMPLES / "Dockerfile.dockerignore").read_text().split() if line.startswith("!")}
    assert wanted == seen
    assert [name for name in wanted if not (ROOT / name).exists()] == []
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    assert {project["project"]["readme"], *project["project"]["license-files"]} <= wanted


@pytest.mark.battery
def test_the_dockerfile_has_no_remark_of_a_linter():
    if shutil.which("hadolint") is None:
        pytest.skip("there is no hadolint")
    done = subprocess.run(["hadolint", EXAMPLES / "Dockerfile"], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "")


def test_kserve_asks_for_paths_that_there_are():
    found = yaml.safe_load((EXAMPLES / "kserve.yaml").read_text())
    assert (found["apiVersion"], found["kind"]) == ("serving.kserve.io/v1beta1", "InferenceService")
    predictor = found["spec"]["predictor"]
    (container,) = predictor["containers"]
    assert container["name"] == "kserve-container"
    arguments = parsed(["serve", *container["args"]])
    port = arguments["listening"].port
    assert arguments["name"] == found["metadata"]["name"]
    assert [one["containerPort"] for one in container["ports"]] == [port]
    for kind, path in (("startup", "/readyz"), ("readiness", "/readyz"), ("liveness", "/healthz")):
        assert container[f"{kind}Probe"]["httpGet"] == {"path": path, "port": port}
        assert path in OPEN_PATHS
    assert predictor["terminationGracePeriodSeconds"] > seconds_to_drain(arguments)
    lost = container["readinessProbe"]
    assert arguments["listening"].grace > lost["periodSeconds"] * lost["failureThreshold"]
    mounts = {one["name"]: one["mountPath"] for one in container["volumeMounts"]}
    assert set(mounts) == {one["name"] for one in predictor["volumes"]}
    assert str(arguments["run"]).startswith(mounts["models"])
    assert predictor["securityContext"]["runAsNonRoot"]


def test_kserve_knows_every_field_that_it_is_given():
    schema = json.loads(Path(__file__).with_name("kserve_inference_service.json").read_text())
    text = (EXAMPLES / "kserve.yaml").read_text()
    validator = jsonschema.Draft202012Validator(schema)
    validator.validate(yaml.safe_load(text))
    for right, wrong in (
        ("failureThreshold: 60", "failureTreshold: 60"),
        ("maxReplicas: 4", "maxReplicas: four"),
        ("predictor:", "predicter:"),
        ("- name: kserve-container", "- title: kserve-container"),
        ("claimName: models", "claim: models"),
    ):
        assert right in text
        assert not validator.is_valid(yaml.safe_load(text.replace(right, wrong)))


def test_systemd_starts_and_ends_it(tmp_path):
    text = (EXAMPLES / "verydeep.service").read_text()
    for told in (text, (ROOT / "docs" / "serving.md").read_text()):  # else a proxy that passes Host on is refused
        assert "--allow-host NAME" in told
    settings = dict(line.split("=", 1) for line in text.splitlines() if "=" in line and not line.startswith("#"))
    program, *words = shlex.split(settings["ExecStart"])
    assert Path(program).name == "verydeep"
    assert int(settings["TimeoutStopSec"]) > seconds_to_drain(parsed(words))
    if shutil.which("systemd-analyze") is None:
        pytest.skip("there is no systemd-analyze to verify the unit")
    unit = tmp_path / "verydeep.service"
    for written, fine in ((text, True), (text.replace("TimeoutStopSec", "TimeoutStop"), False)):
        unit.write_text(written.replace(program, sys.executable))
        done = subprocess.run(["systemd-analyze", "verify", unit], capture_output=True, text=True)
        assert (done.returncode == 0 and done.stderr == "") is fine, done.stderr


def test_triton_is_told_what_the_exported_file_takes(tmp_path):
    file = tmp_path / "net.onnx"
    options = ExportOptions(data=pictures(tmp_path / "data", each=1))
    export(saved(network(), tmp_path / "run"), file, to="onnx", options=options)
    model = imported(EXAMPLES / "triton_repository.py", "triton_repository").write_repository(file, tmp_path / "all")
    pb2 = imported(Path(tritonclient.__path__[0]) / "grpc" / "model_config_pb2.py", "model_config_pb2")
    config = text_format.Parse((model / "config.pbtxt").read_text(), pb2.ModelConfig())
    assert config.name == model.name
    session = onnxruntime.InferenceSession(model / "1" / "model.onnx")
    given = {one.name: one for one in session.get_inputs()}
    assert {one.name for one in config.input} == set(given)
    assert config.input[0].data_type == pb2.TYPE_FP32
    images = np.zeros((config.max_batch_size, *config.input[0].dims), np.float32)
    for one in config.output:
        (found,) = session.run([one.name], {config.input[0].name: images})
        assert (found.dtype, one.data_type) == (np.float32, pb2.TYPE_FP32)
        assert found.shape == (config.max_batch_size, *one.dims)
        assert (model / one.label_filename).read_text().splitlines() == list(CLASSES)


def test_ray_makes_the_service_in_each_replica(run, monkeypatch):
    asked = {}

    def deployment(**options):
        asked.update(options)
        return lambda cls: types.SimpleNamespace(bind=lambda: f"{cls.__name__}, bound")

    def ingress(builder):
        asked["app"] = builder
        return lambda cls: cls

    serve = types.SimpleNamespace(deployment=deployment, ingress=ingress)
    monkeypatch.setitem(sys.modules, "ray", types.SimpleNamespace(serve=serve))
    monkeypatch.setenv("VERYDEEP_MODEL", str(run))
    example = imported(EXAMPLES / "ray_serve.py", "ray_serve_example")
    assert example.deployment == "Model, bound"
    assert asked["max_ongoing_requests"] > Limits().queue
    with TestClient(asked["app"](), base_url="http://127.0.0.1") as client:
        wait_until(lambda: client.get("/readyz").status_code == 200)
        found = client.post("/v1/predict?top=2", content=encoded()).json()
    (expected,) = predict(run, encoded(), top=2)
    assert found["classes"] == list(expected.classes)


@pytest.mark.battery
def test_ray_shares_requests_among_two_replicas(run, monkeypatch):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        ray, serve = pytest.importorskip("ray"), pytest.importorskip("ray.serve")
    monkeypatch.setenv("VERYDEEP_MODEL", str(run))
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    (expected,) = predict(run, encoded(), top=2)
    with warnings.catch_warnings(), bound_socket(Listening(port=0)) as free:
        warnings.simplefilter("ignore")
        port = free.getsockname()[1]
        ray.init(num_cpus=4, include_dashboard=False, log_to_driver=False)
        try:
            free.close()
            serve.start(http_options={"host": "127.0.0.1", "port": port})
            serve.run(imported(EXAMPLES / "ray_serve.py", "ray_serve_example").deployment)
            with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=60) as client:
                wait_until(lambda: client.get("/readyz").status_code == 200)
                found = client.post("/v1/predict?top=2", content=encoded()).json()
            replicas = serve.status().applications["default"].deployments["Model"].replica_states
        finally:
            serve.shutdown()
            ray.shutdown()
    assert found["classes"] == list(expected.classes)
    np.testing.assert_allclose(found["probabilities"], expected.probabilities, atol=1e-6)
    assert {str(state): count for state, count in replicas.items()} == {"RUNNING": 2}
