"""The command line as people of other tools, and shells, use it."""

import pytest
import several_commands as commands

from verydeep.commands.other_tools import _NAMES

TRAIN = ("train", "digits", "--network", "A", "--out", "/nowhere/run")


@pytest.mark.parametrize("theirs", sorted(_NAMES))
def test_options_of_other_tools_are_told_by_their_names_here(capsys, theirs):
    verb = {"--topk": ("predict", "r", "i"), "--format": ("export", "r", "--to", "onnx", "--out", "x.onnx")}
    told = commands.refusal(capsys, *verb.get(theirs, TRAIN), theirs, "1")
    assert f"there is no {theirs}: it is called {_NAMES[theirs]}" in told


def test_there_are_at_least_twenty_of_them():
    assert len(_NAMES) >= 20


def test_choices_are_listed(capsys):
    told = commands.refusal(capsys, "export", "run", "--to", "coreml", "--out", "x.onnx")
    assert '"coreml": choose one of onnx, openvino, torch, torchvision, timm (see' in told


def test_home_is_found_after_an_equals_sign_and_in_toml(capsys, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "taken").write_text("")
    (tmp_path / "o.toml").write_text('out = "~/taken"')
    for words in (("--out=~/taken",), ("--config", tmp_path / "o.toml")):
        told = commands.refusal(capsys, "train", "digits", "--network", "A", *words)
        assert f"{tmp_path}/taken is a file" in told


def test_addresses_are_shown_as_they_were_given(capsys):
    told = commands.refusal(capsys, "predict", "run", "https://example.org/a.jpg")
    assert "https://example.org/a.jpg is an address: download" in told


@pytest.mark.parametrize("words", [("./-x.jpg",), ("--", "-x.jpg")])
def test_files_may_begin_with_a_hyphen(capsys, tmp_path, monkeypatch, words):
    """They get as far as the run, which is none."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "-x.jpg").write_bytes(b"\xff\xd8\xff")
    assert "is not a run" in commands.refusal(capsys, "predict", tmp_path, *words)


@pytest.mark.parametrize(
    "pattern", ["{0..99999999}.tar", "{0..9999}{0..9999}.tar", "{" + "0," * 9 + "1}" + "{a,b}" * 30 + ".tar"]
)
def test_braces_are_counted_before_they_are_written_out(capsys, pattern):
    assert "stands for more than 1,000,000 shards" in commands.refusal(capsys, "scan", f"shards/{pattern}")


def test_bounds_are_stated(capsys):
    assert "workers must be from 0 to 1,024" in commands.refusal(capsys, "scan", "digits", "--workers", 100_000)
    assert "S goes from 224 to 10,000" in commands.refusal(capsys, *TRAIN, "--scale", 99_999_999)
