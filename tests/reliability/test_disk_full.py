"""A disk that is full ends a training in one line; what was saved stays, and nothing half-written does."""

import json
import re
from dataclasses import replace
from pathlib import Path

import pytest

from verydeep import Execution, train
from verydeep.training.checkpoint import load_latest

OPTIONS = ["--network", "A", "--crop", "32", "--width", "0.05", "--epochs", "2"]
OPTIONS += ["--learning-rate", "1e-3", "--scale", "256:512", "--seed", "5", "--keep-checkpoints"]
"""Those of tiny.RECIPE, but for the batch."""

OFTEN = [*OPTIONS, "--batch", "4", "--save-minutes", "1e-9"]
"""A checkpoint before every step."""

SELDOM = [*OPTIONS, "--batch", "1"]
"""At the end of an epoch alone, with more figures in it than are held in memory."""

LIMITED = """
import os, resource, sys
from verydeep.machine import atomic
from verydeep.cli import main

out, name, limit, *arguments = sys.argv[1:]
new_folder = atomic.new_folder

def limited(path):
    if path.name == name:
        resource.setrlimit(resource.RLIMIT_FSIZE, (int(limit), resource.RLIM_INFINITY))
    return new_folder(path)

atomic.new_folder = limited
main(["train", "--out", out, *arguments])
"""
"""From the writing of a certain folder on, files cannot grow beyond a limit."""

FULL = """
import ctypes, json, os, subprocess, sys, time
from pathlib import Path
import tiny
from verydeep.cli import main
from verydeep.training.checkpoint import load_latest

disk, errors, cases = Path(sys.argv[1]), Path(sys.argv[2]), json.loads(sys.argv[3])
user, group, NEW_MOUNTS, NEW_USER = os.getuid(), os.getgid(), 0x20000, 0x10000000
if ctypes.CDLL(None).unshare(NEW_MOUNTS | NEW_USER):
    sys.exit(77)
for file, text in (("setgroups", "deny"), ("uid_map", f"0 {user} 1"), ("gid_map", f"0 {group} 1")):
    Path(f"/proc/self/{file}").write_text(text)
if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", disk]).returncode:
    sys.exit(77)

def trained(arguments):
    'Exit status and standard error.'
    pid = os.fork()
    if not pid:
        os.dup2(os.open(errors, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), 2)
        main(["train", *arguments])
        sys.exit(0)
    end = time.monotonic() + 20
    while time.monotonic() < end:
        ended, how = os.waitpid(pid, os.WNOHANG)
        if ended:
            return os.waitstatus_to_exitcode(how), errors.read_text()
        time.sleep(0.01)
    os.kill(pid, 9)
    os.waitpid(pid, 0)
    return "it hangs", errors.read_text()

def there(out):
    return load_latest(out / "checkpoints")[0]

for free, arguments in cases:
    out, filler = disk / "run", disk / "filler"
    room = os.statvfs(disk)
    filler.write_bytes(bytes(room.f_bavail * room.f_frsize - free))
    status, said = trained([*arguments, "--out", str(out)])
    found = {"free": free, "status": status, "said": said, "strays": tiny.strays(disk)}
    found["step"] = there(out) and there(out).progress.step
    filler.unlink()
    found["resumed"], found["then"] = trained([*arguments, "--out", str(out), "--resume"])
    found["digest"] = there(out) and tiny.digest(there(out))
    print("found", json.dumps(found), flush=True)
    subprocess.run(["rm", "-rf", out], check=True)
"""
"""Trainings on a disk of 4 MB, with little room left of it; each once more when there is enough."""


@pytest.fixture(scope="module")
def whole(tiny, source, tmp_path_factory):
    """A run with room."""
    out, kept = tmp_path_factory.mktemp("whole") / "run", Execution(keep_checkpoints=True)
    return train(source, network="A", out=out, recipe=tiny.RECIPE, execution=kept)


@pytest.fixture(scope="module")
def named(figure):
    """Collect what could not be written."""
    found = []
    yield found
    told = "exit status 1, a line that names path and bytes, the last checkpoint whole, resumed to the same weights"
    figure(4, "file too large", f"{', '.join(found)}: {told}")


def told(errors):
    """The one line that says what went wrong."""
    [line] = [line for line in errors.splitlines() if line.startswith("verydeep: ")]
    assert "Traceback" not in errors, errors
    assert errors.endswith(f"{line}\n"), errors
    return line


@pytest.mark.parametrize(
    ("name", "left"), [("step-00000000", None), ("step-00000003", 2), ("step-00000006", 5), ("best", 6), ("model", 6)]
)
def test_a_file_that_cannot_be_written_is_named_and_the_rest_stays(
    python, tiny, named, tmp_path, source, whole, name, left
):
    out = tmp_path / "run"
    child = python(LIMITED, out, name, 100_000, source, *OFTEN)
    status = child.wait()
    line = told(child.errors)
    assert status == 1
    assert f"{out}" in line
    assert name in line
    assert re.search(r"\b\d{3},\d{3} bytes", line)
    assert tiny.strays(out) == []
    found, passed_over = load_latest(out / "checkpoints")
    assert passed_over == []
    assert (found and found.progress.step) == left
    train(source, network="A", out=out, recipe=tiny.RECIPE, resume=True)
    for model in ("best", "model"):
        file = Path(model) / "model.safetensors"
        assert (out / file).read_bytes() == (whole / file).read_bytes()
    named.append(name)


def test_a_full_disk_ends_a_training_in_one_line_and_with_room_it_goes_on(
    python, tiny, battery, figure, tmp_path, source, whole
):
    long = train(
        str(tiny.folder(tmp_path / "source", training=100)),
        network="A",
        out=tmp_path / "long",
        recipe=replace(tiny.RECIPE, batch=1),
        execution=Execution(keep_checkpoints=True),
    )
    room = [1_000 * free for free in (range(4, 4_000, 80) if battery else (8, 900, 2_000))]
    cases = [(free, [source, *OFTEN]) for free in room] + [(9_000, [str(tmp_path / "source"), *SELDOM])]
    (tmp_path / "disk").mkdir()
    child = python(FULL, tmp_path / "disk", tmp_path / "errors", json.dumps(cases))
    status = child.wait(500)
    if status == 77:
        pytest.skip("cannot mount a small disk here")
    assert status == 0, child.errors
    found = [json.loads(line.removeprefix("found ")) for line in child.output.splitlines() if line[:6] == "found "]
    assert [case["free"] for case in found] == [free for free, _ in cases]
    for case, run in zip(found, [whole] * len(room) + [long], strict=True):
        assert case["status"] in (0, 1), case
        if case["status"]:
            assert str(tmp_path / "disk" / "run") in told(case["said"])
        assert case["strays"] == [], case
        assert case["resumed"] == 0, case
        assert case["digest"] == tiny.digest(load_latest(run / "checkpoints")[0]), case
    stopped = [case for case in found if case["status"]]
    assert any(case["step"] for case in stopped)
    assert any(case["step"] is None for case in stopped)
    figure(
        4,
        "disk full, 4 MB",
        f"{len(found)} trainings, {len(stopped)} without enough room: one line each, resumed to the same weights",
    )
