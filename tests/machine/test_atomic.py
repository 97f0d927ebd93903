"""Files and folders that appear whole or not at all."""

import errno
import json
import os
import resource
import stat
import subprocess
import sys
from contextlib import nullcontext
from pathlib import Path

import pytest

from verydeep.evaluation.predictions import rows_file
from verydeep.machine.atomic import append_json, locate, new_files, new_folder, put_back, write_bytes, write_json


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def fill(path, data):
    with new_files(path) as aside:
        aside.write_bytes(data)


def fill_folder(path, data):
    with new_folder(path) as aside:
        (aside / "inner").write_bytes(data)


def failing(*_arguments, **_options):
    raise OSError("the disk is full")


def test_a_file_is_written_and_replaced(tmp_path):
    for data in (b"first", b"", b"\x00\xff" * 100_000):
        write_bytes(tmp_path / "file", data)
        assert (tmp_path / "file").read_bytes() == data
        assert names(tmp_path) == ["file"]


@pytest.mark.parametrize("step", ["os.fsync", "pathlib.Path.replace"])
def test_a_write_that_fails_leaves_the_old_file_and_nothing_else(tmp_path, monkeypatch, step):
    write_bytes(tmp_path / "file", b"old")
    with monkeypatch.context() as broken:
        broken.setattr(step, failing)
        with pytest.raises(OSError, match="the disk is full"):
            write_bytes(tmp_path / "file", b"new and longer")
    assert (tmp_path / "file").read_bytes() == b"old"
    assert names(tmp_path) == ["file"]


def test_a_file_is_never_seen_half_written(tmp_path, monkeypatch):
    """Its place holds the old bytes until the new ones are synced."""
    write_bytes(tmp_path / "file", b"old")
    seen, sync, replace = [], os.fsync, Path.replace

    def note(what):
        seen.append((what, (tmp_path / "file").read_bytes()))

    monkeypatch.setattr(os, "fsync", lambda descriptor: (note("sync"), sync(descriptor))[1])
    monkeypatch.setattr(Path, "replace", lambda self, to: (note("replace"), replace(self, to))[1])
    write_bytes(tmp_path / "file", b"new and longer")
    assert seen == [("sync", b"old"), ("replace", b"old"), ("sync", b"new and longer")]


def test_json_is_readable_and_exact(tmp_path):
    value = {"name": "Müller & 北京", "errors": [0.1, None, 2], "nested": {"scales": [224, 256, 288]}}
    write_json(tmp_path / "file.json", value)
    text = (tmp_path / "file.json").read_bytes().decode()
    assert json.loads(text) == value
    assert "Müller & 北京" in text
    assert text.count("\n") > 5


def test_what_is_no_json_leaves_the_old_file(tmp_path):
    write_json(tmp_path / "file.json", [1])
    with pytest.raises(TypeError):
        write_json(tmp_path / "file.json", [1, {"half": object()}])
    assert json.loads((tmp_path / "file.json").read_text()) == [1]
    assert names(tmp_path) == ["file.json"]


def test_a_folder_appears_when_its_block_has_ended(tmp_path):
    place = tmp_path / "deep" / "model"
    with new_folder(place) as aside:
        (aside / "weights").write_bytes(b"123")
        (aside / "inner").mkdir()
        (aside / "inner" / "more").write_text("456")
        assert not place.exists()
        assert aside.parent == place.parent
    assert (place / "weights").read_bytes() == b"123"
    assert (place / "inner" / "more").read_text() == "456"
    assert names(place.parent) == ["model"]


def test_a_folder_is_replaced_whole(tmp_path):
    place = tmp_path / "model"
    for number in range(3):
        with new_folder(place) as aside:
            assert names(aside) == []
            (aside / f"only in {number}").write_text(str(number))
            if number:
                assert names(place) == [f"only in {number - 1}"]
        assert names(place) == [f"only in {number}"]
        assert names(tmp_path) == ["model"]


@pytest.mark.parametrize("target", ["missing", "empty", "full"])
def test_a_link_stays_one_and_what_it_leads_to_is_filled(tmp_path, target):
    real, link = tmp_path / "real" / "model", tmp_path / "link"
    if target != "missing":
        real.mkdir(parents=True)
    if target == "full":
        (real / "weights").write_text("old")
    link.symlink_to(Path("real") / "model")
    for text in ("first", "second"):
        with new_folder(link) as aside:
            (aside / "weights").write_text(text)
        assert link.is_symlink()
        assert (real / "weights").read_text() == text
    assert names(tmp_path) == ["link", "real"]
    assert names(tmp_path / "real") == ["model"]


@pytest.mark.parametrize("path", [".", "inner/..", "../here"])
def test_the_working_folder_can_be_named_from_inside(tmp_path, monkeypatch, path):
    (tmp_path / "here" / "inner").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "here")
    with new_folder(Path(path)) as aside:
        (aside / "weights").write_text("new")
    assert names(tmp_path) == ["here"]
    assert names(tmp_path / "here") == ["weights"]


def test_a_folder_that_a_killed_process_was_replacing_is_found_and_put_back(tmp_path):
    real, link = tmp_path / "real", tmp_path / "link"
    left = tmp_path / ".real.123.old"
    left.mkdir()
    (left / "weights").write_text("old")
    link.symlink_to(real)
    assert locate(real) == locate(link) == left
    put_back(link)
    assert link.is_symlink()
    assert locate(link) == link
    real.rename(left)
    with pytest.raises(ZeroDivisionError), new_folder(link):
        raise ZeroDivisionError
    assert locate(link) == link
    assert (real / "weights").read_text() == "old"
    assert names(tmp_path) == ["link", "real"]


def test_what_is_left_of_a_longer_name_stays(tmp_path):
    """`model` and `model.bn` may be written at once, or a process that wrote `model.bn` may have been killed."""
    for kind in ("partial", "old"):
        (tmp_path / f".model.bn.123.{kind}").mkdir()
    assert locate(tmp_path / "model") == tmp_path / "model"
    with new_folder(tmp_path / "model") as aside:
        (aside / "weights").touch()
    assert names(tmp_path) == [".model.bn.123.old", ".model.bn.123.partial", "model"]


def test_a_line_of_which_a_part_fits_is_an_error(tmp_path):
    """As on a disk that is nearly full, the first call of the system writes less than it was given."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10, before[1]))
    try:
        with pytest.raises(OSError, match=r"cannot add 15 bytes to .*lines: File too large"):
            append_json(tmp_path / "lines", {"loss": 1.25})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    append_json(tmp_path / "lines", {"loss": 2.5})
    assert (tmp_path / "lines").read_text().splitlines()[1:] == ['{"loss": 2.5}']


@pytest.mark.parametrize("ending", ["csv", "parquet"])
def test_a_file_that_a_library_writes_is_named_where_there_is_no_room(tmp_path, ending):
    file = tmp_path / f"predictions.{ending}"
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, before[1]))
    try:
        with (
            pytest.raises(OSError, match=rf"^cannot write .*/predictions.{ending}: .*File too large"),
            rows_file(file, {"id": str}) as add,
        ):
            add([[f"{number}.png"] for number in range(10_000)])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert names(tmp_path) == []


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, SystemExit])
def test_a_block_that_fails_leaves_the_old_folder_and_nothing_else(tmp_path, error):
    place = tmp_path / "model"
    with new_folder(place) as aside:
        (aside / "weights").write_text("old")

    def fill(aside):
        (aside / "weights").write_text("new")
        raise error

    with pytest.raises(error), new_folder(place) as aside:
        fill(aside)
    assert (place / "weights").read_text() == "old"
    assert names(place) == ["weights"]
    assert names(tmp_path) == ["model"]


def test_a_block_that_fails_leaves_nothing_where_nothing_was(tmp_path):
    with pytest.raises(ZeroDivisionError), new_folder(tmp_path / "model") as aside:
        (aside / "weights").write_text(str(1 / 0))
    assert names(tmp_path) == []


def test_a_sync_that_fails_leaves_the_old_folder_and_nothing_else(tmp_path, monkeypatch):
    with new_folder(tmp_path / "model") as aside:
        (aside / "weights").write_text("old")
    with monkeypatch.context() as broken:
        broken.setattr("os.fsync", failing)
        with pytest.raises(OSError, match="the disk is full"), new_folder(tmp_path / "model") as aside:
            (aside / "weights").write_text("new")
    assert (tmp_path / "model" / "weights").read_text() == "old"
    assert names(tmp_path) == ["model"]


@pytest.mark.parametrize("write", [write_bytes, fill, fill_folder])
@pytest.mark.parametrize("number", [errno.EACCES, errno.EINVAL, errno.ENOTSUP, errno.EIO])
def test_a_folder_that_cannot_be_synced_is_no_failure_but_a_broken_disk_is(tmp_path, monkeypatch, write, number):
    """Who may write in a folder may not always read it (mode 0733), and not every file system syncs folders."""
    step = "open" if number == errno.EACCES else "fsync"
    do = getattr(os, step)

    def no_folder(place, *rest, **more):
        if place == tmp_path or (step == "fsync" and os.path.isdir(place)):
            raise OSError(number, os.strerror(number))
        return do(place, *rest, **more)

    monkeypatch.setattr(os, step, no_folder)
    lost = number == errno.EIO
    with pytest.raises(OSError, match="Input/output error") if lost else nullcontext():
        write(tmp_path / "new", b"data")
    if not lost:
        (file,) = (path for path in tmp_path.rglob("*") if path.is_file())
        assert file.read_bytes() == b"data"
        assert names(tmp_path) == ["new"]


def test_an_exchange_that_fails_leaves_the_old_folder(tmp_path, monkeypatch):
    """The second of the two renames fails: the old folder has to go back."""
    with new_folder(tmp_path / "model") as aside:
        (aside / "weights").write_text("old")
    rename, calls = Path.rename, []

    def fail_at_the_second(self, to):
        calls.append(to)
        return failing() if len(calls) == 2 else rename(self, to)

    with monkeypatch.context() as broken:
        broken.setattr(Path, "rename", fail_at_the_second)
        with pytest.raises(OSError, match="the disk is full"), new_folder(tmp_path / "model") as aside:
            (aside / "weights").write_text("new")
    assert (tmp_path / "model" / "weights").read_text() == "old"
    assert names(tmp_path) == ["model"]


def test_what_a_killed_process_of_the_same_number_left_is_not_in_the_way(tmp_path):
    """In a container every start may have the same process number."""
    for kind in ("partial", "old"):
        left = tmp_path / f".model.{os.getpid()}.{kind}"
        left.mkdir()
        (left / "weights").write_text("half")
    for text in ("first", "second"):
        with new_folder(tmp_path / "model") as aside:
            (aside / "weights").write_text(text)
        assert (tmp_path / "model" / "weights").read_text() == text
        assert names(tmp_path / "model") == ["weights"]


def test_a_process_that_is_still_writing_keeps_its_folder(tmp_path):
    """Two commands with one output: the second must not take what the first has done."""
    ended = subprocess.run([sys.executable, "-c", "import os; print(os.getpid())"], capture_output=True, check=True)
    running, dead = (tmp_path / f".table.csv.{process}.partial" for process in (os.getppid(), int(ended.stdout)))
    for folder in (running, dead):
        folder.mkdir()
    with new_files(tmp_path / "table.csv") as file:
        file.touch()
    assert names(tmp_path) == [running.name, "table.csv"]
    running.rename(tmp_path / running.name.replace("table.csv", "model"))
    with new_folder(tmp_path / "model"):
        pass
    assert names(tmp_path) == [running.name.replace("table.csv", "model"), "model", "table.csv"]


def test_a_file_that_is_still_written_is_left(tmp_path):
    """Its process may be in another container, where the same numbers are of others: then its age tells."""
    ended = subprocess.run([sys.executable, "-c", "import os; print(os.getpid())"], capture_output=True, check=True)
    running, dead = (tmp_path / f".table.csv.{process}.partial" for process in (os.getppid(), int(ended.stdout)))
    for file in (running, dead):
        file.touch()
    os.utime(running, (0, 0))
    write_bytes(tmp_path / "table.csv", b"")
    assert names(tmp_path) == sorted([running.name, dead.name, "table.csv"])
    os.utime(dead, (0, 0))
    write_bytes(tmp_path / "table.csv", b"")
    assert names(tmp_path) == [running.name, "table.csv"]


def test_a_process_killed_while_it_writes_leaves_the_old_file_and_folder(tmp_path):
    write_bytes(tmp_path / "file", b"old")
    with new_folder(tmp_path / "folder") as aside:
        (aside / "weights").write_text("old")
    script = """
import os, signal, sys
from pathlib import Path
from verydeep.machine.atomic import new_folder, write_bytes
here = Path(sys.argv[1])
os.fsync = lambda descriptor: os.kill(os.getpid(), signal.SIGKILL)
if sys.argv[2] == "file":
    write_bytes(here / "file", b"new")
else:
    with new_folder(here / "folder") as aside:
        (aside / "weights").write_text("new")
"""
    for what in ("file", "folder"):
        killed = subprocess.run([sys.executable, "-c", script, str(tmp_path), what], check=False)
        assert killed.returncode == -9
    assert (tmp_path / "file").read_bytes() == b"old"
    assert (tmp_path / "folder" / "weights").read_text() == "old"
    (left,) = tmp_path.glob(".file.*")
    os.utime(left, (0, 0))
    write_bytes(tmp_path / "file", b"new")
    with new_folder(tmp_path / "folder"):
        pass
    assert names(tmp_path) == ["file", "folder"]


@pytest.mark.parametrize("write", [write_bytes, fill])
def test_a_folder_that_a_killed_process_was_replacing_outlives_a_file_in_its_place(tmp_path, write):
    """It is all that is left of the folder."""
    (tmp_path / ".model.123.old").mkdir()
    write(tmp_path / "model", b"new")
    assert names(tmp_path) == [".model.123.old", "model"]


@pytest.mark.parametrize("umask", [0o022, 0o027, 0o077])
def test_others_may_read_what_a_library_wrote_for_one_user(tmp_path, umask):
    """As umask has it: safetensors gives its files to their owner alone, and a service has a user of its own."""
    before = os.umask(umask)
    try:
        for made, name in ((new_folder, ""), (new_files, "a")):
            with made(tmp_path / "made" / name) as place:
                file = place / "a" if place.is_dir() else place
                os.close(os.open(file, os.O_CREAT, 0o600))
            assert stat.S_IMODE((tmp_path / "made" / "a").stat().st_mode) == 0o666 & ~umask
    finally:
        os.umask(before)
