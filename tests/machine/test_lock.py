"""Of two processes that would write the same, the second is told who the first is; a dead one holds nothing."""

import errno
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
from contextlib import ExitStack
from pathlib import Path

import pytest
from several_commands import refusal, status_of

from verydeep.machine.lock import WrittenElsewhereError, locked

BEFORE = Path(__file__).parents[1] / "before" / "written_at_0046bf4"

HOLD = """
import sys
from pathlib import Path
from verydeep.machine.lock import locked
with locked(Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""


def holder(output):
    command = [sys.executable, "-c", HOLD, str(output)]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "held\n"
    return process


def test_the_holder_is_named_and_frees_the_lock_in_whatever_way_it_ends(tmp_path):
    (tmp_path / "link").symlink_to("run")
    for ending in ("killed", "done"):
        with holder(tmp_path / "run") as other:
            told = (
                rf"run is being written by process {other.pid} on {re.escape(socket.gethostname())}, since 20.*: wait"
            )
            for name in ("run", "link"):
                with pytest.raises(WrittenElsewhereError, match=told), locked(tmp_path / name):
                    pass
            if ending == "killed":
                other.send_signal(signal.SIGKILL)
            else:
                other.stdin.close()
            other.wait(timeout=30)
            with locked(tmp_path / "link"):
                assert (tmp_path / ".run.lock").exists()
        assert [entry.name for entry in tmp_path.iterdir()] == ["link"]


def test_who_was_killed_is_not_named_in_place_of_who_holds_the_lock_now(tmp_path):
    """The next holder has taken the lock, but not yet written its own name."""
    with holder(tmp_path / "run") as dead:
        dead.send_signal(signal.SIGKILL)
    left = (tmp_path / ".run.lock").read_bytes()
    with holder(tmp_path / "run") as other:
        now = (tmp_path / ".run.lock").read_bytes()
        (tmp_path / ".run.lock").write_bytes(left)
        threading.Timer(0.2, (tmp_path / ".run.lock").write_bytes, [now]).start()
        with pytest.raises(WrittenElsewhereError, match=f"by process {other.pid} on"), locked(tmp_path / "run"):
            pass
        other.stdin.close()


def test_a_run_that_is_being_trained_is_not_said_to_have_been_stopped(tmp_path, capsys):
    run = tmp_path / "run"
    shutil.copytree(BEFORE / "stopped_run", run)
    words = ("train", BEFORE / "images", "--network", "A", "--out", run)
    assert "run is a run that was stopped: add --resume" in refusal(capsys, *words)
    with holder(run) as other:
        assert status_of(*words) == 1
        assert f"run is being written by process {other.pid} on " in capsys.readouterr().err
        other.stdin.close()
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["run"]


SMALL = ("--crop", 32, "--width", 0.05, "--batch", 4, "--epochs", 1)
VERBS = {
    "train again": ("run", ("train", "images", "--network", "A", *SMALL, "--resume")),
    "localise train": (
        "boxes",
        ("localise", "train", "images", "--boxes", "images/boxes.csv", "--finetune", "finished_run", "--epochs", 1),
    ),
    "import": ("imported", ("import", "finished_run")),
    "export": ("net.onnx", ("export", "finished_run", "--to", "onnx")),
    "export of weights": ("net.pth", ("export", "finished_run", "--to", "torchvision")),
    "features": ("f.safetensors", ("features", "finished_run", "images", "--split", "all")),
    "transfer": ("svm", ("transfer", "finished_run", "--data", "images", "--split", "all", "--train", 2)),
    "reproduce": ("experiment", ("reproduce", "images", "--only", "A", "--tables", 3, *SMALL)),
}
"""The output of each verb that writes one for long, and its command line."""


@pytest.mark.parametrize("verb", VERBS)
def test_a_verb_is_refused_while_another_process_writes_its_output(tmp_path, monkeypatch, capsys, verb):
    output, words = VERBS[verb]
    for name in ("images", "finished_run"):
        shutil.copytree(BEFORE / name, tmp_path / name)
    monkeypatch.chdir(tmp_path)
    with holder(tmp_path / output) as other:
        assert status_of(*words, "--out", output) == 1
        assert f"{output} is being written by process {other.pid} on " in capsys.readouterr().err
        assert not (tmp_path / output).exists()
        other.stdin.close()


def test_nothing_is_locked_without_an_output_and_others_are_free(tmp_path):
    with locked(None), locked(tmp_path / "a"), locked(tmp_path / "b"):
        assert sorted(entry.name for entry in tmp_path.iterdir()) == [".a.lock", ".b.lock"]


@pytest.mark.parametrize("content", [b"", b"\xff", b"[1]", b'{"process": "x"}', b"[" * 10_000])
def test_a_damaged_lock_locks_and_frees_all_the_same(tmp_path, content):
    (tmp_path / ".run.lock").write_bytes(content)
    with locked(tmp_path / "run"):
        pass
    with holder(tmp_path / "run") as other:
        (tmp_path / ".run.lock").write_bytes(content)
        with pytest.raises(WrittenElsewhereError, match="by another process"), locked(tmp_path / "run"):
            pass
        other.stdin.close()


def test_where_nothing_can_be_locked_a_line_says_so(tmp_path, capsys):
    os.symlink("elsewhere", tmp_path / ".run.lock")  # that of somebody who means harm
    with locked(tmp_path / "run"):
        pass
    assert "run is not locked (Too many levels of symbolic links): see that no other" in capsys.readouterr().err
    assert os.readlink(tmp_path / ".run.lock") == "elsewhere"


def test_the_lock_of_another_user_is_a_lock(tmp_path, monkeypatch, capsys):
    """It may be read, but not written; the superuser, as whom tests may run, may do both."""
    system = os.open

    def open_as_another(path, flags, *mode):
        if flags & os.O_RDWR:
            raise PermissionError(errno.EACCES, "Permission denied", path)
        return system(path, flags, *mode)

    with holder(tmp_path / "run") as other:
        left = (tmp_path / ".run.lock").read_bytes()
        with monkeypatch.context() as patch:
            patch.setattr(os, "open", open_as_another)
            with pytest.raises(WrittenElsewhereError, match=f"by process {other.pid} on"), locked(tmp_path / "run"):
                pass
        with pytest.raises(WrittenElsewhereError), locked(tmp_path / "run"):  # it is held on
            pass
        other.stdin.close()
    (tmp_path / ".run.lock").write_bytes(left)
    monkeypatch.setattr(os, "open", open_as_another)
    for name in ("run", "without a lock"):
        with locked(tmp_path / name):
            assert f"{name} is not locked (Permission denied): see that no other" in capsys.readouterr().err
    assert [entry.name for entry in tmp_path.iterdir()] == [".run.lock"]


RACE = """
import sys, time
from pathlib import Path
from verydeep.machine.lock import WrittenElsewhereError, locked
output, count = Path(sys.argv[1]), 0
ends = time.monotonic() + 1
while time.monotonic() < ends:
    try:
        with locked(output):
            mark = output.with_name("mark")
            mark.touch(exist_ok=False)  # nobody else is here
            mark.unlink()
            count += 1
    except WrittenElsewhereError:
        pass
print(count)
"""


def test_never_do_two_hold_it(tmp_path):
    command = [sys.executable, "-c", RACE, str(tmp_path / "run")]
    with ExitStack() as stack:
        others = [stack.enter_context(subprocess.Popen(command, stdout=subprocess.PIPE, text=True)) for _ in range(3)]
        counts = [int(other.communicate(timeout=60)[0]) for other in others]
    assert [other.returncode for other in others] == [0, 0, 0]
    assert sum(counts) > 100
