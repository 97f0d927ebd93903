"""Outputs replace regular files only: a link is followed, a device or a pipe is written to, a folder is refused."""

import os
import socket
import stat
import subprocess
import sys
import threading

import pytest

from verydeep.machine.atomic import append_json, new_files, new_folder, write_bytes

DATA = b"abc" * 100_000
"""More than a pipe holds."""


def by_new_files(path, data):
    with new_files(path) as aside:
        aside.write_bytes(data)


WRITERS = [write_bytes, by_new_files]


def kinds(folder):
    """Return the kind of each entry, to see that none has become another."""
    return {entry.name: stat.S_IFMT(entry.lstat().st_mode) for entry in folder.iterdir()}


@pytest.mark.parametrize("write", WRITERS)
def test_a_link_is_followed_and_its_target_replaced(tmp_path, write):
    (tmp_path / "far").mkdir()
    (tmp_path / "link").symlink_to("middle")
    (tmp_path / "middle").symlink_to(tmp_path / "far" / "file")
    before = kinds(tmp_path)
    for data in (b"first", b"second"):  # the first time it dangles
        write(tmp_path / "link", data)
        assert (tmp_path / "far" / "file").read_bytes() == data
        assert kinds(tmp_path) == before
        assert kinds(tmp_path / "far") == {"file": stat.S_IFREG}


@pytest.mark.parametrize("write", WRITERS)
@pytest.mark.parametrize("linked", [False, True])
def test_a_pipe_stays_one_and_is_written_to(tmp_path, write, linked):
    os.mkfifo(tmp_path / "pipe")
    path = tmp_path / "pipe"
    if linked:
        path = tmp_path / "link"
        path.symlink_to("pipe")
    before, read = kinds(tmp_path), []
    reader = threading.Thread(target=lambda: read.append((tmp_path / "pipe").read_bytes()), daemon=True)
    reader.start()
    write(path, DATA)
    reader.join(timeout=30)
    assert read == [DATA]
    assert kinds(tmp_path) == before


@pytest.mark.parametrize("write", WRITERS)
def test_a_device_stays_one_and_is_written_to(tmp_path, write):
    """A terminal of the test's own, and links to it: no entry of the machine is touched."""
    inner, outer = os.openpty()
    try:
        link = tmp_path / "device"
        link.symlink_to(os.ttyname(outer))
        write(link, b"hello")
        assert os.read(inner, 100) == b"hello"
        assert kinds(tmp_path) == {"device": stat.S_IFLNK}
        assert stat.S_ISCHR(link.stat().st_mode)
    finally:
        os.close(inner)
        os.close(outer)


@pytest.mark.parametrize("write", WRITERS)
def test_a_socket_stays_one(tmp_path, write):
    with socket.socket(socket.AF_UNIX) as bound:
        bound.bind(str(tmp_path / "socket"))
        with pytest.raises(OSError, match=r"cannot write .*socket \(.*\): "):
            write(tmp_path / "socket", DATA)
        assert kinds(tmp_path) == {"socket": stat.S_IFSOCK}


@pytest.mark.parametrize("write", WRITERS)
def test_a_folder_is_refused(tmp_path, write):
    (tmp_path / "folder").mkdir()
    with pytest.raises(OSError, match="it is a folder"):
        write(tmp_path / "folder", DATA)
    assert kinds(tmp_path) == {"folder": stat.S_IFDIR}


SCRIPT = """
import sys
from pathlib import Path
from verydeep.machine.atomic import write_bytes
print("before")
write_bytes(Path(sys.argv[1]), b"data\\n")
print("after")
"""


@pytest.mark.parametrize("kind", ["pipe", "file", "socket"])
def test_standard_output_by_its_path_is_printed_to_in_order(tmp_path, kind):
    """By links of the test's own to /dev/stdout and /proc/self/fd/1, which stay what they are."""
    link = tmp_path / "out"
    link.symlink_to("/proc/self/fd/1")
    ours, theirs = socket.socketpair()
    file = (tmp_path / "printed").open("w+b")
    stdout = {"pipe": subprocess.PIPE, "file": file, "socket": theirs}[kind]
    done = subprocess.run([sys.executable, "-c", SCRIPT, link], stdout=stdout, timeout=60, check=True)
    theirs.close()
    with ours, file:
        file.seek(0)
        printed = {"pipe": lambda: done.stdout, "file": file.read, "socket": lambda: ours.recv(100)}[kind]()
    assert printed == b"before\ndata\nafter\n"
    assert link.is_symlink()


def test_lines_are_added_to_files_only(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "folder").mkdir()
    for name, kind in (("pipe", "a pipe"), ("folder", "a folder")):
        with pytest.raises(OSError, match=f"cannot add to .*{name}: it is {kind}, not a file"):
            append_json(tmp_path / name, {})


@pytest.mark.parametrize("named", ["home", "link"])
def test_folders_of_the_system_are_not_replaced(tmp_path, monkeypatch, named):
    monkeypatch.setenv("HOME", str(tmp_path / named))
    (tmp_path / "home").mkdir()
    if named == "link":  # as /home often is
        (tmp_path / "link").symlink_to("home")
    (tmp_path / "file").touch()
    for name, message in (("home", "is a folder of the system"), ("file", "it is a file, not a folder")):
        with pytest.raises(OSError, match=message), new_folder(tmp_path / name):
            pass
    assert kinds(tmp_path / "home") == {}
    assert {"home": stat.S_IFDIR, "file": stat.S_IFREG}.items() <= kinds(tmp_path).items()


def test_a_user_without_a_folder_may_replace_others(homeless):
    for text in ("first", "second"):
        with new_folder(homeless / "model") as aside:
            (aside / "weights").write_text(text)
    assert (homeless / "model" / "weights").read_text() == "second"
