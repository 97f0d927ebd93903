"""`doctor`: what it tells, what it keeps to itself, and that a broken part ends it with 1."""

import getpass
import json
import platform
import re
import signal
import subprocess
import sys
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path

import joblib
import pytest
import torch
from several_commands import status_of

from verydeep import version
from verydeep.commands import self_test
from verydeep.commands.self_test import Check
from verydeep.machine import inspection, memory
from verydeep.machine.private_names import cache_without_names
from verydeep.machine.runtime import Stopped, stop_request
from verydeep.version import __version__, code_digest


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
    assert 0 < found["free_memory_bytes"] <= found["memory_bytes"] == memory.memory_bytes()
    assert (found["cache"], found["cache_files"], found["cache_bytes"]) == ("verydeep", 2, 1500)
    assert f"verydeep {__version__}, code {code_digest()}, Python {platform.python_version()}" in text
    assert "self-test  train on digits: ok, 10% are wrong (3.2 s)" in text
    assert "cache      verydeep: 2 files" in text
    for private in (str(tmp_path), platform.node(), str(Path.cwd()), f"/{getpass.getuser()}/"):
        assert private not in text + file.read_text()


def test_without_a_folder_of_the_user_it_tells_that_nothing_is_kept(quick, capsys, homeless):
    assert status_of("doctor", "--json", homeless / "doctor.json") == 0
    assert (
        "cache      nothing is kept: this user has no folder, and VERYDEEP_CACHE names none" in capsys.readouterr().out
    )
    found = json.loads((homeless / "doctor.json").read_text())
    assert found["cache"] is None
    assert [*found["free_disk_bytes"]] == ["here"]


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


def test_what_is_left_out_is_told(monkeypatch, capsys, tmp_path):
    monkeypatch.setenv("VERYDEEP_CACHE", str(tmp_path))
    monkeypatch.setattr(self_test, "_SECONDS", -1)
    monkeypatch.setattr(self_test, "_learns", lambda run: "it learns")
    monkeypatch.setattr(self_test, "_formats", lambda: ["onnx"])
    assert status_of("doctor") == 0
    assert "self-test  export to onnx: not tested, the others took too long" in capsys.readouterr().out


def test_cores_are_those_that_a_control_group_allows(monkeypatch):
    monkeypatch.setattr(joblib, "cpu_count", lambda: 3)
    assert inspection.inspect_computer().cores == 3


def test_what_fails_is_told_and_nothing_else_is_begun(monkeypatch):
    monkeypatch.setattr(self_test, "_learns", lambda run: 1 / 0)
    (check,) = self_test.self_test()
    assert (check.ok, check.detail) == (False, "ZeroDivisionError: division by zero")


def test_without_a_temporary_folder_all_else_is_told():
    """As in a container that is read-only. PyTorch is imported then, and libraries that ask for the folder with it."""
    code = f"""
import errno, tempfile
def none():
    raise FileNotFoundError(errno.ENOENT, "No usable temporary directory found in []")
tempfile._get_default_tempdir = none
from verydeep.cli import main
main({["doctor"]})
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert f"verydeep {__version__}, code" in done.stdout
    assert "self-test  make a temporary folder: BROKEN, FileNotFoundError: " in done.stdout
    assert done.stderr == "verydeep: broken: make a temporary folder\n"


@pytest.mark.usefixtures("unignored_signals")
@pytest.mark.parametrize(("number", "answer"), [(signal.SIGINT, "stopping the self-test\n"), (signal.SIGTERM, "")])
def test_a_signal_is_answered_at_once_and_ends_it(monkeypatch, capsys, number, answer):
    def stopped(run):
        with stop_request("unseen") as stop:
            signal.raise_signal(number)
        raise Stopped(stop.signal, f"stopped, and saved in {run}")

    monkeypatch.setattr(self_test, "_learns", stopped)
    assert status_of("doctor") == 128 + number
    assert capsys.readouterr() == ("", f"{answer}verydeep: stopped\n")


def test_a_limit_of_a_container_is_its_memory(monkeypatch):
    """With a limit of 1 MB, nothing that the whole computer has is told."""
    monkeypatch.setattr(memory, "_limits", lambda *_: iter([10**6]))
    assert inspection._memory() == (10**6, 10**6)


@pytest.mark.parametrize(
    ("cache", "shown"),
    [
        ("{home}/.cache/verydeep", "~/.cache/verydeep"),
        ("{home}/Library/Caches/verydeep", "~/Library/Caches/verydeep"),
        ("{home}/clients/acme/cache", "cache"),
        ("{home}/clients/acme/.cache/verydeep", "verydeep"),
        ("/scratch/of alice/verydeep", "verydeep"),
        ("{home}/../alice/verydeep", "verydeep"),
        ("/scratch/jane", "(user)"),
        ("alice/caches", "caches"),
    ],
)
def test_a_cache_is_shown_without_names(named, cache, shown):
    assert cache_without_names(Path(cache.format(home=named))) == shown


def test_without_a_folder_of_the_user_nothing_is_in_it(named, monkeypatch):
    monkeypatch.setenv("HOME", "/")
    assert cache_without_names(Path("/scratch/alice/verydeep")) == "verydeep"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        (
            "[Errno 28] No space left on device: '{home}/my work/run/a.json'",
            "[Errno 28] No space left on device: 'a.json'",
        ),
        ("[Errno 2] No such file: '/tmp/tmp1/run' -> '/data/of alice/b'", "[Errno 2] No such file: 'run' -> 'b'"),
        ("it's in /data/alice/net.onnx, and '/data/al ice/x.onnx'", "it's in net.onnx, and 'x.onnx'"),
        ("{home}/deep/er/net.onnx:12 is damaged", "net.onnx:12 is damaged"),
        ("libx.so: cannot open file:///opt/alice/lib/liby.so", "libx.so: cannot open liby.so"),
        ("{cwd}: not writable by jane on box-7", ".: not writable by (user) on (computer)"),
        ("{home} and {cwd}less", "~ and {here}less"),
        ("3/4 of janet's images, see https://x.org/a/b", "3/4 of janet's images, see https://x.org/a/b"),
    ],
)
def test_errors_are_told_without_names(named, monkeypatch, text, shown):
    text = text.format(home=named, cwd=Path.cwd())
    monkeypatch.setattr(self_test, "_learns", lambda run: Path(text) / 0)
    monkeypatch.setattr(self_test, "one_line", lambda error: text)
    (check,) = self_test.self_test()
    assert check.detail == f"TypeError: {shown.format(here=Path.cwd().name)}"


@pytest.fixture
def named(monkeypatch, tmp_path):
    """The folder of the user jane, with blanks in it, on the computer box-7."""
    monkeypatch.setenv("HOME", str(tmp_path / "jane's own" / "home"))
    monkeypatch.setattr(getpass, "getuser", lambda: "jane")
    monkeypatch.setattr(platform, "node", lambda: "box-7")
    monkeypatch.chdir(tmp_path)
    return tmp_path / "jane's own" / "home"


@pytest.mark.battery
def test_the_self_test_itself(capfd):
    checks = self_test.self_test()
    assert checks[0].name == "train on digits"
    formats = ["onnx", "openvino", *(["ncnn"] if find_spec("ncnn") else [])]
    assert {f"export to {one}" for one in formats} <= {check.name for check in checks}
    assert all(check.ok for check in checks), checks
    assert sum(check.seconds for check in checks) < 60
    assert capfd.readouterr() == ("", "")


def test_the_code_is_known_by_all_its_files(tmp_path, monkeypatch):
    """An editor's link to nowhere, and compiled files, are none of it."""
    (tmp_path / "room").mkdir()
    (tmp_path / "room" / "a.py").write_text("1")
    (tmp_path / "room" / ".#a.py").symlink_to("nowhere")
    monkeypatch.setattr(version, "__file__", str(tmp_path / "version.py"))
    digests = []
    for file, text in (("b.pyc", "1"), ("room/a.py", "2"), ("b.py", ""), ("c.py", "")):
        digests += [code_digest.__wrapped__()]
        (tmp_path / file).write_text(text)
    assert len({*digests, code_digest.__wrapped__()}) == 4
    assert digests[0] == digests[1]
    assert all(re.fullmatch("[0-9a-f]{12}", digest) for digest in digests)
