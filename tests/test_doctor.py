"""`doctor`: what it tells, what it keeps to itself, and that a broken part ends it with 1."""

import getpass
import json
import platform
from importlib import metadata
from pathlib import Path

import pytest
import torch
from several_commands import status_of

from verydeep.commands import self_test
from verydeep.commands.self_test import Check
from verydeep.machine import inspection
from verydeep.version import __version__


@pytest.fixture
def quick(monkeypatch, tmp_path):
    """A self-test that is made up, and a cache of two files in the user's folder."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("VERYDEEP_CACHE", str(tmp_path / "caches" / "verydeep"))
    (tmp_path / "caches" / "verydeep" / "sizes").mkdir(parents=True)
    (tmp_path / "caches" / "verydeep" / "sizes" / "a.json").write_bytes(bytes(1000))
    (tmp_path / "caches" / "verydeep" / "b").write_bytes(bytes(500))
    checks = [Check(name="train on digits", ok=True, detail="10% are wrong", seconds=3.21)]
    monkeypatch.setattr(self_test, "self_test", lambda: checks)
    return checks


def test_it_tells_what_there_is(quick, capsys, tmp_path):
    file = tmp_path / "doctor.json"
    assert status_of("doctor", "--json", file) == 0
    text, found = capsys.readouterr().out, json.loads(file.read_text())
    assert found["versions"]["PyTorch"] == torch.__version__
    assert found["packages"]["numpy"] == metadata.version("numpy")
    assert found["extras"]["serve"]["uvicorn"] == metadata.version("uvicorn")
    assert found["extras"]["yaml"]["yaml"] == metadata.version("PyYAML")
    assert found["instruction_sets"][0] == torch.backends.cpu.get_cpu_capability()
    assert found["devices"][0] == "cpu"
    assert 0 < found["free_memory_bytes"] < found["memory_bytes"]
    assert (found["cache"], found["cache_files"], found["cache_bytes"]) == ("~/caches/verydeep", 2, 1500)
    assert f"verydeep {__version__}, Python {platform.python_version()}" in text
    assert "self-test  train on digits: ok, 10% are wrong (3.2 s)" in text
    assert "cache      ~/caches/verydeep: 2 files" in text
    for private in (str(tmp_path), platform.node(), str(Path.cwd()), f"/{getpass.getuser()}/"):
        assert private not in text + file.read_text()


def test_a_broken_part_is_named_and_ends_it_with_one(quick, capsys):
    quick.append(Check(name="export to onnx", ok=False, detail="OSError: no", seconds=0.1))
    assert status_of("doctor") == 1
    captured = capsys.readouterr()
    assert "export to onnx: BROKEN, OSError: no" in captured.out
    assert captured.err == "verydeep: broken: export to onnx\n"


def test_a_missing_library_is_named_with_what_installs_it(quick, capsys, monkeypatch):
    version = inspection._version
    monkeypatch.setattr(inspection, "_version", lambda name: None if name in ("onnx", "scipy") else version(name))
    assert status_of("doctor") == 1
    captured = capsys.readouterr()
    assert "scipy missing" in captured.out
    assert "extra      onnx: onnx missing, onnxruntime " in captured.out
    assert ": pip install 'verydeep[onnx]'" in captured.out
    assert captured.err == "verydeep: broken: scipy is missing\n"
    assert "self-test" not in captured.out


def test_what_fails_is_told_and_nothing_else_is_begun(monkeypatch):
    monkeypatch.setattr(self_test, "_learns", lambda run: 1 / 0)
    (check,) = self_test.self_test()
    assert (check.ok, check.detail) == (False, "ZeroDivisionError: division by zero")


@pytest.mark.battery
def test_the_self_test_itself(capfd):
    checks = self_test.self_test()
    assert checks[0].name == "train on digits"
    assert {"export to onnx", "export to openvino"} <= {check.name for check in checks}
    assert all(check.ok for check in checks), checks
    assert sum(check.seconds for check in checks) < 60
    assert capfd.readouterr() == ("", "")
